//! OpenMetrics 1.0, through the encoder of `prometheus-client`.

use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabel, EncodeLabelSet, LabelSetEncoder, MetricEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use crate::histogram::{Bound, Histogram};
use crate::snapshot::{Descriptor, Family, Kind, Sample, Snapshot, Value};

/// What an HTTP response calls it.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Writes all families and the end mark.
///
/// # Errors
/// Those of the writer.
pub fn encode(snapshot: &Arc<Snapshot>, out: &mut impl Write) -> io::Result<()> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Shared(Arc::clone(snapshot))));
    let mut adapter = Adapter { out, error: None };
    prometheus_client::encoding::text::encode(&mut adapter, &registry)
        .map_err(|fmt::Error| adapter.error.unwrap_or_else(|| io::Error::other("the encoder failed")))
}

#[derive(Debug)]
struct Shared(Arc<Snapshot>);

impl Collector for Shared {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let mut buckets = Vec::new();
        self.0.families.iter().try_for_each(|family| encode_family(family, &self.0.bounds, &mut buckets, &mut encoder))
    }
}

fn encode_family(
    family: &Family,
    bounds: &[Bound],
    buckets: &mut Vec<(f64, u64)>,
    encoder: &mut DescriptorEncoder,
) -> fmt::Result {
    let kind = match family.descriptor.kind {
        Kind::Counter => MetricType::Counter,
        Kind::Gauge => MetricType::Gauge,
        Kind::Histogram => MetricType::Histogram,
    };
    let (name, unit) = name_and_unit(family.descriptor);
    let mut metric = encoder.encode_descriptor(name, &escaped_help(family.descriptor.help), unit.as_ref(), kind)?;
    for Sample { labels, value } in &family.samples {
        // An empty set would be shown as `{}`.
        if labels.is_empty() {
            encode_value(value, kind, bounds, buckets, &mut metric)?;
        } else {
            encode_value(value, kind, bounds, buckets, &mut metric.encode_family(&LabelSet(labels))?)?;
        }
    }
    Ok(())
}

fn encode_value(
    value: &Value,
    kind: MetricType,
    bounds: &[Bound],
    buckets: &mut Vec<(f64, u64)>,
    encoder: &mut MetricEncoder,
) -> fmt::Result {
    match (value, kind) {
        (Value::Integer(count), MetricType::Counter) => encoder.encode_counter::<NoLabelSet, _, f64>(count, None),
        (Value::Number(quantity), MetricType::Counter) => encoder.encode_counter::<NoLabelSet, _, f64>(quantity, None),
        (Value::Integer(count), _) => encoder.encode_gauge(count),
        (Value::Number(quantity), _) => encoder.encode_gauge(quantity),
        (Value::Histogram(histogram), _) => {
            let count = histogram.count();
            separate(histogram, count, bounds, buckets);
            encoder.encode_histogram::<NoLabelSet>(histogram.sum(), count, buckets, None)
        }
    }
}

/// The encoder adds buckets up, so they are taken apart for it.
fn separate(histogram: &Histogram, count: u64, bounds: &[Bound], buckets: &mut Vec<(f64, u64)>) {
    buckets.clear();
    let mut before = 0;
    for (bound, below) in histogram.cumulative(bounds).chain([(f64::INFINITY, count)]) {
        buckets.push((bound, below - before));
        before = below;
    }
}

/// The encoder appends unit and `_total` itself. A unit that does not end the name is left out, as the format demands.
fn name_and_unit(descriptor: &Descriptor) -> (&'static str, Option<Unit>) {
    let name = match descriptor.kind {
        Kind::Counter => descriptor.name.strip_suffix("_total").unwrap_or(descriptor.name),
        Kind::Gauge | Kind::Histogram => descriptor.name,
    };
    match name.strip_suffix(descriptor.unit).and_then(|stem| stem.strip_suffix('_')) {
        Some(stem) if !descriptor.unit.is_empty() => (stem, Some(Unit::Other(descriptor.unit.to_owned()))),
        _ => (name, None),
    }
}

/// The encoder writes help as it comes.
fn escaped_help(help: &str) -> String {
    help.replace('\\', r"\\").replace('\n', r"\n").replace('"', r#"\""#)
}

#[derive(Debug)]
struct LabelSet<'a>(&'a [(&'static str, Box<str>)]);

impl EncodeLabelSet for LabelSet<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder) -> fmt::Result {
        self.0.iter().try_for_each(|(name, value)| (*name, &**value).encode(encoder.encode_label()))
    }
}

/// Lets the encoder, which formats, write to a writer of bytes.
struct Adapter<'a, W> {
    out: &'a mut W,
    error: Option<io::Error>,
}

impl<W: Write> fmt::Write for Adapter<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.out.write_all(text.as_bytes()).map_err(|error| {
            self.error = Some(error);
            fmt::Error
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(name: &'static str, unit: &'static str, kind: Kind) -> (&'static str, Option<String>) {
        let (name, unit) = name_and_unit(&Descriptor { name, help: "", unit, kind, module: "m" });
        (name, unit.map(|unit| unit.as_str().to_owned()))
    }

    #[test]
    fn suffixes_that_the_encoder_adds_are_taken_off() {
        assert_eq!(split("a_seconds", "seconds", Kind::Gauge), ("a", Some("seconds".into())));
        assert_eq!(split("a_seconds_total", "seconds", Kind::Counter), ("a", Some("seconds".into())));
        assert_eq!(split("a_bytes_sent_total", "bytes", Kind::Counter), ("a_bytes_sent", None));
        assert_eq!(split("a_total", "", Kind::Counter), ("a", None));
        assert_eq!(split("a_", "", Kind::Gauge), ("a_", None));
    }

    #[test]
    fn help_is_escaped() {
        assert_eq!(escaped_help("a\\b\n\"c\""), r#"a\\b\n\"c\""#);
    }

    #[test]
    fn errors_of_the_writer_come_through() {
        let snapshot = Arc::new(Snapshot {
            sequence: 1,
            taken_at: std::time::SystemTime::UNIX_EPOCH,
            uptime: std::time::Duration::ZERO,
            node: "".into(),
            modules: vec![],
            helpers: vec![],
            families: vec![],
            bounds: Arc::new([]),
        });
        let error = encode(&snapshot, &mut io::Cursor::new(&mut [0_u8; 2][..])).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WriteZero);
    }
}
