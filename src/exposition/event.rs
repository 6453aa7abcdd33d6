//! An event as a line of JSON and as a message. What is not known is left out of both.

use std::fmt::Display;
use std::io;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};

use super::container::{Names, names};
use crate::events::{End, Event, Kind};
use crate::proto;

/// There are no others yet.
const PROTOCOL: &str = "TCP";

#[derive(Serialize)]
struct Line<'a> {
    sequence: u64,
    #[serde(serialize_with = "shown")]
    timestamp: humantime::Rfc3339Timestamp,
    #[serde(skip_serializing_if = "str::is_empty")]
    node: &'a str,
    r#type: &'static str,
    protocol: &'static str,
    role: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    src_ip: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    src_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dst_ip: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dst_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    #[serde(skip_serializing_if = "str::is_empty")]
    process: &'a str,
    netns: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<Names<'a>>,
    #[serde(skip_serializing_if = "str::is_empty")]
    service: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_sent: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_received: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    packets_sent: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    packets_received: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retransmits: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rtt_us: Option<u32>,
}

/// Adds the event to `out` as one line.
///
/// # Errors
/// Those of the writer.
pub fn line(node: &str, event: &Event, out: &mut impl io::Write) -> io::Result<()> {
    let (ending, traffic) = (event.ending, event.ending.and_then(|ending| ending.traffic));
    let line = Line {
        sequence: event.sequence,
        timestamp: humantime::format_rfc3339_nanos(SystemTime::UNIX_EPOCH + Duration::from_nanos(event.unix_ns)),
        node,
        r#type: event.kind.as_str(),
        protocol: PROTOCOL,
        role: event.role,
        src_ip: event.src.ip,
        src_port: event.src.port,
        dst_ip: event.dst.ip,
        dst_port: event.dst.port,
        pid: event.pid,
        process: &event.process,
        netns: event.netns,
        container: container(event).map(Names),
        service: service(event),
        reason: ending.map(|ending| ending.reason),
        duration_seconds: ending.and_then(|ending| ending.duration).map(|duration| duration.as_secs_f64()),
        bytes_sent: traffic.map(|traffic| traffic.bytes_sent),
        bytes_received: traffic.map(|traffic| traffic.bytes_received),
        packets_sent: traffic.map(|traffic| traffic.packets_sent),
        packets_received: traffic.map(|traffic| traffic.packets_received),
        retransmits: ending.map(|ending| ending.retransmits),
        rtt_us: traffic.and_then(|traffic| traffic.rtt_us),
    };
    serde_json::to_writer(&mut *out, &line)?;
    out.write_all(b"\n")
}

/// The event as a message.
pub fn message(node: &str, event: &Event) -> proto::Event {
    let ip = |end: End| end.ip.map_or_else(String::new, |ip| ip.to_string());
    let port = |end: End| end.port.unwrap_or_default().into();
    let (ending, traffic) = (event.ending, event.ending.and_then(|ending| ending.traffic));
    proto::Event {
        sequence: event.sequence,
        timestamp_unix_nano: event.unix_ns,
        node: node.to_owned(),
        r#type: number(event.kind).into(),
        protocol: PROTOCOL.to_owned(),
        role: event.role.to_owned(),
        src_ip: ip(event.src),
        src_port: port(event.src),
        dst_ip: ip(event.dst),
        dst_port: port(event.dst),
        pid: event.pid.unwrap_or_default(),
        process: event.process.to_string(),
        netns: event.netns,
        container: container(event).map(|names| {
            let [container_id, container_name, pod_name, pod_namespace] = names.map(|(_, text)| text.to_owned());
            proto::Container { container_id, container_name, pod_name, pod_namespace }
        }),
        service: service(event).to_owned(),
        reason: ending.map_or("", |ending| ending.reason).to_owned(),
        duration_seconds: ending.and_then(|ending| ending.duration).map(|duration| duration.as_secs_f64()),
        bytes_sent: traffic.map(|traffic| traffic.bytes_sent),
        bytes_received: traffic.map(|traffic| traffic.bytes_received),
        packets_sent: traffic.map(|traffic| traffic.packets_sent),
        packets_received: traffic.map(|traffic| traffic.packets_received),
        retransmits: ending.map(|ending| ending.retransmits),
        rtt_us: traffic.and_then(|traffic| traffic.rtt_us),
    }
}

