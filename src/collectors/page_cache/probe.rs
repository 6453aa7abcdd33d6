//! Running: loads, attaches, reads the counters. The one file of this collector that deals with libbpf.

use std::mem::MaybeUninit;

use libbpf_rs::Object;
use libbpf_rs::skel::{OpenSkel, Skel, SkelBuilder};
use nix::unistd::{SysconfVar, sysconf};

use super::decode;
use super::devices::Devices;
use super::metrics::{self, Families, Known};
use super::skel::types::{
    page_cache_cgroup, page_cache_cgroup_counts, page_cache_pages, page_cache_pages_counts, page_cache_pages_key,
    page_cache_reader, page_cache_reader_counts, who,
};
use super::skel::{OpenPageCacheSkel, PageCacheSkel, PageCacheSkelBuilder};
use crate::bpf::load::{self, LoadError};
use crate::bpf::object::{self, Attachment};
use crate::bpf::own;
use crate::bpf::plain::Plain;
use crate::bpf::plan::Plan;
use crate::bpf::slots::{self, Counts, CpuTable, Slot};
use crate::collectors::{CollectError, Collector, Objects, Setup};
use crate::identity::Identity;
use crate::snapshot::{Descriptor, Family, Labels};
use crate::status::MapReport;
use crate::target::Target;

/// Every CPU has counters of its own, and there are no more label sets than processes with a name of their own that
/// read or write, for each device: this many are plenty.
const MAX_PAGES: u32 = 2048;
const MAX_CGROUPS: u32 = 1024;
const MAX_READERS: u32 = 1024;

// SAFETY: generated from C structs that begin with `struct slot_head` and the key, as SLOT_TABLE asserts; all integers.
unsafe impl Slot for page_cache_pages {
    type Key = page_cache_pages_key;
}
// SAFETY: as above.
unsafe impl Slot for page_cache_cgroup {
    type Key = u64;
}
// SAFETY: as above.
unsafe impl Slot for page_cache_reader {
    type Key = who;
}
// SAFETY: generated from a C struct of integers without padding.
unsafe impl Plain for page_cache_pages_counts {}
// SAFETY: as above.
unsafe impl Plain for page_cache_cgroup_counts {}
// SAFETY: as above.
unsafe impl Plain for page_cache_reader_counts {}
// SAFETY: `struct slot_use` comes first, as SLOT_TABLE_PERCPU asserts, then counters of 64 bits.
unsafe impl Counts for page_cache_pages_counts {}
// SAFETY: as above.
unsafe impl Counts for page_cache_cgroup_counts {}
// SAFETY: as above.
unsafe impl Counts for page_cache_reader_counts {}

struct PageCache<'a> {
    skel: PageCacheSkel<'a>,
    attachment: Attachment,
    pages: CpuTable<page_cache_pages, page_cache_pages_counts, Labels>,
    cgroups: CpuTable<page_cache_cgroup, page_cache_cgroup_counts, Labels>,
    readers: CpuTable<page_cache_reader, page_cache_reader_counts, Labels>,
    devices: Devices,
    identity: Identity,
    target: Target,
    known: Known,
    idle_ttl_ns: u64,
}

/// Loads and attaches. What is in the page cache by then was added before, and is not counted.
pub fn start<'a>(setup: &Setup<'_>, objects: &'a Objects) -> Result<Box<dyn Collector + 'a>, LoadError> {
    let mut plan = setup.plan(&super::SPEC);
    let page_cache = load::load(&mut plan, setup.kernel, |plan| {
        let mut open = PageCacheSkelBuilder::default().open(objects.alloc(MaybeUninit::uninit()))?;
        prepare(&mut open, plan, setup)?;
        let mut page_cache = PageCache::new(setup, open.load()?, plan)?;
        page_cache.attachment.hold(object::attach(page_cache.skel.object(), plan)?);
        Ok(page_cache)
    })?;
    Ok(Box::new(page_cache))
}

/// Everything that has to be settled before the kernel sees the programs.
fn prepare(open: &mut OpenPageCacheSkel<'_>, plan: &Plan, setup: &Setup<'_>) -> libbpf_rs::Result<()> {
    let page_size = sysconf(SysconfVar::PAGE_SIZE).map_err(std::io::Error::from)?.expect("pages have a size");
    let rodata = open.maps.rodata_data.as_deref_mut().expect("the object has read-only data");
    rodata.page_shift = page_size.ilog2();
    let object = open.open_object_mut();
    object::autoload(object, plan);
    setup.target.lend(object)?;
    object::open_map(object, "read_steps")?.set_autocreate(counts_lookups(plan))?;
    slots::size_percpu(object, "pages", setup.limits.max_series.min(MAX_PAGES))?;
    slots::size_percpu(object, "cgroups", setup.limits.max_series.min(MAX_CGROUPS))?;
    slots::size_percpu(object, "readers", setup.limits.max_series.min(MAX_READERS))
}

