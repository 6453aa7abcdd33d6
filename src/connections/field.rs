//! The numbers that are known of a connection: their names and units, once for every format.

/// What a number counts; decides how it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Whole things: bytes, packets, microseconds, bytes a second.
    Whole,
    /// Nanoseconds, shown as seconds.
    Seconds,
}

/// One number of a connection.
#[derive(Debug)]
pub struct Description {
    /// Its name in JSON, in the messages of gRPC, and as something to sort by.
    pub name: &'static str,
    /// How it is written.
    pub unit: Unit,
}

/// A number, by its place in [`Field::ALL`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field(usize);

impl Field {
    /// Every number there is, as `enum tcp_field` of `bpf/tcp/rows.h` numbers them; there it says where each comes from.
    pub const ALL: &[Description; 45] = &[
        seconds("duration_seconds"),
        whole("bytes_sent"),
        whole("bytes_received"),
        whole("bytes_acked"),
        whole("bytes_retransmitted"),
        whole("packets_sent"),
        whole("packets_received"),
        whole("data_packets_sent"),
        whole("data_packets_received"),
        whole("retransmits"),
        whole("spurious_retransmits"),
        whole("delivered"),
        whole("delivered_ce"),
        whole("out_of_order"),
        whole("rtt_us"),
        whole("rtt_variation_us"),
        whole("min_rtt_us"),
        whole("receive_rtt_us"),
        whole("rto_us"),
        whole("backoff"),
        whole("cwnd"),
        whole("ssthresh"),
        whole("mss"),
        whole("advertised_mss"),
        whole("receive_mss"),
        whole("path_mtu"),
        whole("unacked"),
        whole("sacked"),
        whole("lost"),
        whole("retransmitting"),
        whole("reordering"),
        whole("reorderings"),
        whole("send_queue"),
        whole("unsent"),
        whole("receive_queue"),
        whole("send_window"),
        whole("receive_window"),
        whole("pacing_rate"),
        whole("delivery_rate"),
        seconds("busy_seconds"),
        seconds("receiver_limited_seconds"),
        seconds("send_buffer_limited_seconds"),
        seconds("since_sent_seconds"),
        seconds("since_received_seconds"),
        seconds("since_acked_seconds"),
    ];

    /// Age of the connection.
    pub const DURATION: Field = Field(0);

    /// What lists are sorted by unless another is named.
    pub const BYTES_SENT: Field = Field(1);

    /// The one of that name.
    pub fn named(name: &str) -> Option<Field> {
        Field::ALL.iter().position(|known| known.name == name).map(Field)
    }

    /// Its name and unit.
    pub fn description(self) -> &'static Description {
        &Field::ALL[self.0]
    }

    /// Its place in [`Field::ALL`].
    pub fn index(self) -> usize {
        self.0
    }
}

/// The numbers of one connection, as the wire has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fields(pub [u64; Field::ALL.len()]);

impl Fields {
    /// `FIELD_UNKNOWN` of `bpf/tcp/rows.h`.
    pub const UNKNOWN: u64 = u64::MAX;

    /// `None` where the kernel does not know.
    pub fn get(&self, field: Field) -> Option<u64> {
        Some(self.0[field.index()]).filter(|&value| value != Fields::UNKNOWN)
    }

    /// Those that are known, in the order of [`Field::ALL`].
    pub fn known(&self) -> impl Iterator<Item = (Field, u64)> {
        (0..self.0.len()).map(Field).filter_map(|field| Some((field, self.get(field)?)))
    }
}

const fn whole(name: &'static str) -> Description {
    Description { name, unit: Unit::Whole }
}

const fn seconds(name: &'static str) -> Description {
    Description { name, unit: Unit::Seconds }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_in_the_order_of_the_wire() {
        let header = include_str!("../../bpf/tcp/rows.h");
        let wire = header.split_once("enum tcp_field {").and_then(|(_, rest)| rest.split_once('}')).unwrap().0;
        let wire: Vec<_> = wire.split(',').filter_map(|name| name.trim().strip_prefix("FIELD_")).collect();
        assert_eq!(wire.len(), Field::ALL.len() + 1, "and FIELD_MAX");
        for (wire, Description { name, unit }) in wire.iter().zip(Field::ALL) {
            let plain = name.strip_suffix("_seconds").or(name.strip_suffix("_us")).unwrap_or(name);
            assert_eq!(wire.to_lowercase(), plain);
            assert_eq!(*unit == Unit::Seconds, name.ends_with("_seconds"), "{name}");
        }
        assert_eq!(Field::named("bytes_sent"), Some(Field::BYTES_SENT));
        assert_eq!(Field::named("duration_seconds"), Some(Field::DURATION));
    }
}
