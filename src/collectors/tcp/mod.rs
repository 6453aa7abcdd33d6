//! TCP connections, per process, peer and role, from the counters in every `struct tcp_sock`.
//!
//! | hook | kind | cost |
//! |---|---|---|
//! | `inet_sock_set_state` | tp_btf | event: about 2 us for the life of a socket |
//! | `tcp_retransmit_synack` | tp_btf | event |
//! | `bpf_sk_storage_map` | iter | event: when the daemon reads, about 0.4 us for each socket |
//! | the same, for lists | iter | event: when somebody asks for a list, three times or so over all sockets |
//! | `task_file` | iter | event: when the daemon looks for owners, about a microsecond for each open file |
//!
//! Nothing runs when data is sent or received. Without `tcp_retransmit_synack` the SYN-ACKs that were sent again for
//! connections that never came to be are missing; nothing else is optional.

mod audit;
mod decode;
mod events;
mod listing;
mod metrics;
mod probe;
mod ranking;
mod rows;
mod skel;
mod sums;
mod walk;

use serde::{Deserialize, Serialize};

use super::Spec;
use crate::bpf::plan::{Alternative, Hook};
use crate::status::HookKind;

/// `collector.tcp`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Labels to add to the connection families. With `src_port` there is one series for each connection.
    pub labels: Vec<Label>,
}

/// A label that is not there by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Label {
    /// Address of the side that opened the connection.
    SrcIp,
    /// Its port.
    SrcPort,
    /// The process; also on the other families of this collector.
    Pid,
}

/// What this collector is.
pub const SPEC: Spec = Spec {
    name: "tcp",
    summary: "TCP connections: bytes, segments, retransmissions, round trips, failures, by process and peer",
    hooks: HOOKS,
    asked: |config| &config.tcp.hook,
    enums: &[],
    needs: None,
    rank: 60,
    families: metrics::ALL,
    start: probe::start,
};

const HOOKS: &[Hook] = &[
    Hook {
        name: "inet_sock_set_state",
        without: None,
        alternatives: &[Alternative::tp_btf("tcp_state", "inet_sock_set_state")],
    },
    Hook {
        name: "tcp_retransmit_synack",
        without: Some("retransmitted SYN-ACKs of connections that never came to be are not counted"),
        alternatives: &[Alternative::tp_btf("tcp_synack", "tcp_retransmit_synack")],
    },
    Hook {
        name: "bpf_sk_storage_map",
        without: None,
        alternatives: &[Alternative::new(HookKind::Iter, "tcp_pass", "bpf_sk_storage_map")],
    },
    Hook {
        name: "bpf_sk_storage_map (list)",
        without: Some("live connections cannot be listed"),
        alternatives: &[Alternative::new(HookKind::Iter, "tcp_list", "bpf_sk_storage_map")],
    },
    Hook {
        name: "task_file",
        without: Some("connections older than the daemon are not seen, and accepted ones belong to their listener"),
        alternatives: &[Alternative::new(HookKind::Iter, "tcp_walk", "task_file")],
    },
];
