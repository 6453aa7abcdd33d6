//! Lists of connections, as JSON and as messages of gRPC: the same names and values in both.

use std::io;

use prost::encoding;
use serde::ser::{Serialize, SerializeMap, SerializeStruct, Serializer};

use super::container::{Names, names};
use super::since_epoch;
use crate::connections::field::Unit;
use crate::connections::{Connection, Listing};
use crate::proto;

/// Tag of the first of [`Field::ALL`] in `Connection` of `proto/`.
const FIRST_FIELD: u32 = 20;

/// Writes the body of `/api/v1/connections`.
///
/// # Errors
/// Those of the writer.
pub fn json(listing: &Listing, out: &mut impl io::Write) -> io::Result<()> {
    Ok(serde_json::to_writer(out, &Body(listing))?)
}

/// The message with the same.
pub fn message(listing: &Listing) -> proto::ListConnectionsResponse {
    proto::ListConnectionsResponse {
        node: listing.node.to_string(),
        // Nanoseconds fit until the year 2554.
        timestamp_unix_nano: since_epoch(listing.taken_at).as_nanos() as u64,
        live: listing.live,
        total: listing.total,
        connections: listing.connections.iter().map(encoded).collect(),
    }
}

struct Body<'a>(&'a Listing);

impl Serialize for Body<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Listing { node, taken_at, live, total, connections } = self.0;
        let mut body = serializer.serialize_struct("Listing", 5)?;
        body.serialize_field("node", &**node)?;
        body.serialize_field("timestamp", &since_epoch(*taken_at).as_secs_f64())?;
        body.serialize_field("live", live)?;
        body.serialize_field("total", total)?;
        body.serialize_field("connections", &Rows(connections))?;
        body.end()
    }
}

struct Rows<'a>(&'a [Connection]);

impl Serialize for Rows<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(Row))
    }
}

struct Row<'a>(&'a Connection);

impl Serialize for Row<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut row = serializer.serialize_map(None)?;
        let mut text = |name, text: &str| if text.is_empty() { Ok(()) } else { row.serialize_entry(name, text) };
        let connection = self.0;
        text("comm", &connection.comm)?;
        if let Some(pid) = connection.pid {
            row.serialize_entry("pid", &pid)?;
        }
        if container(connection).iter().any(|(_, text)| !text.is_empty()) {
            row.serialize_entry("container", &Names(container(connection)))?;
        }
        if let Some(service) = service(connection) {
            row.serialize_entry("service", service)?;
        }
        row.serialize_entry("role", connection.role)?;
        row.serialize_entry("state", connection.state)?;
        row.serialize_entry("netns", &connection.netns)?;
        row.serialize_entry("src_ip", &connection.src.ip.to_canonical())?;
        row.serialize_entry("src_port", &connection.src.port)?;
        row.serialize_entry("dst_ip", &connection.dst.ip.to_canonical())?;
        row.serialize_entry("dst_port", &connection.dst.port)?;
        if !connection.congestion_control.is_empty() {
            row.serialize_entry("congestion_control", &connection.congestion_control)?;
        }
        row.serialize_entry("congestion_state", connection.congestion_state)?;
        for (field, value) in connection.fields.known() {
            let description = field.description();
            match description.unit {
                Unit::Whole => row.serialize_entry(description.name, &value)?,
                Unit::Seconds => row.serialize_entry(description.name, &seconds(value))?,
            }
        }
        row.end()
    }
}

/// `Connection` in its bytes. The tags are those of `proto/`; a test holds them to it.
fn encoded(connection: &Connection) -> proto::Encoded {
    let mut bytes = Vec::new();
    let mut text = |tag, text: &str| {
        if !text.is_empty() {
            encoding::string::encode(tag, &text.to_owned(), &mut bytes);
        }
    };
    text(1, &connection.comm);
    text(4, service(connection).unwrap_or_default());
    text(5, connection.role);
    text(6, connection.state);
    text(8, &connection.src.ip.to_canonical().to_string());
    text(10, &connection.dst.ip.to_canonical().to_string());
    text(12, &connection.congestion_control);
    text(13, connection.congestion_state);
    for (tag, number) in [(9, connection.src.port), (11, connection.dst.port)] {
        encoding::uint32::encode(tag, &number.into(), &mut bytes);
    }
    encoding::uint64::encode(7, &connection.netns.into(), &mut bytes);
    if let Some(pid) = connection.pid {
        encoding::uint32::encode(2, &pid, &mut bytes);
    }
    let [id, name, pod, namespace] = container(connection).map(|(_, text)| text.to_owned());
    let container =
        proto::Container { container_id: id, container_name: name, pod_name: pod, pod_namespace: namespace };
    if container != proto::Container::default() {
        encoding::message::encode(3, &container, &mut bytes);
    }
    for (field, value) in connection.fields.known() {
        let tag = FIRST_FIELD + field.index() as u32;
        match field.description().unit {
            Unit::Whole => encoding::uint64::encode(tag, &value, &mut bytes),
            Unit::Seconds => encoding::double::encode(tag, &seconds(value), &mut bytes),
        }
    }
    proto::Encoded(bytes)
}

fn container(connection: &Connection) -> [(&'static str, &str); 4] {
    names(connection.workload.as_deref())
}

fn service(connection: &Connection) -> Option<&str> {
    connection.workload.as_deref().map(|workload| &*workload.service).filter(|service| !service.is_empty())
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use prost_types::field_descriptor_proto::Type;

    use super::*;
    use crate::connections::Field;

    #[test]
    fn numbers_have_the_names_tags_and_types_of_the_protocol() {
        let files = prost_types::FileDescriptorSet::decode(proto::DESCRIPTORS).unwrap();
        let mut messages = files.file.iter().flat_map(|file| &file.message_type);
        let message = messages.find(|message| message.name() == "Connection").unwrap();
        let numbers: Vec<_> = message.field.iter().filter(|field| field.number() >= FIRST_FIELD as i32).collect();
        assert_eq!(numbers.len(), Field::ALL.len());
        for ((field, tag), description) in numbers.iter().zip(FIRST_FIELD as i32..).zip(Field::ALL) {
            let kind = if description.unit == Unit::Seconds { Type::Double } else { Type::Uint64 };
            assert_eq!((field.name(), field.number(), field.r#type()), (description.name, tag, kind));
            assert!(field.proto3_optional(), "{}", field.name());
        }
    }
}
