//! The page-cache collector against what mincore(2) says, and against what the workload itself knows.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use ebpf_sidecar::collectors::Config;
use ebpf_sidecar::kernel::{HELPERS, Kernel, LINUX_5_13, LINUX_5_17};
use nix::libc::{POSIX_FADV_DONTNEED, POSIX_FADV_NORMAL, POSIX_FADV_RANDOM};

use crate::disk::{Disk, Mapped, PAGE, advise, open, read_directly, undisturbed};
use crate::fixture::{Metrics, Named, Sidecar, Wish, run, seen};

const ADDED: &str = "sidecar_page_cache_added_pages_total";
const EVICTED: &str = "sidecar_page_cache_evicted_pages_total";
const DIRTIED: &str = "sidecar_page_cache_dirtied_pages_total";
const CHARGED_ADDED: &str = "sidecar_page_cache_charged_added_pages_total";
const CHARGED_EVICTED: &str = "sidecar_page_cache_charged_evicted_pages_total";
const MISSES: &str = "sidecar_page_cache_readahead_misses_total";
const LOOKUPS: &str = "sidecar_page_cache_lookups_total";

const MIB: usize = 1 << 20;
const SIZE: usize = 32 * MIB;
const PAGES: u64 = (SIZE / PAGE) as u64;

fn wish(lookups: bool) -> Wish {
    let mut config = Config::default();
    config.page_cache.own.lookups = lookups;
    Wish { modules: vec!["page-cache"], config, ..Wish::default() }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pages {
    added: u64,
    evicted: u64,
    dirtied: u64,
}

fn pages(added: u64, evicted: u64, dirtied: u64) -> Pages {
    Pages { added, evicted, dirtied }
}

/// What happens to one file on a disk on which nothing else happens.
struct Watch {
    sidecar: Sidecar,
    device: String,
    last: Pages,
    /// Added less evicted since the file is there.
    balance: i64,
}

impl Watch {
    fn new(sidecar: Sidecar, disk: &Disk) -> Watch {
        let mut watch = Watch { sidecar, device: disk.device.clone(), last: pages(0, 0, 0), balance: 0 };
        watch.last = watch.total();
        watch
    }

    fn total(&self) -> Pages {
        let metrics = self.sidecar.snapshot();
        let sum = |family| metrics.sum(family, &[("device", &self.device)]);
        pages(sum(ADDED), sum(EVICTED), sum(DIRTIED))
    }

    /// What happened since this was last called.
    fn step(&mut self) -> Pages {
        let now = self.total();
        let gain = pages(now.added - self.last.added, now.evicted - self.last.evicted, now.dirtied - self.last.dirtied);
        self.last = now;
        self.balance += gain.added as i64 - gain.evicted as i64;
        gain
    }

    /// As [`Watch::step`], and holds the balance against mincore.
    #[track_caller]
    fn step_of(&mut self, file: &File) -> Pages {
        let gain = self.step();
        assert_eq!(self.balance, Mapped::new(file).resident() as i64, "what is in the page cache, after {gain:?}");
        gain
    }
}

/// Writes all but the first page of a new file. The first page, which was written before, has dirtied what the file
/// system keeps of the file in the page cache of the device (ext4 does so), and that is not dirtied again.
fn write_rest(file: &File) {
    file.write_all_at(&vec![1; MIB - PAGE], PAGE as u64).unwrap();
    (1..SIZE / MIB).for_each(|at| file.write_all_at(&vec![1; MIB], (at * MIB) as u64).unwrap());
}

/// On a small file whatever the module counts, as far as there are hooks for it.
pub fn what_is_seen_is_exact(sidecar: Sidecar, disk: &Disk) {
    const FEW: u64 = 500;
    let seen = |hook, count| if sidecar.has("page-cache", hook) { count } else { 0 };
    let dirtied = seen("writeback_dirty_folio", FEW - 1);
    let [missed, asked] = ["page_cache_sync_ra", "mm_filemap_get_pages"].map(|hook| seen(hook, 1));
    let named = Named::new();
    let mut watch = Watch::new(sidecar, disk);
    let file = open(&disk.path("file"));
    file.set_len(0).unwrap();
    file.write_all_at(&[1; PAGE], 0).unwrap();
    watch.step();
    watch.balance = 1;
    file.write_all_at(&vec![1; (FEW as usize - 1) * PAGE], PAGE as u64).unwrap();
    assert_eq!(watch.step_of(&file), pages(FEW - 1, 0, dirtied), "written");
    file.sync_all().unwrap();
    watch.step(); // Where the file lies on the disk is looked up and written now.
    watch.balance = FEW as i64;
    advise(&file, POSIX_FADV_DONTNEED);
    assert_eq!(watch.step_of(&file), pages(0, FEW, 0), "dropped");
    advise(&file, POSIX_FADV_RANDOM);
    let order: Vec<_> = scattered(200).into_iter().map(|page| page % FEW).collect();
    let counts = |watch: &Watch| [MISSES, LOOKUPS].map(|family| watch.sidecar.snapshot().sum(family, &named.labels()));
    let before = counts(&watch);
    read_scattered(&file, &order);
    assert_eq!(watch.step_of(&file), pages(distinct(&order), 0, 0), "read");
    let after = counts(&watch);
    let gain = [after[0] - before[0], after[1] - before[1]];
    assert_eq!(gain, [missed * distinct(&order), asked * order.len() as u64], "waited for, and asked for");
    for (family, known) in [(DIRTIED, dirtied), (MISSES, missed), (LOOKUPS, asked)] {
        assert_eq!(
            watch.sidecar.snapshot().count(family, &[]) > 0,
            known > 0,
            "{family} is left out if it is not known"
        );
    }
}

fn read_all(file: &File, step: usize) {
    let mut buffer = vec![0; step];
    (0..SIZE / step).for_each(|at| file.read_exact_at(&mut buffer, (at * step) as u64).unwrap());
}

/// Numbers below `PAGES` in an order without a pattern, some more than once.
fn scattered(count: usize) -> Vec<u64> {
    let mut state = 1u64;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % PAGES
    };
    std::iter::repeat_with(next).take(count).collect()
}

