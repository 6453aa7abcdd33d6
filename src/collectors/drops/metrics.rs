//! The family of this collector. Pure.

use crate::snapshot::Descriptor;

/// `packets` of `struct drops_counts`.
pub static DROPS: Descriptor = Descriptor::counter(
    "drops",
    "sidecar_drops_total",
    "",
    "Packets that the kernel dropped (skb:kfree_skb), by its own reason and the function that dropped them.",
);

/// All of them, in the order in which they are shown.
pub const ALL: &[&Descriptor] = &[&DROPS];
