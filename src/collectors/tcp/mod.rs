//! TCP connections, per process, peer and role, from the counters in every `struct tcp_sock`.
//!
//! | hook | kind | cost |
//! |---|---|---|
//! | `inet_sock_set_state` | tp_btf | event: about 2 us for the life of a socket |
//! | `tcp_retransmit_synack` | tp_btf | event |
//! | `tcp_send_reset` | tp_btf | event |
//! | `bpf_sk_storage_map` | iter | event: when the daemon reads, about 0.4 us for each socket |
//! | the same, for lists | iter | event: when somebody asks for a list, three times or so over all sockets |
//! | `task_file` | iter | event: when the daemon looks for owners, about a microsecond for each open file |
//! | `tcp` | iter | instead of `bpf_sk_storage_map` before Linux 5.12 and since 7.0, once for each network namespace |
//! | `tcp_destroy_sock` | tp_btf | along with it before 5.12 |
//!
//! Nothing runs when data is sent or received. Without `tcp_retransmit_synack` the SYN-ACKs that were sent again for
//! connections that never came to be are missing, and without `tcp_send_reset` the resets of aborted connections are not
//! among their packets.

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
mod sockets;
mod sums;
mod walk;

use serde::{Deserialize, Serialize};

use super::Spec;
use crate::bpf::hook::{Alternative, Hook};
use crate::kernel::{LINUX_7_0, LINUX_WITH_FETCH};
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
    lacks: |_| "",
    needs: None,
    rank: 60,
    families: metrics::ALL,
    start: probe::start,
};

/// Iterators over the kernel's own table of sockets go through one network namespace, which has to be entered.
const ELSEWHERE: &str = "connections in network namespaces without a name in which nobody with a TCP socket lives are \
                         counted when they close, and those older than the daemon are not seen there";

/// Over the records in all sockets, in one go; not since [`LINUX_7_0`].
const fn stored(program: &'static str) -> Alternative {
    Alternative::new(HookKind::Iter, program, "bpf_sk_storage_map").since(LINUX_WITH_FETCH).before(LINUX_7_0)
}

/// Over the kernel's own table of sockets, in one network namespace after another.
const fn by_namespace(program: &'static str) -> Alternative {
    Alternative::new(HookKind::Iter, program, "tcp").entering()
}

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
        name: "tcp_send_reset",
        without: Some("the resets of connections that an application aborts are not among the packets that they sent"),
        alternatives: &[Alternative::tp_btf("tcp_reset_sent", "tcp_send_reset")],
    },
    Hook {
        name: "bpf_sk_storage_map",
        without: None,
        alternatives: &[
            stored(sockets::PASS_STORED),
            by_namespace(sockets::PASS_BY_NAMESPACE).since(LINUX_WITH_FETCH).lacking(ELSEWHERE),
            by_namespace(sockets::PASS_BY_NAMESPACE).before(LINUX_WITH_FETCH).along("tcp_gone").lacking(ELSEWHERE),
        ],
    },
    Hook {
        name: "bpf_sk_storage_map (list)",
        without: Some("live connections cannot be listed"),
        alternatives: &[stored(sockets::LIST_STORED), by_namespace(sockets::LIST_BY_NAMESPACE)],
    },
    Hook {
        name: "task_file",
        without: Some("connections older than the daemon are not seen, and accepted ones belong to their listener"),
        alternatives: &[
            Alternative::new(HookKind::Iter, sockets::WALK, "task_file").since(LINUX_WITH_FETCH),
            Alternative::new(HookKind::Iter, sockets::WALK_OLD, "task_file").before(LINUX_WITH_FETCH),
        ],
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bpf::plan::Plan;
    use crate::collectors::Config;
    use crate::kernel::{HELPERS, Kernel, Version, iterator, tracepoint};

    fn plan_since(versions: &[Version]) -> Plan {
        let (helpers, functions): (Vec<_>, Vec<_>) =
            versions.iter().map(|version| version.sign.to_owned()).partition(|sign| sign.starts_with("BPF_FUNC_"));
        let offered = [tracepoint("inet_sock_set_state"), iterator("bpf_sk_storage_map"), iterator("tcp")];
        let kernel = Kernel {
            btf: Some(true),
            names: offered.into_iter().chain(functions).map(|name| (name, 3)).collect(),
            enums: [(HELPERS.to_owned(), helpers.into_iter().zip(163..).map(|(name, id)| (id, name)).collect())].into(),
            ..Kernel::default()
        };
        Config::default().plan(&SPEC, &kernel, false)
    }

    #[test]
    fn sockets_are_passed_over_where_their_records_are_unless_the_kernel_may_crash() {
        let passes = |plan: &Plan| (plan.takes("tcp_pass"), plan.takes("tcp_pass_netns"), plan.takes("tcp_gone"));
        let old = plan_since(&[]);
        assert_eq!((passes(&old), old.enters()), ((false, true, true), true));
        let usual = plan_since(&[LINUX_WITH_FETCH]);
        assert_eq!((passes(&usual), usual.enters()), ((true, false, false), false));
        let new = plan_since(&[LINUX_WITH_FETCH, LINUX_7_0]);
        assert_eq!((passes(&new), new.enters()), ((false, true, false), true));
        assert!(new.check().is_ok() && new.takes("tcp_list_netns"));
    }
}