fn read_scattered(file: &File, order: &[u64]) {
    let mut buffer = [0; PAGE];
    order.iter().for_each(|page| file.read_exact_at(&mut buffer, page * PAGE as u64).unwrap());
}

fn distinct(order: &[u64]) -> u64 {
    order.iter().collect::<BTreeSet<_>>().len() as u64
}

/// Clean, and not in the page cache.
fn make_cold(file: &File) {
    file.sync_all().unwrap();
    advise(file, POSIX_FADV_DONTNEED);
}

fn every_page_is_counted_once(kind: &str) {
    let disk = Disk::new(kind);
    let mut watch = Watch::new(Sidecar::start(wish(false)), &disk);
    let path = disk.path("file");
    let file = open(&path);
    file.write_all_at(&[1; PAGE], 0).unwrap();
    watch.step();
    watch.balance = 1;

    write_rest(&file);
    assert_eq!(watch.step_of(&file), pages(PAGES - 1, 0, PAGES - 1), "written");

    file.sync_all().unwrap();
    watch.step(); // Where the file lies on the disk is looked up and written now.
    watch.balance = PAGES as i64;
    advise(&file, POSIX_FADV_DONTNEED);
    assert_eq!(watch.step_of(&file), pages(0, PAGES, 0), "dropped by POSIX_FADV_DONTNEED");

    read_all(&file, MIB);
    assert_eq!(watch.step_of(&file), pages(PAGES, 0, 0), "read in order, cold");
    for step in [MIB, PAGE, 128] {
        read_all(&file, step);
        assert_eq!(watch.step_of(&file), pages(0, 0, 0), "read again, {step} bytes at a time");
    }

    make_cold(&file);
    assert_eq!(watch.step_of(&file), pages(0, PAGES, 0), "dropped again");
    read_directly(&path, 8 * MIB);
    assert_eq!(watch.step_of(&file), pages(0, 0, 0), "read past the page cache");

    advise(&file, POSIX_FADV_RANDOM);
    let order = scattered(1000);
    read_scattered(&file, &order);
    assert_eq!(watch.step_of(&file), pages(distinct(&order), 0, 0), "read in no order");
    advise(&file, POSIX_FADV_NORMAL);

    let cached = distinct(&order);
    Mapped::new(&file).touch();
    assert_eq!(watch.step_of(&file), pages(PAGES - cached, 0, 0), "the rest touched in memory");
    Mapped::new(&file).touch();
    assert_eq!(watch.step_of(&file), pages(0, 0, 0), "touched again");

    // In the middle of a large folio, if there are any. What it costs the file system to note that is not looked at.
    let left = PAGES / 2 + 3;
    file.set_len(left * PAGE as u64).unwrap();
    let cut = watch.step_of(&file);
    assert_eq!((cut.added, cut.evicted), (0, PAGES - left), "truncated");
    fs::remove_file(&path).unwrap();
    drop(file);
    let removed = watch.step();
    assert_eq!((removed.added, removed.evicted), (0, left), "unlinked");
}

