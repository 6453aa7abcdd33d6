//! Packets that the kernel dropped, by its own reason and by the function that dropped them.
//!
//! | hook | kind | cost |
//! |---|---|---|
//! | `kfree_skb` | tp_btf | event: about 0.2 us for each dropped packet |
//!
//! Packets that were delivered or sent end in `consume_skb`, where nothing runs. Before Linux 6.11 the tracepoint does not
//! tell the receiving socket, so that most received packets have no `comm` and `dst_port`; before 5.17 it tells no reason.

mod decode;
mod metrics;
mod probe;
mod reasons;
mod skel;

use super::Spec;
use crate::bpf::hook::{Alternative, Hook};

/// What this collector is.
pub const SPEC: Spec = Spec {
    name: "drops",
    summary: "dropped packets, by the kernel's reason, protocol, function and socket",
    hooks: HOOKS,
    asked: |config| &config.drops.hook,
    enums: &[reasons::CORE, reasons::SUBSYSTEMS],
    lacks: |_| "",
    needs: Some("tcp"),
    rank: 20,
    families: metrics::ALL,
    start: probe::start,
};

const HOOKS: &[Hook] = &[Hook {
    name: "kfree_skb",
    without: None,
    alternatives: &[
        Alternative::tp_btf("drops_socket", "kfree_skb").with_arguments(4),
        Alternative::tp_btf("drops_reason", "kfree_skb")
            .with_arguments(3)
            .lacking("the sockets of received packets are not known before Linux 6.11"),
        Alternative::tp_btf("drops_bare", "kfree_skb").lacking(
            "drop reasons are not known before Linux 5.17, nor the sockets of received packets before 6.11, nor \
             functions before 5.13",
        ),
    ],
}];