fn counts_lookups(plan: &Plan) -> bool {
    ["page_cache_lookup", "page_cache_lookup_fexit"].iter().any(|program| plan.takes(program))
}

/// What the hooks that are in use tell.
fn known(plan: &Plan) -> Known {
    let any = |programs: &[&str]| programs.iter().any(|program| plan.takes(program));
    Known {
        dirtied: any(&["page_cache_dirtied", "page_cache_dirtied_page"]),
        misses: any(&["page_cache_missed", "page_cache_missed_fentry", "page_cache_missed_kprobe"]),
        lookups: counts_lookups(plan),
    }
}

impl<'a> PageCache<'a> {
    fn new(setup: &Setup<'_>, skel: PageCacheSkel<'a>, plan: &Plan) -> libbpf_rs::Result<Self> {
        let object = skel.object();
        Ok(PageCache {
            pages: CpuTable::new(object, "pages")?,
            cgroups: CpuTable::new(object, "cgroups")?,
            readers: CpuTable::new(object, "readers")?,
            devices: Devices::default(),
            identity: setup.identity.clone(),
            target: setup.target.clone(),
            known: known(plan),
            idle_ttl_ns: setup.limits.idle_ttl.as_nanos() as u64,
            skel,
            attachment: Attachment::new(plan),
        })
    }
}

impl PageCache<'_> {
    /// What tasks carry of their last read, if lookups are counted. How many do the kernel does not tell.
    fn read_steps(&self) -> Option<MapReport> {
        let map = self.known.lookups.then(|| object::map(self.skel.object(), "read_steps").ok())??;
        let missed: *const u64 = &raw const self.skel.maps.bss_data.as_ref()?.read_steps_missed;
        // SAFETY: mapped for as long as the skeleton lives; programs write to it at any time.
        let missed = unsafe { missed.read_volatile() };
        let bytes = own::map_bytes(&map).unwrap_or(0);
        Some(MapReport { name: "read_steps".to_owned(), entries: None, bytes, full: Some(missed) })
    }
}

impl Collector for PageCache<'_> {
    fn collect(&mut self, _now_ns: u64) -> Result<Vec<Family>, CollectError> {
        let reading = CollectError::during("reading the counters of the page cache");
        let (mut families, known) = (Families::new(), self.known);
        let (identity, generation, devices) = (&self.identity, self.identity.generation(), &mut self.devices);
        let target = &self.target;
        let pages = |slot, key: &page_cache_pages_key| {
            target.name(slot, key.who.cgroup, || decode::pages(slot, key, identity, devices))
        };
        for (labels, counts) in self.pages.sums(generation, pages).map_err(&reading)? {
            families.pages(labels, &counts, known);
        }
        let cgroup =
            |slot, key: &u64| target.name(slot, identity.of_memory(*key), || decode::cgroup(slot, *key, identity));
        for (labels, counts) in self.cgroups.sums(generation, cgroup).map_err(&reading)? {
            families.cgroup(labels, &counts);
        }
        let reader = |slot, key: &who| target.name(slot, key.cgroup, || decode::reader(slot, key, identity));
        for (labels, counts) in self.readers.sums(generation, reader).map_err(&reading)? {
            families.reader(labels, &counts, known);
        }
        Ok(families.finish())
    }

    fn tick(&mut self, now_ns: u64) -> Result<(), CollectError> {
        let idle = |last_ns: u64| now_ns.saturating_sub(last_ns) > self.idle_ttl_ns;
        let expiring = CollectError::during("expiring idle series");
        self.pages.expire(idle).map_err(&expiring)?;
        self.cgroups.expire(idle).map_err(&expiring)?;
        self.readers.expire(idle).map_err(&expiring)
    }

    fn object(&self) -> &Object {
        self.skel.object()
    }

    fn attachment(&self) -> &Attachment {
        &self.attachment
    }

    fn attachment_mut(&mut self) -> &mut Attachment {
        &mut self.attachment
    }

    fn maps(&self) -> Vec<MapReport> {
        let tables = [self.pages.report(), self.cgroups.report(), self.readers.report()];
        tables.into_iter().chain(self.read_steps()).collect()
    }

    fn folded(&self) -> Vec<(&'static Descriptor, u64)> {
        let tables = [
            (metrics::OF_PAGES, self.pages.folded()),
            (metrics::OF_CGROUPS, self.cgroups.folded()),
            (metrics::OF_READERS, self.readers.folded()),
        ];
        tables.iter().flat_map(|(families, folded)| families.iter().map(|family| (*family, *folded))).collect()
    }
}