#[test]
fn every_page_is_counted_once_on_ext4() {
    undisturbed(|| every_page_is_counted_once("ext4"));
}

/// Which has had large folios since 5.18.
#[test]
fn every_page_is_counted_once_on_xfs() {
    undisturbed(|| every_page_is_counted_once("xfs"));
}

#[test]
fn reads_that_had_to_wait_are_counted() {
    let (named, disk) = (Named::new(), Disk::new("ext4"));
    let file = open(&disk.path("file"));
    file.write_all_at(&vec![1; SIZE], 0).unwrap();
    make_cold(&file);
    let sidecar = Sidecar::start(wish(false));
    assert_eq!(sidecar.snapshot().0.modules.iter().find(|module| module.name == "page-cache").unwrap().reason, "");
    advise(&file, POSIX_FADV_RANDOM);
    let order = scattered(1000);
    let misses = || sidecar.snapshot().sum(MISSES, &named.labels());
    read_scattered(&file, &order);
    assert_eq!(misses(), distinct(&order), "cold");
    read_scattered(&file, &order);
    assert_eq!(misses(), distinct(&order), "warm");
    assert_eq!(sidecar.snapshot().count(LOOKUPS, &[]), 0, "nobody asked for lookups");
}

/// Whether this kernel shows what reads ask for. If not, that is said, and nothing is shown in its place.
fn shows_lookups(sidecar: &Sidecar) -> bool {
    let page_cache = sidecar.module("page-cache");
    let hook = page_cache.hooks.iter().find(|hook| hook.name == "mm_filemap_get_pages").expect("it is reported");
    let old = !Kernel::probe([HELPERS]).is_since(LINUX_5_17);
    assert_eq!(hook.kind.is_none(), old, "{}", hook.reason);
    if old {
        assert!(page_cache.reason.contains("pages that reads ask for are not counted"), "{}", page_cache.reason);
        assert!(hook.reason.contains("this kernel is older than Linux 5.17"), "{}", hook.reason);
        assert_eq!(sidecar.snapshot().count(LOOKUPS, &[]), 0);
    }
    !old
}

/// Whatever the disk has delivered when the kernel looks the pages up.
#[test]
fn lookups_of_cold_files_are_exact_too() {
    let (named, disk) = (Named::new(), Disk::new("ext4"));
    let file = open(&disk.path("file"));
    file.write_all_at(&vec![1; SIZE], 0).unwrap();
    let sidecar = Sidecar::start(wish(true));
    if !shows_lookups(&sidecar) {
        return;
    }
    let lookups = || sidecar.snapshot().sum(LOOKUPS, &named.labels());
    let in_order = |size: usize, read_ahead| {
        make_cold(&file);
        let (before, mut reader, mut buffer) = (lookups(), open(&disk.path("file")), vec![0; size]);
        let mut wanted = 0;
        for at in (0..SIZE).step_by(size) {
            let read = reader.read(&mut buffer).unwrap();
            wanted += ((at + read).div_ceil(PAGE) - at / PAGE) as u64;
        }
        assert_eq!(lookups() - before, wanted, "{size} bytes at a time, {read_ahead} KiB ahead");
    };
    let four_at_once = |read_ahead| {
        make_cold(&file);
        let before = lookups();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let read = |mib: usize| file.read_exact_at(&mut vec![0; MIB], (mib * MIB) as u64).unwrap();
                scope.spawn(move || (0..SIZE / MIB).for_each(read));
            }
        });
        assert_eq!(lookups() - before, 4 * PAGES, "four at once, {read_ahead} KiB ahead");
    };
    for read_ahead in [16, 128, 2560, 8192] {
        disk.read_ahead(read_ahead);
        [MIB, 3 * PAGE, 100_000].into_iter().for_each(|size| seen(|| in_order(size, read_ahead)));
        seen(|| four_at_once(read_ahead));
    }
}

