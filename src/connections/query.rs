//! What a reader may ask for. HTTP and gRPC state it by the same names, which are checked here alone.

use std::net::{IpAddr, Ipv6Addr};

use thiserror::Error;

use super::field::Field;
use super::{ROLES, STATES};

/// Most connections that a list may have.
pub const MAX_LIMIT: usize = 10_000;

/// States that a listed connection may be in: of connections that are established or closing.
const LISTED_STATES: [u8; 6] = [1, 4, 5, 8, 9, 11];

/// Which connections, and how many of them: the largest in one of their numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// What is largest in the first one.
    pub sort: Field,
    /// At most so many, from 1.
    pub limit: usize,
    /// All that is set has to match.
    pub filter: Filter,
}

/// What a connection has to be; what is not set does not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// The process, as `task_struct.comm` has its name.
    pub comm: Option<[u8; 16]>,
    /// Its id.
    pub pid: Option<u32>,
    /// Index in [`ROLES`].
    pub role: Option<u8>,
    /// Index in [`STATES`].
    pub state: Option<u8>,
    /// Address of the side that opened.
    pub src_ip: Option<Ipv6Addr>,
    /// Its port.
    pub src_port: Option<u16>,
    /// Address of the side that listens.
    pub dst_ip: Option<Ipv6Addr>,
    /// Its port.
    pub dst_port: Option<u16>,
    /// Name of the container.
    pub container: Option<String>,
    /// Name of the pod.
    pub pod: Option<String>,
    /// Namespace of the pod.
    pub namespace: Option<String>,
}

/// A parameter that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{parameter}: {problem}")]
pub struct QueryError {
    /// Its name.
    pub parameter: String,
    problem: String,
}

type Set = fn(&mut Query, &str) -> Result<(), String>;

/// Every parameter, and what it does.
const PARAMETERS: [(&str, Set); 13] = [
    ("sort", |query, text| {
        let names = || Field::ALL.iter().map(|field| field.name);
        query.sort = Field::named(text).ok_or_else(|| none_of(text, names()))?;
        Ok(())
    }),
    ("limit", |query, text| {
        let fits = |limit: &usize| (1..=MAX_LIMIT).contains(limit);
        let problem = || format!("{text:?} is not a number from 1 to {MAX_LIMIT}");
        query.limit = number(text).filter(fits).ok_or_else(problem)?;
        Ok(())
    }),
    ("comm", |query, text| set(&mut query.filter.comm, comm(text))),
    ("pid", |query, text| set(&mut query.filter.pid, pid(text))),
    ("role", |query, text| set(&mut query.filter.role, index(text, ROLES.iter().zip(0..)))),
    ("state", |query, text| {
        let listed = LISTED_STATES.iter().map(|&state| (&STATES[usize::from(state)], state));
        set(&mut query.filter.state, index(text, listed))
    }),
    ("src_ip", |query, text| set(&mut query.filter.src_ip, ip(text))),
    ("src_port", |query, text| set(&mut query.filter.src_port, port(text))),
    ("dst_ip", |query, text| set(&mut query.filter.dst_ip, ip(text))),
    ("dst_port", |query, text| set(&mut query.filter.dst_port, port(text))),
    ("container", |query, text| set(&mut query.filter.container, name(text))),
    ("pod", |query, text| set(&mut query.filter.pod, name(text))),
    ("namespace", |query, text| set(&mut query.filter.namespace, name(text))),
];

impl Default for Query {
    fn default() -> Self {
        Query { sort: Field::BYTES_SENT, limit: 100, filter: Filter::default() }
    }
}

impl Query {
    /// From parameters by name, each given once at most.
    ///
    /// # Errors
    /// The first parameter that there is not, that is given twice, or whose value cannot be.
    pub fn parse<N: AsRef<str>, V: AsRef<str>>(pairs: impl IntoIterator<Item = (N, V)>) -> Result<Query, QueryError> {
        let mut query = Query::default();
        let mut seen = Vec::new();
        for (name, value) in pairs {
            let name = name.as_ref();
            let wrong = |problem: String| QueryError { parameter: name.to_owned(), problem };
            let known = PARAMETERS.iter().find(|(known, _)| *known == name);
            let names = || PARAMETERS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
            let (known, set) =
                known.ok_or_else(|| wrong(format!("there is no such parameter; there are {}", names())))?;
            if seen.contains(known) {
                return Err(wrong("it is given twice".to_owned()));
            }
            seen.push(known);
            set(&mut query, value.as_ref()).map_err(wrong)?;
        }
        Ok(query)
    }
}

fn set<T, E: Into<String>>(place: &mut Option<T>, value: Result<T, E>) -> Result<(), String> {
    *place = Some(value.map_err(Into::into)?);
    Ok(())
}

fn none_of<'a>(text: &str, names: impl Iterator<Item = &'a str>) -> String {
    format!("{text:?} is none of {}", names.collect::<Vec<_>>().join(", "))
}

fn index<'a>(text: &str, mut names: impl Iterator<Item = (&'a &'a str, u8)> + Clone) -> Result<u8, String> {
    let all = names.clone().map(|(name, _)| *name);
    names.find(|(name, _)| **name == text).map(|(_, number)| number).ok_or_else(|| none_of(text, all))
}

