//! From the wire to labels. Pure: nothing here touches the kernel.

use super::skel::types::{tcp_failure_key, tcp_listener_key, tcp_reason, tcp_series_key, tcp_timing_key, who};
use super::{Config, Label};
use crate::collectors::labels::{self, OTHER, Pairs, finish, ip, role};
use crate::identity::Identity;
use crate::snapshot::Labels;

/// Labels in the order in which they are shown, for keys of one table.
#[derive(Debug)]
pub struct Decoder {
    identity: Identity,
    pid: bool,
    src_ip: bool,
    src_port: bool,
}

impl Decoder {
    /// Knows which labels were asked for.
    pub fn new(identity: Identity, config: &Config) -> Decoder {
        let has = |label| config.labels.contains(&label);
        Decoder { identity, pid: has(Label::Pid), src_ip: has(Label::SrcIp), src_port: has(Label::SrcPort) }
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
    pub fn caller(&self, slot: u32, key: &who) -> Labels {
        let pid = [("pid", key.pid.to_string())];
        finish(slot, pid.into_iter().chain(labels::who(&self.identity, &key.comm, key.cgroup)).collect())
    }

    fn who(&self, who: &who) -> Pairs {
        let mut pairs = labels::who(&self.identity, &who.comm, who.cgroup);
        if self.pid {
            pairs.push(("pid", if who.pid == 0 { String::new() } else { who.pid.to_string() }));
        }
        pairs
    }
}

/// Why a connect failed or a connection ended.
pub fn reason(reason: u8) -> &'static str {
    match tcp_reason(reason.into()) {
        tcp_reason::REASON_REFUSED => "refused",
        tcp_reason::REASON_TIMEOUT => "timeout",
        tcp_reason::REASON_RESET => "reset",
        tcp_reason::REASON_UNREACHABLE => "unreachable",
        tcp_reason::REASON_ABORTED => "aborted",
        tcp_reason::REASON_LOCAL => "local",
        tcp_reason::REASON_FIN => "fin",
        tcp_reason::REASON_PEER_FIN => "peer_fin",
        _ => OTHER,
    }
}