#[test]
fn lookups_are_the_pages_that_reads_ask_for() {
    let (named, disk) = (Named::new(), Disk::new("ext4"));
    let file = open(&disk.path("file"));
    // Half a page less, so that the last read asks for more than there is.
    file.write_all_at(&vec![1; SIZE - PAGE / 2], 0).unwrap();
    make_cold(&file);
    let sidecar = Sidecar::start(wish(true));
    if !shows_lookups(&sidecar) {
        file.read_exact_at(&mut vec![0; MIB], 0).unwrap();
        assert!(!shows_lookups(&sidecar), "after a read");
        return;
    }
    let mut before = 0;
    let mut lookups = |what: &str, wanted: u64| {
        let now = sidecar.snapshot().sum(LOOKUPS, &named.labels());
        assert_eq!(now - before, wanted, "{what}");
        before = now;
    };
    let read = |size: usize, at: usize| file.read_at(&mut vec![0; size], at as u64).unwrap();
    for what in ["cold", "warm"] {
        (0..SIZE / MIB).for_each(|mib| assert!(read(MIB, mib * MIB) > 0));
        lookups(&format!("1 MiB at a time, {what}"), PAGES);
    }
    (0..SIZE / PAGE).for_each(|page| assert!(read(PAGE, page * PAGE) > 0));
    lookups("4 KiB at a time", PAGES);
    (0..10_000).for_each(|_| assert_eq!(read(100, 0), 100));
    lookups("the same page again and again", 10_000);
    let order = scattered(1000);
    order.iter().for_each(|page| assert!(read(PAGE, *page as usize * PAGE) > 0));
    lookups("in no order", 1000);
    assert_eq!(read(4 * PAGE, PAGE / 2), 4 * PAGE);
    lookups("five pages, for four that are not aligned", 5);
    assert_eq!((read(PAGE, PAGE / 2), read(100, PAGE)), (PAGE, 100));
    lookups("a read that ends where the one before ended", 3);
    assert_eq!(read(PAGE, SIZE), 0);
    lookups("beyond the end", 0);
    let metrics = sidecar.snapshot();
    assert_eq!(metrics.sum("sidecar_bpf_map_full_total", &[("map", "read_steps")]), 0);
    assert_eq!(metrics.count("sidecar_bpf_map_full_total", &[("map", "read_steps")]), 1);
}

#[test]
fn pages_belong_to_the_process_that_acts() {
    let disk = Disk::new("ext4");
    let path = disk.path("file");
    open(&path).write_all(&vec![1; MIB]).unwrap();
    make_cold(&open(&path));
    let sidecar = Sidecar::start(wish(false));
    // Not at the end of the file, where kernels before 5.12 make a page for what is not there.
    run(&format!("dd if={} of=/dev/null bs=4096 count={}", path.display(), MIB / PAGE));
    let labels = [("comm", "dd"), ("device", disk.device.as_str())];
    assert_eq!(sidecar.snapshot().sum(ADDED, &labels), (MIB / PAGE) as u64);
    assert_eq!(sidecar.snapshot().sum(ADDED, &labels[1..]), (MIB / PAGE) as u64);
}

/// The pages of a block device itself count as what they are, not as the kernel's file system of all block devices.
#[test]
fn a_block_device_counts_as_itself() {
    let disk = Disk::new("ext4");
    let device = File::open(format!("/dev/{}", disk.device)).unwrap();
    make_cold(&device);
    let sidecar = Sidecar::start(wish(false));
    let labels = [("device", disk.device.as_str())];
    let before = sidecar.snapshot().sum(ADDED, &labels);
    let far = 200 * MIB as u64; // nothing of the file system is there
    advise(&device, POSIX_FADV_RANDOM);
    device.read_exact_at(&mut vec![0; MIB], far).unwrap();
    assert_eq!(sidecar.snapshot().sum(ADDED, &labels) - before, (MIB / PAGE) as u64);
}

