//! Memory reclaim: what the kernel took back, on whose behalf, and how long tasks had to wait for it.
//!
//! | hook | kind | cost |
//! |---|---|---|
//! | `mm_vmscan_direct_reclaim_begin`, `_end` | tp_btf | event: a task finds no free page and reclaims some itself |
//! | `mm_vmscan_memcg_reclaim_begin`, `_end` | tp_btf | event: a cgroup is at its limit, or told to shrink |
//!
//! Pages are not counted by a program: `/proc/vmstat` has them, by cause and by type. Without the hooks the time that
//! tasks were stalled is missing, and nothing else.

mod decode;
mod metrics;
mod probe;
mod skel;
mod vmstat;

use super::Spec;
use crate::bpf::hook::{Alternative, Hook};

/// What this collector is.
pub const SPEC: Spec = Spec {
    name: "reclaim",
    summary: "Memory reclaim: stalls of tasks by process, pages scanned and reclaimed by cause, refaults",
    hooks: HOOKS,
    asked: |config| &config.reclaim.hook,
    enums: &[vmstat::NODE_STATS],
    lacks: |kernel| if vmstat::tells_cgroups(kernel.enumeration(vmstat::NODE_STATS)) { "" } else { CGROUPS_UNTOLD },
    needs: None,
    rank: 40,
    families: metrics::ALL,
    start: probe::start,
};

/// What is missing where the kernel counts the reclaim of cgroups among the rest.
const CGROUPS_UNTOLD: &str =
    "pages that are reclaimed for cgroups are counted by this kernel among direct and proactive, and not apart";

const HOOKS: &[Hook] = &[
    Hook {
        name: "mm_vmscan_direct_reclaim_begin",
        without: Some("the time of tasks in direct reclaim is not measured"),
        alternatives: &[Alternative::tp_btf("reclaim_direct_begin", "mm_vmscan_direct_reclaim_begin")],
    },
    Hook {
        name: "mm_vmscan_direct_reclaim_end",
        without: Some("the time of tasks in direct reclaim is not measured"),
        alternatives: &[Alternative::tp_btf("reclaim_direct_end", "mm_vmscan_direct_reclaim_end")],
    },
    Hook {
        name: "mm_vmscan_memcg_reclaim_begin",
        without: Some("the time of tasks in the reclaim of their cgroups is not measured"),
        alternatives: &[Alternative::tp_btf("reclaim_memcg_begin", "mm_vmscan_memcg_reclaim_begin")],
    },
    Hook {
        name: "mm_vmscan_memcg_reclaim_end",
        without: Some("the time of tasks in the reclaim of their cgroups is not measured"),
        alternatives: &[Alternative::tp_btf("reclaim_memcg_end", "mm_vmscan_memcg_reclaim_end")],
    },
];
