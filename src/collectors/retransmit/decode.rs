//! From the wire to labels. Pure: nothing here touches the kernel.

use std::collections::HashMap;

use super::skel::types::{retransmit_key, retransmit_kind, retransmit_reset_key};
use crate::collectors::labels::{self, OTHER, Pairs, finish, ip, role};
use crate::connections::STATES;
use crate::identity::Identity;
use crate::snapshot::Labels;

/// The kernel's enumeration of why it sends a reset, since 6.10.
pub const RESET_REASONS: &str = "sk_rst_reason";

/// What its names begin with.
const REASON_PREFIX: &str = "SK_RST_REASON_";

/// `RESET_WITHOUT_REASON` of `bpf/retransmit/retransmit.h`.
const WITHOUT_REASON: u32 = u32::MAX;

/// Labels in the order in which they are shown, for keys of one table.
#[derive(Debug)]
pub struct Decoder {
    identity: Identity,
    reasons: HashMap<u32, String>,
}

impl Decoder {
    /// Knows the reasons for resets as this kernel numbers them.
    pub fn new(identity: Identity, reasons: &[(u32, String)]) -> Decoder {
        let named = |(number, name): &(u32, String)| {
            (*number, name.strip_prefix(REASON_PREFIX).unwrap_or(name).to_ascii_lowercase())
        };
        Decoder { identity, reasons: reasons.iter().map(named).collect() }
    }

    /// Labels of segments.
    pub fn segments(&self, slot: u32, key: &retransmit_key) -> Labels {
        let mut pairs = self.ends(key);
        pairs.push(("kind", kind(key.kind).to_owned()));
        pairs.push(("state", STATES.get(usize::from(key.state)).copied().unwrap_or_default().to_owned()));
        finish(slot, pairs)
    }

    /// Labels of the time spent waiting.
    pub fn timeouts(&self, slot: u32, key: &retransmit_key) -> Labels {
        finish(slot, self.ends(key))
    }

    /// Labels of resets.
    pub fn resets(&self, slot: u32, key: &retransmit_reset_key) -> Labels {
        let port = if key.dst_port == 0 { String::new() } else { key.dst_port.to_string() };
        let direction = if key.received == 0 { "sent" } else { "received" };
        let mut pairs = labels::who(&self.identity, &key.who.comm, key.who.cgroup);
        pairs.extend([("dst_port", port), ("direction", direction.to_owned()), ("reason", self.reason(key.reason))]);
        finish(slot, pairs)
    }

    fn reason(&self, number: u32) -> String {
        match number {
            WITHOUT_REASON => String::new(),
            _ => self.reasons.get(&number).cloned().unwrap_or_else(|| number.to_string()),
        }
    }

    /// The labels of connections.
    fn ends(&self, key: &retransmit_key) -> Pairs {
        let mut pairs = labels::who(&self.identity, &key.who.comm, key.who.cgroup);
        pairs.extend([
            ("role", role(key.role).to_owned()),
            ("dst_ip", ip(key.dst_ip)),
            ("dst_port", key.dst_port.to_string()),
        ]);
        pairs
    }
}

fn kind(kind: u8) -> &'static str {
    match retransmit_kind(kind.into()) {
        retransmit_kind::KIND_SYN => "syn",
        retransmit_kind::KIND_SYNACK => "synack",
        retransmit_kind::KIND_FAST => "fast",
        retransmit_kind::KIND_TIMEOUT => "timeout",
        retransmit_kind::KIND_LOSS_PROBE => "loss_probe",
        _ => OTHER,
    }
}

#[cfg(test)]
mod tests {
    use super::super::skel::types::{self, who};
    use super::*;

    fn label<'a>(labels: &'a Labels, name: &str) -> Option<&'a str> {
        labels.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_ref())
    }

    #[test]
    fn reasons_have_the_names_of_the_running_kernel() {
        let decoder = Decoder::new(Identity::default(), &[(1, "SK_RST_REASON_NO_SOCKET".to_owned())]);
        let reason = |reason| {
            let labels = decoder.resets(1, &retransmit_reset_key { reason, ..Default::default() });
            label(&labels, "reason").map(str::to_owned)
        };
        assert_eq!(reason(1).as_deref(), Some("no_socket"));
        assert_eq!(reason(77).as_deref(), Some("77"));
        assert_eq!(reason(WITHOUT_REASON), None);
    }

    #[test]
    fn what_is_not_known_of_a_reset_is_left_out() {
        let key = retransmit_reset_key { reason: WITHOUT_REASON, received: 1, ..Default::default() };
        assert_eq!(*Decoder::new(Identity::default(), &[]).resets(1, &key), [("direction", "received".into())]);
    }

    #[test]
    fn segments_are_labelled_like_the_connection_they_belong_to() {
        let mut key = retransmit_key { dst_port: 443, role: 1, state: 1, ..Default::default() };
        key.who = who { comm: *b"curl\0\0\0\0\0\0\0\0\0\0\0\0", ..Default::default() };
        key.dst_ip = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 5];
        key.kind = retransmit_kind::KIND_LOSS_PROBE.0 as u8;
        let ends = [("comm", "curl"), ("role", "client"), ("dst_ip", "10.0.0.5"), ("dst_port", "443")];
        let decoder = Decoder::new(Identity::default(), &[]);
        assert_eq!(*decoder.timeouts(1, &key), ends.map(|(name, value)| (name, value.into())));
        let labels = decoder.segments(1, &key);
        assert_eq!((label(&labels, "kind"), label(&labels, "state")), (Some("loss_probe"), Some("established")));
        assert_eq!(labels[..4], *decoder.timeouts(1, &key));
    }

    #[test]
    fn roles_are_numbered_as_on_the_wire() {
        for (wire, name) in [(types::role::ROLE_CLIENT, "client"), (types::role::ROLE_SERVER, "server")] {
            assert_eq!(role(wire.0 as u8), name);
        }
    }
}