/// Of memory that looks like a file the kernel tells when pages go, but not when they come.
#[test]
fn tmpfs_is_left_out() {
    let sidecar = Sidecar::start(wish(false));
    let path = Path::new("/dev/shm").join(format!("sidecar-{}", std::process::id()));
    let mut file = open(&path);
    file.write_all(&vec![1; 4 * MIB]).unwrap();
    let device = file.metadata().unwrap().dev();
    drop(file);
    fs::remove_file(&path).unwrap();
    assert!(is_unknown(&sidecar.snapshot(), device));
}

fn is_unknown(metrics: &Metrics, device: u64) -> bool {
    let device = format!("{}:{}", nix::sys::stat::major(device), nix::sys::stat::minor(device));
    [ADDED, EVICTED, DIRTIED].iter().all(|family| metrics.count(family, &[("device", &device)]) == 0)
}

/// Huge pages are no cache, although they lie in files and the tracepoints tell of them.
#[test]
fn huge_pages_are_left_out() {
    let sidecar = Sidecar::start(wish(false));
    let huge = HugePages::new();
    let device = huge.folder.metadata().unwrap().dev();
    run(&format!("fallocate -l {} {}", 2 * MIB, huge.folder.join("file").display()));
    fs::remove_file(huge.folder.join("file")).unwrap();
    assert!(is_unknown(&sidecar.snapshot(), device));
}

/// Room for one label set: what comes later is counted in `other`.
#[test]
fn the_sum_over_devices_is_the_kernels_own_count() {
    for max_series in [10_000, 1] {
        sum_is_the_kernels_own_count(max_series);
    }
}

/// The kernel's own count is of the whole machine, on which others work too: some moment has to be quiet.
fn sum_is_the_kernels_own_count(max_series: u32) {
    let disk = Disk::new("ext4");
    let file = open(&disk.path("file"));
    file.write_all_at(&vec![1; SIZE], 0).unwrap();
    let sidecar = Sidecar::start(Wish { max_series, ..wish(false) });
    let balance = |family: [&str; 2]| {
        let metrics = sidecar.snapshot();
        metrics.sum(family[0], &[]) as i64 - metrics.sum(family[1], &[]) as i64
    };
    let mut tries = Vec::new();
    for _ in 0..50 {
        make_cold(&file);
        let before = (balance([ADDED, EVICTED]), balance([CHARGED_ADDED, CHARGED_EVICTED]), file_pages());
        read_all(&file, MIB);
        let after = (balance([ADDED, EVICTED]), balance([CHARGED_ADDED, CHARGED_EVICTED]), file_pages());
        let gain = (after.0 - before.0, after.1 - before.1, after.2 - before.2);
        if gain == (PAGES as i64, PAGES as i64, PAGES as i64) {
            return;
        }
        tries.push(gain);
    }
    panic!("never the same: {tries:?}");
}

/// A series that nothing happens to goes away, and its slot is used again from nothing.
#[test]
fn an_idle_series_starts_again() {
    let disk = Disk::new("ext4");
    let file = open(&disk.path("file"));
    file.write_all_at(&vec![1; SIZE], 0).unwrap();
    make_cold(&file);
    let (idle_ttl, interval) = (Duration::from_secs(1), Duration::from_millis(200));
    let sidecar = Sidecar::start(Wish { idle_ttl, interval, ..wish(false) });
    let labels = [("device", disk.device.as_str())];
    for _ in 0..3 {
        read_all(&file, MIB);
        assert_eq!(sidecar.snapshot().sum(ADDED, &labels), PAGES);
        advise(&file, POSIX_FADV_DONTNEED);
        assert_eq!(sidecar.until(|metrics| metrics.count(ADDED, &labels) == 0).count(ADDED, &labels), 0);
    }
}

/// Whoever evicts them.
#[test]
fn pages_are_charged_to_the_cgroup_that_read_them() {
    let (disk, cgroup) = (Disk::new("ext4"), Cgroup::new());
    let path = disk.path("file");
    let file = open(&path);
    file.write_all_at(&vec![1; SIZE], 0).unwrap();
    // Not at the end of the file, where kernels before 5.12 make a page for what is not there.
    let read = || cgroup.run(&format!("dd if={} of=/dev/null bs=4096 count={PAGES}", path.display()));
    read(); // now the programs are in the page cache, and are charged to whoever had them first
    make_cold(&file);
    let sidecar = Sidecar::start(wish(false));
    let before = cgroup.file_pages();
    read();
    let labels = [("cgroup", cgroup.label.as_str())];
    let charged = |family| sidecar.snapshot().sum(family, &labels);
    assert_eq!((charged(CHARGED_ADDED), charged(CHARGED_EVICTED)), (PAGES, 0));
    cgroup.until_file_pages(before + PAGES);
    advise(&file, POSIX_FADV_DONTNEED);
    assert_eq!((charged(CHARGED_ADDED), charged(CHARGED_EVICTED)), (PAGES, PAGES));
    cgroup.until_file_pages(before);
    cgroup.remove();
    assert_eq!((charged(CHARGED_ADDED), charged(CHARGED_EVICTED)), (PAGES, PAGES), "the name outlives the cgroup");
}