/// How messages number the kinds.
pub fn number(kind: Kind) -> proto::EventType {
    match kind {
        Kind::Connect => proto::EventType::Connect,
        Kind::Accept => proto::EventType::Accept,
        Kind::Close => proto::EventType::Close,
        Kind::ConnectFailed => proto::EventType::ConnectFailed,
    }
}

/// Nothing for what is in none.
fn container(event: &Event) -> Option<[(&'static str, &str); 4]> {
    Some(names(event.workload.as_deref())).filter(|names| names.iter().any(|(_, text)| !text.is_empty()))
}

fn service(event: &Event) -> &str {
    event.workload.as_deref().map_or("", |workload| &workload.service)
}

fn shown<T: Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::events::{Ending, Traffic};
    use crate::identity::Workload;

    fn event() -> Event {
        let workload = Workload {
            container_id: "a1b2c3d4e5f6".into(),
            container: "nginx".into(),
            pod: "nginx-0".into(),
            namespace: "production".into(),
            ..Workload::default()
        };
        let traffic =
            Traffic { bytes_sent: 1, bytes_received: 2, packets_sent: 3, packets_received: 4, rtt_us: Some(5) };
        Event {
            sequence: 7,
            unix_ns: 1_762_425_045_000_000_001,
            kind: Kind::Close,
            src: End { ip: Some([10, 0, 1, 5].into()), port: Some(45678) },
            dst: End { ip: Some([172, 217, 14, 206].into()), port: Some(443) },
            role: "client",
            pid: Some(1234),
            process: "a \"curl\"".into(),
            cgroup: 1,
            workload: Some(Arc::new(workload)),
            netns: 4_026_532_508,
            ending: Some(Ending {
                reason: "fin",
                duration: Some(Duration::from_millis(1500)),
                retransmits: 6,
                traffic: Some(traffic),
            }),
        }
    }

    fn shown(event: &Event) -> String {
        let mut bytes = Vec::new();
        line("node-1", event, &mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_line_has_everything_that_is_known() {
        let expected = concat!(
            r#"{"sequence":7,"timestamp":"2025-11-06T10:30:45.000000001Z","node":"node-1","type":"CLOSE","#,
            r#""protocol":"TCP","role":"client","src_ip":"10.0.1.5","src_port":45678,"dst_ip":"172.217.14.206","#,
            r#""dst_port":443,"pid":1234,"process":"a \"curl\"","netns":4026532508,"container":{"#,
            r#""container_id":"a1b2c3d4e5f6","container_name":"nginx","pod_name":"nginx-0","#,
            r#""pod_namespace":"production"},"reason":"fin","duration_seconds":1.5,"bytes_sent":1,"bytes_received":2,"#,
            r#""packets_sent":3,"packets_received":4,"retransmits":6,"rtt_us":5}"#,
            "\n"
        );
        assert_eq!(shown(&event()), expected);
    }

    #[test]
    fn a_line_has_nothing_that_is_not() {
        let nobody = End { ip: None, port: None };
        let event = Event {
            kind: Kind::Connect,
            src: nobody,
            pid: None,
            process: "".into(),
            workload: None,
            ending: None,
            ..event()
        };
        let expected = concat!(
            r#"{"sequence":7,"timestamp":"2025-11-06T10:30:45.000000001Z","node":"node-1","type":"CONNECT","#,
            r#""protocol":"TCP","role":"client","dst_ip":"172.217.14.206","dst_port":443,"netns":4026532508}"#,
            "\n"
        );
        assert_eq!(shown(&event), expected);
    }

    #[test]
    fn what_is_in_no_container_has_its_unit() {
        let workload = Workload { service: "nginx.service".into(), ..Workload::default() };
        let event = Event { workload: Some(Arc::new(workload)), ..event() };
        let shown = shown(&event);
        assert!(shown.contains(r#""netns":4026532508,"service":"nginx.service","reason""#), "{shown}");
        assert_eq!((message("", &event).container, message("", &event).service), (None, "nginx.service".to_owned()));
    }

    #[test]
    fn a_message_says_the_same() {
        let message = message("node-1", &event());
        assert_eq!((message.sequence, message.r#type(), message.src_port), (7, proto::EventType::Close, 45678));
        assert_eq!((message.bytes_sent, message.rtt_us, message.retransmits), (Some(1), Some(5), Some(6)));
        assert_eq!(message.container.unwrap().pod_namespace, "production");
    }
}
