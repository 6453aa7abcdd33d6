//! Why segments are sent again, how long connections waited for that, and resets.
//!
//! | hook | kind | cost |
//! |---|---|---|
//! | `tcp_retransmit_skb` | tp_btf | event |
//! | `tcp_retransmit_synack` | tp_btf | event |
//! | `tcp_send_reset` | tp_btf | event |
//! | `tcp_receive_reset` | tp_btf | event |
//!
//! Whose connection it is stands in the record that the tcp module keeps of every socket. Segments are counted as the
//! socket counts them (`tcp_sock.total_retrans`), those that this host then failed to send among them. Before 6.17 the
//! kernel does not show those: they are counted as `other`, with the next one of the connection. So is what is sent
//! again while this module is paused.

mod decode;
mod metrics;
mod probe;
mod skel;

use super::Spec;
use crate::bpf::hook::{Alternative, Hook};

/// What this collector is.
pub const SPEC: Spec = Spec {
    name: "retransmit",
    summary: "why TCP segments are sent again, time lost waiting for that, and resets, by process and peer",
    hooks: HOOKS,
    asked: |config| &config.retransmit.hook,
    enums: &[decode::RESET_REASONS],
    lacks: |_| "",
    needs: Some("tcp"),
    rank: 50,
    families: metrics::ALL,
    start: probe::start,
};

const HOOKS: &[Hook] = &[
    Hook {
        name: "tcp_retransmit_skb",
        without: None,
        alternatives: &[
            Alternative::tp_btf("retransmit_skb", "tcp_retransmit_skb").with_arguments(3),
            Alternative::tp_btf("retransmit_skb_old", "tcp_retransmit_skb"),
        ],
    },
    Hook {
        name: "tcp_retransmit_synack",
        without: Some("retransmitted SYN-ACKs are not counted"),
        alternatives: &[Alternative::tp_btf("retransmit_synack", "tcp_retransmit_synack")],
    },
    Hook {
        name: "tcp_send_reset",
        without: Some("resets that this host sends are not counted"),
        alternatives: &[
            Alternative::tp_btf("retransmit_reset_sent", "tcp_send_reset").with_arguments(3),
            Alternative::tp_btf("retransmit_reset_sent_old", "tcp_send_reset")
                .lacking("resets sent for ports without a socket are not counted, and none has a reason"),
        ],
    },
    Hook {
        name: "tcp_receive_reset",
        without: Some("resets that this host receives are not counted"),
        alternatives: &[Alternative::tp_btf("retransmit_reset_received", "tcp_receive_reset")],
    },
];
