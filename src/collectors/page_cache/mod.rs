//! The page cache: pages that come, go and get dirty, by process and device, and reads that had to wait.
//!
//! | hook | kind | cost |
//! |---|---|---|
//! | `mm_filemap_add_to_page_cache` | tp_btf | event: when pages come |
//! | `mm_filemap_delete_from_page_cache` | tp_btf | event: when pages go |
//! | `writeback_dirty_folio` | tp_btf | event: when a clean page gets dirty |
//! | `page_cache_sync_ra` | tp_btf, else fentry, else kprobe | event: when a read finds no page |
//! | `mm_filemap_get_pages` | tp_btf, else fexit on `filemap_get_pages` | each step of each read; with `lookups` alone |
//!
//! By default nothing runs when a read finds its pages, and never when memory that is mapped is touched: how often that
//! is done no kernel tells. Without `writeback_dirty_folio` dirtied pages are missing, without `page_cache_sync_ra` the
//! reads that had to wait. Pages of tmpfs and shared memory are left out, as the kernel tells when they go, but not when
//! they come.

mod decode;
mod devices;
mod metrics;
mod probe;
mod skel;

use serde::{Deserialize, Serialize};

use super::Spec;
use crate::bpf::hook::{Alternative, Hook};
use crate::kernel::{LINUX_5_13, LINUX_5_17};
use crate::status::HookKind;

/// `collector.page-cache`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether the pages are counted that read calls ask for: a program on the path of every read.
    pub lookups: bool,
}

impl Config {
    /// Whether a hook is to be used, or belongs to an option that is off.
    pub fn wants(&self, hook: &Hook) -> bool {
        self.lookups || hook.name != LOOKUPS
    }
}

/// What this collector is.
pub const SPEC: Spec = Spec {
    name: "page-cache",
    summary: "The page cache: pages that come, go and get dirty, and reads that had to wait, by process and device",
    hooks: HOOKS,
    asked: |config| &config.page_cache.hook,
    enums: &[],
    lacks: |_| "",
    needs: None,
    rank: 10,
    families: metrics::ALL,
    start: probe::start,
};

const LOOKUPS: &str = "mm_filemap_get_pages";

const HOOKS: &[Hook] = &[
    Hook {
        name: "mm_filemap_add_to_page_cache",
        without: None,
        alternatives: &[Alternative::tp_btf("page_cache_added", "mm_filemap_add_to_page_cache")],
    },
    Hook {
        name: "mm_filemap_delete_from_page_cache",
        without: None,
        alternatives: &[Alternative::tp_btf("page_cache_evicted", "mm_filemap_delete_from_page_cache")],
    },
    Hook {
        name: "writeback_dirty_folio",
        without: Some("pages that get dirty are not counted"),
        alternatives: &[
            Alternative::tp_btf("page_cache_dirtied", "writeback_dirty_folio"),
            Alternative::tp_btf("page_cache_dirtied_page", "writeback_dirty_page"),
        ],
    },
    Hook {
        name: "page_cache_sync_ra",
        without: Some("reads that had to wait are not counted"),
        alternatives: &[
            Alternative::tp_btf("page_cache_missed", "page_cache_sync_ra"),
            Alternative::new(HookKind::Fentry, "page_cache_missed_fentry", "page_cache_sync_ra").since(LINUX_5_13),
            Alternative::new(HookKind::Kprobe, "page_cache_missed_kprobe", "page_cache_sync_ra"),
        ],
    },
    Hook {
        name: LOOKUPS,
        without: Some("pages that reads ask for are not counted"),
        alternatives: &[
            Alternative::tp_btf("page_cache_lookup", "mm_filemap_get_pages").since(LINUX_5_17),
            Alternative::new(HookKind::Fexit, "page_cache_lookup_fexit", "filemap_get_pages").since(LINUX_5_17),
        ],
    },
];
