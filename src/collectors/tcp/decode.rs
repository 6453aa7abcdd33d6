//! From the wire to labels. Pure: nothing here touches the kernel.

use std::net::Ipv6Addr;

use super::skel::types::{
    tcp_caller_key, tcp_failure_key, tcp_listener_key, tcp_reason, tcp_role, tcp_series_key, tcp_timing_key, tcp_who,
};
use super::{Config, Label};
use crate::snapshot::Labels;

/// What every label of the series says that takes what found no room.
pub const OTHER: &str = "other";

/// Labels in the order in which they are shown, for keys of one table.
#[derive(Debug)]
pub struct Decoder {
    pid: bool,
    src_ip: bool,
    src_port: bool,
}

type Pairs = Vec<(&'static str, String)>;

impl Decoder {
    /// Knows which labels were asked for.
    pub fn new(config: &Config) -> Decoder {
        let has = |label| config.labels.contains(&label);
        Decoder { pid: has(Label::Pid), src_ip: has(Label::SrcIp), src_port: has(Label::SrcPort) }
    }

    /// Labels of the connection families.
    pub fn series(&self, slot: u32, key: &tcp_series_key) -> Labels {
        let mut pairs = self.who(&key.who);
        pairs.push(("role", role(key.role).to_owned()));
        if self.src_ip {
            pairs.push(("src_ip", ip(key.src_ip)));
        }
        if self.src_port {
            pairs.push(("src_port", key.src_port.to_string()));
        }
        pairs.push(("dst_ip", ip(key.dst_ip)));
        pairs.push(("dst_port", key.dst_port.to_string()));
        finish(slot, pairs)
    }

    /// Labels of the histograms.
    pub fn timing(&self, slot: u32, key: &tcp_timing_key) -> Labels {
        let mut pairs = self.who(&key.who);
        pairs.push(("role", role(key.role).to_owned()));
        pairs.push(("dst_port", key.dst_port.to_string()));
        finish(slot, pairs)
    }

    /// Labels of listening sockets.
    pub fn listener(&self, slot: u32, key: &tcp_listener_key) -> Labels {
        let mut pairs = self.who(&key.who);
        pairs.push(("dst_port", key.port.to_string()));
        finish(slot, pairs)
    }

    /// Labels of failed connects.
    pub fn failure(&self, slot: u32, key: &tcp_failure_key) -> Labels {
        let mut pairs = self.who(&key.who);
        pairs.push(("dst_ip", ip(key.dst_ip)));
        pairs.push(("dst_port", key.dst_port.to_string()));
        pairs.push(("reason", reason(key.reason).to_owned()));
        finish(slot, pairs)
    }

    /// Labels of the connects by process.
    pub fn caller(&self, slot: u32, key: &tcp_caller_key) -> Labels {
        finish(slot, vec![("pid", key.pid.to_string()), ("comm", comm(&key.comm))])
    }

    fn who(&self, who: &tcp_who) -> Pairs {
        let mut pairs = vec![("comm", comm(&who.comm))];
        if self.pid && who.pid != 0 {
            pairs.push(("pid", who.pid.to_string()));
        }
        pairs
    }
}

/// The same labels with one more.
pub fn with(labels: &Labels, name: &'static str, value: &str) -> Labels {
    let other = labels.iter().all(|(_, value)| value.as_ref() == OTHER);
    let value = if other { OTHER } else { value };
    labels.iter().cloned().chain([(name, value.into())]).collect()
}

/// Slot 0 takes what found no room, whatever its key says. Labels that are not known are left out.
fn finish(slot: u32, pairs: Pairs) -> Labels {
    let value = |text: String| if slot == 0 { OTHER.into() } else { text.into_boxed_str() };
    pairs
        .into_iter()
        .filter(|(_, text)| slot == 0 || !text.is_empty())
        .map(|(name, text)| (name, value(text)))
        .collect()
}

fn comm(bytes: &[u8; 16]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// IPv4 in its own notation, also where a dual-stack socket carries it.
fn ip(bytes: [u8; 16]) -> String {
    Ipv6Addr::from(bytes).to_canonical().to_string()
}

fn role(role: u8) -> &'static str {
    match tcp_role(role.into()) {
        tcp_role::ROLE_CLIENT => "client",
        tcp_role::ROLE_SERVER => "server",
        _ => "unknown",
    }
}

fn reason(reason: u8) -> &'static str {
    match tcp_reason(reason.into()) {
        tcp_reason::REASON_REFUSED => "refused",
        tcp_reason::REASON_TIMEOUT => "timeout",
        tcp_reason::REASON_RESET => "reset",
        tcp_reason::REASON_UNREACHABLE => "unreachable",
        tcp_reason::REASON_ABORTED => "aborted",
        tcp_reason::REASON_LOCAL => "local",
        _ => OTHER,
    }
}
