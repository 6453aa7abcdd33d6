//! What a client is willing to take: `Accept` and `Accept-Encoding`, with weights.

use hyper::HeaderMap;
use hyper::header::{ACCEPT, ACCEPT_ENCODING, HeaderName};

/// A media type that can be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Media {
    pub(super) kind: &'static str,
    pub(super) subtype: &'static str,
    pub(super) version: Option<&'static str>,
}

/// The offer that the client likes best, the first of several; `None` if it takes none of them.
pub(super) fn media<'a, T>(headers: &HeaderMap, offers: &'a [(Media, T)]) -> Option<&'a T> {
    let mut ranges = items(headers, &ACCEPT).peekable();
    if ranges.peek().is_none() {
        return offers.first().map(|(_, offer)| offer);
    }
    let ranges: Vec<Item> = ranges.collect();
    let mut best: Option<(u16, &T)> = None;
    for (media, offer) in offers {
        let weight = ranges.iter().filter_map(|range| Some((specificity(range, media)?, range.weight))).max();
        let weight = weight.map_or(0, |(_, weight)| weight);
        if weight > best.map_or(0, |(weight, _)| weight) {
            best = Some((weight, offer));
        }
    }
    best.map(|(_, offer)| offer)
}

/// Whether to compress: `gzip` must be asked for, and not less than `identity`.
pub(super) fn gzip(headers: &HeaderMap) -> bool {
    let weight = |coding: &str| {
        items(headers, &ACCEPT_ENCODING).find(|item| item.name.eq_ignore_ascii_case(coding)).map(|item| item.weight)
    };
    let gzip = weight("gzip").or_else(|| weight("x-gzip")).or_else(|| weight("*")).unwrap_or(0);
    gzip > 0 && gzip >= weight("identity").unwrap_or(0)
}

/// One element of a list, with its weight in thousandths.
struct Item<'a> {
    name: &'a str,
    parameters: &'a str,
    weight: u16,
}

/// A weight that makes no sense counts as none: what cannot be understood was not asked for.
fn items<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = Item<'a>> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).filter_map(|element| {
        let (name, parameters) = element.split_once(';').unwrap_or((element, ""));
        let weight = parameter(parameters, "q").map_or(1000, |weight| thousandths(weight).unwrap_or(0));
        Some(Item { name: name.trim(), parameters, weight }).filter(|item| !item.name.is_empty())
    })
}

fn parameter<'a>(parameters: &'a str, wanted: &str) -> Option<&'a str> {
    let mut pairs = parameters.split(';').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(name, _)| name.trim().eq_ignore_ascii_case(wanted))?;
    Some(value.trim().trim_matches('"'))
}

/// A weight is 0 to 1 with at most three digits after the point.
fn thousandths(text: &str) -> Option<u16> {
    let weight: f32 = text.parse().ok().filter(|weight| (0.0..=1.0).contains(weight))?;
    Some((weight * 1000.0).round() as u16)
}

/// How closely a range describes a medium; `None` if it does not.
fn specificity(range: &Item, media: &Media) -> Option<u8> {
    let (kind, subtype) = range.name.split_once('/')?;
    let version = parameter(range.parameters, "version");
    match (kind, subtype) {
        ("*", "*") => Some(0),
        _ if !kind.eq_ignore_ascii_case(media.kind) => None,
        (_, "*") => Some(1),
        _ if !subtype.eq_ignore_ascii_case(media.subtype) => None,
        _ if version.is_none() => Some(2),
        _ if version == media.version => Some(3),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFERS: [(Media, &str); 2] = [
        (Media { kind: "text", subtype: "plain", version: Some("0.0.4") }, "text"),
        (Media { kind: "application", subtype: "openmetrics-text", version: Some("1.0.0") }, "om"),
    ];

    fn with(name: HeaderName, values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (name.clone(), value.parse().unwrap())).collect()
    }

    fn chosen(accept: &[&str]) -> Option<&'static str> {
        media(&with(ACCEPT, accept), &OFFERS).copied()
    }

    #[test]
    fn the_best_liked_medium_wins_and_text_breaks_ties() {
        assert_eq!(chosen(&[]), Some("text"));
        assert_eq!(chosen(&[""]), Some("text"));
        assert_eq!(chosen(&["*/*"]), Some("text"));
        assert_eq!(chosen(&["text/html, application/xml;q=0.9, */*;q=0.8"]), Some("text"));
        assert_eq!(chosen(&["application/openmetrics-text"]), Some("om"));
        assert_eq!(chosen(&["Application/OpenMetrics-Text; Version=\"1.0.0\""]), Some("om"));
        assert_eq!(chosen(&["application/openmetrics-text;version=1.0.0,text/plain;q=0.5"]), Some("om"));
        assert_eq!(chosen(&["text/plain;q=0.5", "application/openmetrics-text;q=0.6"]), Some("om"));
        assert_eq!(chosen(&["application/openmetrics-text;q=0.2,text/plain;q=0.5"]), Some("text"));
    }

    #[test]
    fn prometheus_gets_openmetrics() {
        let two = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                   text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        let three = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                     application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
                     text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        assert_eq!((chosen(&[two]), chosen(&[three])), (Some("om"), Some("om")));
    }

    #[test]
    fn what_is_refused_is_not_served() {
        assert_eq!(chosen(&["text/html"]), None);
        assert_eq!(chosen(&["text/plain;version=1.0.0"]), None);
        assert_eq!(chosen(&["text/plain;q=0"]), None);
        assert_eq!(chosen(&["*/*;q=0"]), None);
        assert_eq!(chosen(&["text/plain;q=0, */*"]), Some("om"));
        assert_eq!(chosen(&["text/plain;q=nonsense"]), None);
        assert_eq!(chosen(&["plain"]), None);
    }

    #[test]
    fn compression_is_used_when_asked_for() {
        let asked = |value: &str| gzip(&with(ACCEPT_ENCODING, &[value]));
        assert!(asked("gzip") && asked("deflate, GZIP;q=0.5") && asked("*") && asked("identity, gzip"));
        assert!(!asked("gzip;q=0") && !asked("*, gzip;q=0") && !asked("identity") && !asked("br"));
        assert!(!asked("gzip;q=0.5, identity;q=1.0"));
        assert!(!gzip(&HeaderMap::new()));
    }
}