/// Digits alone: no sign.
fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

fn pid(text: &str) -> Result<u32, String> {
    number(text).filter(|&pid| pid > 0).ok_or_else(|| format!("{text:?} is not the id of a process"))
}

fn port(text: &str) -> Result<u16, String> {
    number(text).filter(|&port| port > 0).ok_or_else(|| format!("{text:?} is not a port from 1 to 65535"))
}

fn ip(text: &str) -> Result<Ipv6Addr, String> {
    match text.parse() {
        Ok(IpAddr::V4(ip)) => Ok(ip.to_ipv6_mapped()),
        Ok(IpAddr::V6(ip)) => Ok(ip),
        Err(_) => Err(format!("{text:?} is not an IP address")),
    }
}

fn name(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("it has no value".to_owned()) } else { Ok(text.to_owned()) }
}

/// The bytes of a name as labels show it: what is written as `\xff` there is that byte.
fn comm(text: &str) -> Result<[u8; 16], String> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let escaped = after.strip_prefix(b"x").filter(|_| *first == b'\\').and_then(|hex| hex.first_chunk::<2>());
        let byte = escaped.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &after[3..] } else { after };
    }
    let mut comm = [0; 16];
    // The kernel ends a name with a zero.
    if bytes.is_empty() || bytes.len() >= comm.len() || bytes.contains(&0) {
        return Err(format!("{text:?} is not the name of a process: those have 1 to 15 bytes"));
    }
    comm[..bytes.len()].copy_from_slice(&bytes);
    Ok(comm)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(pairs: &[(&str, &str)]) -> Result<Query, String> {
        Query::parse(pairs.iter().copied()).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_not_asked_has_its_default() {
        let query = parsed(&[]).unwrap();
        assert_eq!((query.sort, query.limit, query.filter), (Field::BYTES_SENT, 100, Filter::default()));
    }

    #[test]
    fn every_parameter_is_understood() {
        let query = parsed(&[
            ("sort", "rtt_us"),
            ("limit", "10000"),
            ("comm", "nginx"),
            ("pid", "7"),
            ("role", "server"),
            ("state", "close_wait"),
            ("src_ip", "10.0.0.5"),
            ("src_port", "65535"),
            ("dst_ip", "::1"),
            ("dst_port", "1"),
            ("container", "web"),
            ("pod", "web-0"),
            ("namespace", "shop"),
        ])
        .unwrap();
        let expected = Filter {
            comm: Some(*b"nginx\0\0\0\0\0\0\0\0\0\0\0"),
            pid: Some(7),
            role: Some(2),
            state: Some(8),
            src_ip: Some("::ffff:10.0.0.5".parse().unwrap()),
            src_port: Some(65535),
            dst_ip: Some("::1".parse().unwrap()),
            dst_port: Some(1),
            container: Some("web".to_owned()),
            pod: Some("web-0".to_owned()),
            namespace: Some("shop".to_owned()),
        };
        assert_eq!((query.sort, query.limit), (Field::named("rtt_us").unwrap(), MAX_LIMIT));
        assert_eq!(query.filter, expected);
    }

    #[test]
    fn what_cannot_be_is_named_with_what_can() {
        for (pairs, parts) in [
            (&[("colour", "red")][..], &["colour: ", "sort, limit, comm"][..]),
            (&[("", "")], &[": there is no such parameter"]),
            (&[("limit", "5"), ("limit", "5")], &["limit: ", "twice"]),
            (&[("sort", "beauty")], &["sort: \"beauty\" is none of ", "bytes_sent, "]),
            (&[("limit", "0")], &["limit: ", "1 to 10000"]),
            (&[("limit", "10001")], &["limit: ", "1 to 10000"]),
            (&[("limit", "")], &["limit: "]),
            (&[("pid", "-1")], &["pid: "]),
            (&[("pid", "+1")], &["pid: "]),
            (&[("pid", "")], &["pid: "]),
            (&[("pid", "0")], &["pid: "]),
            (&[("role", "boss")], &["role: \"boss\" is none of unknown, client, server"]),
            (&[("state", "listen")], &["state: ", "none of established, fin_wait1"]),
            (&[("dst_port", "65536")], &["dst_port: ", "65535"]),
            (&[("dst_ip", "localhost")], &["dst_ip: ", "not an IP address"]),
            (&[("comm", "")], &["comm: "]),
            (&[("comm", "0123456789abcdef")], &["comm: "]),
            (&[("pod", "")], &["pod: "]),
        ] {
            let error = parsed(pairs).unwrap_err();
            assert!(parts.iter().all(|part| error.contains(part)), "{pairs:?}: {error}");
        }
    }

    #[test]
    fn names_are_read_as_labels_show_them() {
        let bytes = |text| comm(text).map(|bytes| bytes.split(|&byte| byte == 0).next().unwrap().to_vec());
        assert_eq!(bytes("\\xff").unwrap(), b"\xff");
        assert_eq!(bytes("\\x5cxff").unwrap(), b"\\xff");
        assert_eq!(bytes("\\x6fther").unwrap(), b"other");
        assert_eq!(bytes("a\\b\\x").unwrap(), b"a\\b\\x");
        assert_eq!(bytes("\u{e9}").unwrap(), b"\xc3\xa9");
    }
}
