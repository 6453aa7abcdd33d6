//! TCP connections, per process, peer and role, from the counters in every `struct tcp_sock`.
//!
//! | hook | kind | cost |
//! |---|---|---|
//! | `inet_sock_set_state` | tp_btf | event: about 2 us for the life of a socket |
//! | `tcp_retransmit_synack` | tp_btf | event |
//! | `bpf_sk_storage_map` | iter | event: when the daemon reads, about 0.4 us for each socket |
//! | the same, for lists | iter | event: when somebody asks for a list, three times or so over all sockets |
//! | `task_file` | iter | event: when the daemon looks for owners, about a microsecond for each open file |
//! | `tcp`, `tcp_destroy_sock` | iter, tp_btf | instead of `bpf_sk_storage_map` before Linux 5.12 |
//!
//! Nothing runs when data is sent or received. Without `tcp_retransmit_synack` the SYN-ACKs that were sent again for
//! connections that never came to be are missing; nothing else is optional.

mod audit;
mod decode;
mod events;
mod listing;
mod metrics;
mod namespaces;
mod probe;
mod ranking;
mod rows;
mod skel;
mod sums;
mod walk;

use serde::{Deserialize, Serialize};

use super::Spec;
use crate::bpf::plan::{Alternative, Hook};
use crate::kernel::{LINUX_5_12, LINUX_7_0};
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

/// Iterators over the kernel's own table of sockets go through one network namespace, which has to be entered.
const ELSEWHERE: &str = "connections in network namespaces without a name in which nobody with a TCP socket lives are \
                         counted when they close, and those older than the daemon are not seen there";

/// See [`LINUX_7_0`].
const CRASH: &str = "the risk that the kernel crashes: since 7.0 it may, when a socket is closed in the very moment in \
                     which a pass looks at it";

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
        alternatives: &[
            Alternative::new(HookKind::Iter, "tcp_pass", "bpf_sk_storage_map").since(LINUX_5_12).before(LINUX_7_0),
            Alternative::new(HookKind::Iter, "tcp_pass", "bpf_sk_storage_map").since(LINUX_7_0).taxing(CRASH),
            Alternative::new(HookKind::Iter, "tcp_pass_old", "tcp")
                .before(LINUX_5_12)
                .along("tcp_gone")
                .lacking(ELSEWHERE),
        ],
    },
    Hook {
        name: "bpf_sk_storage_map (list)",
        without: Some("live connections cannot be listed"),
        alternatives: &[
            Alternative::new(HookKind::Iter, "tcp_list", "bpf_sk_storage_map").since(LINUX_5_12).before(LINUX_7_0),
            Alternative::new(HookKind::Iter, "tcp_list", "bpf_sk_storage_map").since(LINUX_7_0).taxing(CRASH),
            Alternative::new(HookKind::Iter, "tcp_list_old", "tcp").before(LINUX_5_12),
        ],
    },
    Hook {
        name: "task_file",
        without: Some("connections older than the daemon are not seen, and accepted ones belong to their listener"),
        alternatives: &[
            Alternative::new(HookKind::Iter, "tcp_walk", "task_file").since(LINUX_5_12),
            Alternative::new(HookKind::Iter, "tcp_walk_old", "task_file").before(LINUX_5_12),
        ],
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collectors::Config;
    use crate::kernel::{HELPERS, Kernel, iterator, tracepoint};

    #[test]
    fn kernels_that_may_crash_are_left_alone_unless_the_module_is_named() {
        let known = [tracepoint("inet_sock_set_state"), iterator("bpf_sk_storage_map"), LINUX_7_0.sign.to_owned()];
        let kernel = |known: &[String]| Kernel {
            btf: Some(true),
            names: known.iter().map(|name| (name.clone(), 3)).collect(),
            enums: [(HELPERS.to_owned(), vec![(163, LINUX_5_12.sign.to_owned())])].into(),
            ..Kernel::default()
        };
        let plan = |kernel: &Kernel, named| Config::default().plan(&SPEC, kernel, named);
        assert!(plan(&kernel(&known), false).check().is_err_and(|missing| missing.declined));
        assert!(plan(&kernel(&known), true).reports().iter().any(|hook| hook.tax == CRASH));
        // Older ones are not concerned.
        let older = plan(&kernel(&known[..2]), false);
        assert!(older.check().is_ok() && older.reports().iter().all(|hook| hook.tax.is_empty()));
    }
}