/// A cgroup of the memory controller, of whatever version it is here.
struct Cgroup {
    folder: PathBuf,
    label: String,
}

impl Cgroup {
    fn new() -> Cgroup {
        let label = format!("/sidecar-{}", std::process::id());
        let v1 = Path::new("/sys/fs/cgroup/memory");
        let root = if v1.exists() { v1 } else { Path::new("/sys/fs/cgroup") };
        if !v1.exists() {
            fs::write(root.join("cgroup.subtree_control"), "+memory").unwrap();
        }
        let folder = root.join(&label[1..]);
        fs::create_dir(&folder).unwrap();
        Cgroup { folder, label }
    }

    /// Runs a program in it that has to succeed.
    fn run(&self, line: &str) {
        let script = format!("echo 0 >{}/cgroup.procs && exec {line}", self.folder.display());
        let output = Command::new("sh").args(["-c", &script]).output().unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Pages of files that it has, as the kernel counts them: `cache` in version 1, `file` in version 2.
    fn file_pages(&self) -> u64 {
        let text = fs::read_to_string(self.folder.join("memory.stat")).unwrap();
        let mut lines = text.lines().filter_map(|line| line.split_once(' '));
        let bytes = lines.find(|(name, _)| ["cache", "file"].contains(name)).unwrap().1;
        bytes.parse::<u64>().unwrap() / PAGE as u64
    }

    /// The kernel brings the counters of all CPUs together every two seconds. Before 5.13 it does not: each CPU has up to 32
    /// pages (MEMCG_CHARGE_BATCH) to itself, now as when `wanted` was looked up.
    #[track_caller]
    fn until_file_pages(&self, wanted: u64) {
        let cpus = available_parallelism().unwrap().get() as u64;
        let apart = if Kernel::probe([HELPERS]).is_since(LINUX_5_13) { 0 } else { 2 * 32 * cpus };
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.file_pages().abs_diff(wanted) > apart && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        let found = self.file_pages();
        assert!(found.abs_diff(wanted) <= apart, "{found} pages, not {wanted}, give or take {apart}");
    }

    fn remove(&self) {
        fs::remove_dir(&self.folder).unwrap();
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.folder);
    }
}

/// One huge page, and a file system to have it in.
struct HugePages {
    folder: PathBuf,
    before: String,
}

const HUGE_PAGES: &str = "/proc/sys/vm/nr_hugepages";

impl HugePages {
    fn new() -> HugePages {
        let before = fs::read_to_string(HUGE_PAGES).unwrap();
        let more = before.trim().parse::<u32>().unwrap() + 1;
        fs::write(HUGE_PAGES, more.to_string()).unwrap();
        let folder = std::env::temp_dir().join(format!("sidecar-huge-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        run(&format!("mount -t hugetlbfs none {}", folder.display()));
        HugePages { folder, before }
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.folder).status();
        let _ = fs::remove_dir(&self.folder);
        let _ = fs::write(HUGE_PAGES, self.before.trim());
    }
}

/// Pages of files in the page cache, from /proc/vmstat; tmpfs and the swap cache are counted among them.
fn file_pages() -> i64 {
    // Brings what each CPU still has for itself to the sums.
    fs::read_to_string("/proc/sys/vm/stat_refresh").unwrap();
    let text = fs::read_to_string("/proc/vmstat").unwrap();
    let value = |name: &str| {
        let mut lines = text.lines().filter_map(|line| line.split_once(' '));
        lines.find(|(found, _)| *found == name).map_or(0, |(_, value)| value.parse::<i64>().unwrap())
    };
    value("nr_file_pages") - value("nr_shmem") - value("nr_swapcached")
}
