//! The fadvise collector against what the workload itself knows, strace(1) and mincore(2).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;
use std::time::Duration;

use ebpf_sidecar::bpf::plan::{Plan, Terms};
use ebpf_sidecar::collectors::fadvise::SPEC;
use ebpf_sidecar::collectors::{Config, btf_names};
use ebpf_sidecar::engine::Budget;
use ebpf_sidecar::kernel::{Kernel, LINUX_5_13};
use ebpf_sidecar::status::HookKind;
use nix::libc;
use nix::sys::wait::{WaitStatus, waitpid};

use crate::disk::{Disk, Mapped, PAGE, advise, open, undisturbed};
use crate::fixture::{Metrics, Sidecar, Wish, in_process, run};

const CALLS: &str = "sidecar_fadvise_calls_total";
const ERRORS: &str = "sidecar_fadvise_errors_total";
const BYTES: &str = "sidecar_fadvise_bytes_total";
const EVICTED: &str = "sidecar_fadvise_evicted_pages_total";
const READ_BACK: &str = "sidecar_fadvise_read_back_pages_total";

const ADVICES: [&str; 6] = ["normal", "random", "sequential", "willneed", "dontneed", "noreuse"];

/// A way to see calls, and a host that offers no better one.
type Way = (HookKind, fn(&mut Kernel));

/// Before 5.13 no program hangs on a function twice, which a pause asks of it.
fn attaches_to_functions(kernel: &Kernel) -> bool {
    kernel.fentry == Some(true) && kernel.is_since(LINUX_5_13)
}

/// All that this kernel offers.
fn ways() -> Vec<Way> {
    let kernel = Kernel::probe(btf_names());
    let all: [(Option<bool>, Way); 3] = [
        (Some(attaches_to_functions(&kernel)), (HookKind::Fexit, |_| ())),
        (kernel.kprobes, (HookKind::Kprobe, |host| host.fentry = Some(false))),
        (
            kernel.tracefs,
            (HookKind::Tracepoint, |host| {
                host.fentry = Some(false);
                host.kprobes = Some(false);
            }),
        ),
    ];
    all.into_iter().filter(|(offered, _)| *offered == Some(true)).map(|(_, way)| way).collect()
}

fn start(host: fn(&mut Kernel)) -> Sidecar {
    Sidecar::start(Wish { modules: vec!["fadvise"], host, ..Wish::default() })
}

/// Takes evicted pages for read back within so many seconds, and looks after them ten times a second.
fn start_with_window(seconds: u64) -> Sidecar {
    let mut config = Config::default();
    config.fadvise.own.read_back_window = Duration::from_secs(seconds);
    Sidecar::start(Wish { modules: vec!["fadvise"], config, interval: Duration::from_millis(100), ..Wish::default() })
}

/// The way that calls are seen.
fn kind_in_use(metrics: &Metrics) -> Option<HookKind> {
    let report = metrics.0.modules.iter().find(|report| report.name == "fadvise").expect("every module is reported");
    report.hooks.iter().find(|hook| hook.name == "fadvise64").expect("it has this hook").kind
}

/// Runs something in a process that nobody else is called like, and tells its name.
fn in_child(what: &str, body: impl FnOnce()) -> String {
    let name = format!("{what}-{}", std::process::id());
    let child = in_process(&name, body);
    assert!(matches!(waitpid(child, None), Ok(WaitStatus::Exited(_, 0))), "{name} fails");
    name
}

fn fadvise(fd: RawFd, offset: i64, len: i64, advice: i32) -> i32 {
    // SAFETY: no memory is involved.
    unsafe { libc::posix_fadvise(fd, offset, len, advice) }
}

/// A file that does not need a disk: its size is all that matters.
fn file_of(bytes: u64) -> File {
    let path = std::env::temp_dir().join(format!("sidecar-fadvise-{}", std::process::id()));
    let file = open(&path);
    fs::remove_file(path).unwrap();
    file.set_len(bytes).unwrap();
    file
}

#[test]
fn the_fact_about_fentry_is_what_loading_shows() {
    let kernel = Kernel::probe(btf_names());
    assert!(kernel.fentry.is_some());
    let told = attaches_to_functions(&kernel);
    let sidecar = start(|host| host.fentry = None);
    let loaded = kind_in_use(&sidecar.snapshot()) == Some(HookKind::Fexit);
    assert_eq!(told, loaded);
}

#[test]
fn every_call_counts_by_advice_and_error() {
    for (kind, host) in ways() {
        let sidecar = start(host);
        assert_eq!(kind_in_use(&sidecar.snapshot()), Some(kind));
        calls_count_by_advice_and_error(&sidecar);
    }
}

/// However they are seen.
pub fn calls_count_by_advice_and_error(sidecar: &Sidecar) {
    let name = in_child("calls", || {
        let file = file_of(100_000);
        let fd = file.as_raw_fd();
        for (advice, calls) in [11, 22, 33, 44, 55, 66].into_iter().enumerate() {
            (0..calls).for_each(|at| assert_eq!(fadvise(fd, at, 1000, advice as i32), 0));
        }
        // To the end of the file; and from behind it.
        assert_eq!(fadvise(fd, 40_000, 0, libc::POSIX_FADV_NOREUSE), 0);
        assert_eq!(fadvise(fd, 200_000, 0, libc::POSIX_FADV_NOREUSE), 0);
        assert_eq!(fadvise(fd, 90_000, i64::MAX, libc::POSIX_FADV_WILLNEED), 0);
        for advice in [6, 7, -1, i32::MAX, 4 + (1 << 20), 1000, i32::MIN] {
            assert_eq!(fadvise(fd, 0, 0, advice), libc::EINVAL);
        }
        assert_eq!(fadvise(fd, 0, -1, libc::POSIX_FADV_NORMAL), libc::EINVAL);
        (0..3).for_each(|_| assert_eq!(fadvise(1_000_000, 0, 10, libc::POSIX_FADV_RANDOM), libc::EBADF));
        let (pipe, _end) = nix::unistd::pipe().unwrap();
        (0..5).for_each(|_| {
            assert_eq!(fadvise(pipe.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED), libc::ESPIPE);
        });
    });
    let metrics = sidecar.snapshot();
    let sum = |family, advice: &str| metrics.sum(family, &[("comm", &name), ("advice", advice)]);
    let expected_calls = [12, 25, 33, 45, 60, 68];
    let expected_bytes = [11_000, 22_000, 33_000, 44_000 + 10_000, 55_000, 66_000 + 60_000];
    assert_eq!(ADVICES.map(|advice| sum(CALLS, advice)), expected_calls);
    assert_eq!(ADVICES.map(|advice| sum(BYTES, advice)), expected_bytes);
    assert_eq!(sum(CALLS, "invalid"), 7);
    assert_eq!(metrics.count(BYTES, &[("comm", &name), ("advice", "invalid")]), 0);
    let errors = [("invalid", "EINVAL", 7), ("normal", "EINVAL", 1), ("random", "EBADF", 3), ("dontneed", "ESPIPE", 5)];
    for (advice, errno, calls) in errors {
        let labels = [("comm", name.as_str()), ("advice", advice), ("errno", errno)];
        assert_eq!(metrics.sum(ERRORS, &labels), calls, "{labels:?}");
    }
    assert_eq!(metrics.count(ERRORS, &[("comm", &name)]), errors.len());
}

/// Nobody has to pay for what nobody asked for.
#[test]
fn the_tracepoint_is_for_operators_who_named_the_module() {
    let mut host = Kernel::probe(btf_names());
    (host.fentry, host.kprobes) = (Some(false), Some(false));
    let unnamed = Plan::new(SPEC.hooks, &host, Terms::default());
    let missing = unnamed.check().expect_err("it is declined");
    assert!(missing.declined && missing.reason.contains("40 ns of every system call"), "{missing}");
    let named = Plan::new(SPEC.hooks, &host, Terms { named: true, only: None });
    assert_eq!(named.check(), Ok(()));
    assert_eq!(named.reports()[0].tax, "about 40 ns of every system call of the machine");
}

#[test]
fn what_happens_after_a_pause_counts_again() {
    for (kind, host) in ways() {
        let budget = Budget { percent: 0.05, window: Duration::from_secs(1) };
        let interval = Duration::from_millis(100);
        let sidecar = Sidecar::start(Wish { modules: vec!["fadvise"], budget, interval, host, ..Wish::default() });
        let paused = |metrics: &Metrics| {
            metrics.0.modules.iter().any(|report| report.name == "fadvise" && report.reason.starts_with("paused"))
        };
        let metrics = sidecar.until(|metrics| {
            (0..20_000).for_each(|_| assert_eq!(fadvise(-1, 0, 0, 0), libc::EBADF));
            paused(metrics)
        });
        assert!(paused(&metrics), "{kind:?} costs nothing");
        let unseen = in_child("unseen", || assert_eq!(fadvise(-1, 0, 0, 0), libc::EBADF));
        let metrics = sidecar.until(|metrics| !paused(metrics));
        assert!(!paused(&metrics), "{kind:?} stays paused");
        let seen = in_child("seen", || (0..7).for_each(|_| assert_eq!(fadvise(-1, 0, 0, 0), libc::EBADF)));
        let metrics = sidecar.snapshot();
        let calls = |name: &str| metrics.sum(CALLS, &[("comm", name)]);
        assert_eq!((calls(&unseen), calls(&seen)), (0, 7), "{kind:?}");
    }
}

/// The two system calls that 32-bit processes have for it, as they make them; a 64-bit process may do so as well.
#[cfg(target_arch = "x86_64")]
mod ia32 {
    use std::arch::asm;
    use std::os::fd::AsRawFd;

    use ebpf_sidecar::status::{HookKind, Status};
    use nix::libc;

    use super::{BYTES, CALLS, file_of, in_child, kind_in_use, start, ways};

    /// fadvise64(fd, offset: 64 bits, len: 32 bits, advice)
    fn fadvise64(fd: i32, offset: u64, len: u32, advice: i32) -> i32 {
        let (low, high) = (offset as u32, (offset >> 32) as u32);
        let outcome: i32;
        // SAFETY: rbx, which the compiler keeps for itself, has its value again afterwards; no memory is involved.
        unsafe {
            asm!("xchg rbx, {fd:r}", "int 0x80", "xchg rbx, {fd:r}",
                fd = inout(reg) i64::from(fd) => _, inlateout("eax") 250 => outcome,
                in("ecx") low, in("edx") high, in("esi") len, in("edi") advice,
                out("r8") _, out("r9") _, out("r10") _, out("r11") _);
        }
        outcome
    }

    /// fadvise64_64(fd, offset: 64 bits, len: 64 bits, advice)
    fn fadvise64_64(fd: i32, offset: u64, len: u64, advice: i32) -> i32 {
        let (low, high) = (offset as u32, (offset >> 32) as u32);
        let (len_low, len_high) = (len as u32, (len >> 32) as u32);
        let outcome: i32;
        // SAFETY: as above; rbp, too, has its value again.
        unsafe {
            asm!("xchg rbx, {fd:r}", "xchg rbp, {advice:r}", "int 0x80", "xchg rbp, {advice:r}", "xchg rbx, {fd:r}",
                fd = inout(reg) i64::from(fd) => _, advice = inout(reg) i64::from(advice) => _,
                inlateout("eax") 272 => outcome,
                in("ecx") low, in("edx") high, in("esi") len_low, in("edi") len_high,
                out("r8") _, out("r9") _, out("r10") _, out("r11") _);
        }
        outcome
    }

    #[test]
    fn calls_of_32_bit_processes_count_where_the_hook_sees_them() {
        const FAR: u64 = (5 << 32) + 4096;
        for (kind, host) in ways() {
            let sidecar = start(host);
            let name = in_child("ia32", || {
                let file = file_of(FAR + 10_000);
                let fd = file.as_raw_fd();
                (0..4).for_each(|_| assert_eq!(fadvise64(fd, FAR, 100, libc::POSIX_FADV_WILLNEED), 0));
                (0..5).for_each(|_| assert_eq!(fadvise64_64(fd, FAR, 7 << 32, libc::POSIX_FADV_DONTNEED), 0));
                assert_eq!(fadvise64_64(fd, FAR, 0, libc::POSIX_FADV_RANDOM), 0);
                assert_eq!(fadvise64(fd, 0, 0, 77), -libc::EINVAL);
                assert_eq!(fadvise64(-1, 0, 0, libc::POSIX_FADV_NORMAL), -libc::EBADF);
            });
            let metrics = sidecar.snapshot();
            assert_eq!(kind_in_use(&metrics), Some(kind));
            let rows = [
                ("willneed", 4, 400),
                ("dontneed", 5, 35 << 32),
                ("random", 1, 10_000),
                ("invalid", 1, 0),
                ("normal", 1, 0),
            ];
            let seen = kind != HookKind::Tracepoint;
            for (advice, calls, bytes) in rows {
                let sum = |family| metrics.sum(family, &[("comm", &name), ("advice", advice)]);
                let expected = if seen { (calls, bytes) } else { (0, 0) };
                assert_eq!((sum(CALLS), sum(BYTES)), expected, "{kind:?} {advice}");
            }
            let report = metrics.0.modules.iter().find(|report| report.name == "fadvise").unwrap();
            assert_eq!(report.reason.contains("32-bit"), !seen, "{}", report.reason);
            assert_eq!(report.status == Status::Running, kind == HookKind::Fexit, "{}", report.reason);
        }
    }
}

/// What strace sees a program call: by advice, how often, and the bytes that calls with a length name.
fn traced(folder: &Path, line: &str) -> BTreeMap<String, u64> {
    let trace = folder.join("trace");
    run(&format!("strace -f -qq -e trace=fadvise64 -e signal=none -o {} {line}", trace.display()));
    let mut calls = BTreeMap::new();
    for line in fs::read_to_string(trace).unwrap().lines() {
        let (call, outcome) = line.rsplit_once(" = ").unwrap_or_else(|| panic!("strace writes {line}"));
        let advice = call.trim_end().trim_end_matches(')').rsplit_once("POSIX_FADV_").unwrap().1.to_lowercase();
        assert!(!outcome.starts_with('-'), "{line}");
        *calls.entry(advice).or_default() += 1;
    }
    calls
}

#[test]
fn programs_are_seen_as_strace_sees_them() {
    let disk = Disk::new("ext4");
    let path = |name: &str| disk.path(name).display().to_string();
    let lines: String = (0..200_000).map(|n| format!("{}\n", n * 7919 % 200_003)).collect();
    fs::write(disk.path("input"), &lines).unwrap();
    let (input, output) = (path("input"), path("output"));
    let mut seen = 0;
    for (kind, host) in ways() {
        let sidecar = start(host);
        for line in [
            format!("dd if={input} of={output} bs=64k iflag=nocache oflag=nocache status=none"),
            format!("dd if={input} of={output} bs=100k count=3 oflag=nocache status=none"),
            format!("cat {input} {input}"),
            format!("cp {input} {output}"),
            format!("sort -o {output} {input}"),
        ] {
            let comm = line.split(' ').next().unwrap();
            let counted =
                |metrics: &Metrics| ADVICES.map(|advice| metrics.sum(CALLS, &[("comm", comm), ("advice", advice)]));
            // Somebody else on this machine may run a program of that name at the same moment.
            let exact = (0..5).any(|_| {
                let before = counted(&sidecar.snapshot());
                let calls = traced(&disk.path(""), &line);
                let after = counted(&sidecar.snapshot());
                let gain: Vec<_> = after.iter().zip(before).map(|(after, before)| after - before).collect();
                let expected: Vec<_> = ADVICES.iter().map(|advice| calls.get(*advice).copied().unwrap_or(0)).collect();
                seen += expected.iter().sum::<u64>();
                gain == expected
            });
            assert!(exact, "{kind:?} counts something else than strace for {line}");
        }
    }
    assert!(seen > 0, "none of these programs gives advice");
}

/// What one process did to the page cache.
fn effect(metrics: &Metrics, name: &str) -> (u64, u64) {
    (metrics.sum(EVICTED, &[("comm", name)]), metrics.sum(READ_BACK, &[("comm", name)]))
}

fn resident(file: &File) -> u64 {
    Mapped::new(file).resident()
}

fn write_out(file: &mut File, pages: usize) {
    file.write_all(&vec![7; pages * PAGE]).unwrap();
    file.sync_all().unwrap();
}

/// Has a process of that name evict the whole file. Pages that a CPU holds in a batch stay the first time.
fn evict(name: &str, file: &File) -> String {
    in_child(name, || {
        (0..100).take_while(|_| resident(file) > 0).for_each(|_| advise(file, libc::POSIX_FADV_DONTNEED));
        assert_eq!(resident(file), 0, "a clean file leaves the page cache");
    })
}

/// Reads these pages and no others.
fn read_pages(file: &File, pages: impl IntoIterator<Item = usize>) {
    advise(file, libc::POSIX_FADV_RANDOM);
    pages.into_iter().for_each(|page| file.read_exact_at(&mut [0], (page * PAGE) as u64).unwrap());
}

#[test]
fn evicted_and_read_back_pages_are_those_that_mincore_misses_and_finds() {
    undisturbed(evict_and_read_back);
}

fn evict_and_read_back() {
    const PAGES: usize = 8000;
    let disk = Disk::new("ext4");
    let sidecar = start(|_| ());
    let (mut file, evictor) = pages_count_as_they_go_and_come_back(&sidecar, &disk, PAGES);

    // Other ways out of the page cache are none of ours: these pages are not evicted by advice, and come back unseen.
    file.set_len(0).unwrap();
    write_out(&mut file, PAGES);
    assert_eq!(effect(&sidecar.snapshot(), &evictor).0, PAGES as u64);
}

/// Has a new file evicted, of which half comes back. What no hook is there for is left out.
pub fn pages_count_as_they_go_and_come_back(sidecar: &Sidecar, disk: &Disk, pages: usize) -> (File, String) {
    let mut file = open(&disk.path("file"));
    write_out(&mut file, pages);
    let all = resident(&file);
    assert_eq!(all, pages as u64);
    let [going, coming] = ["mm_filemap_delete_from_page_cache", "mm_filemap_add_to_page_cache"];
    let seen = |hook, what| if sidecar.has("fadvise", hook) { what } else { 0 };
    let expected = |evicted, back| (seen(going, evicted), seen(going, seen(coming, back)));
    let evictor = evict("evict", &file);
    assert_eq!(effect(&sidecar.snapshot(), &evictor), expected(all, 0));

    // Whoever reads it, and once.
    let reader = in_child("reader", || {
        read_pages(&file, (0..pages).step_by(2));
        read_pages(&file, (0..pages).step_by(2));
    });
    let back = resident(&file);
    assert_eq!(back, all / 2);
    let metrics = sidecar.snapshot();
    assert_eq!(effect(&metrics, &evictor), expected(all, back));
    assert_eq!(effect(&metrics, &reader), (0, 0));
    let shown = |family| metrics.count(family, &[("comm", &evictor)]) as u64;
    assert_eq!((shown(EVICTED), shown(READ_BACK)), expected(1, 1));
    (file, evictor)
}

#[test]
fn parts_of_files_and_dirty_pages_are_exact_too() {
    undisturbed(evict_parts);
}

fn evict_parts() {
    const PAGES: usize = 3000;
    let disk = Disk::new("ext4");
    let sidecar = start(|_| ());
    let mut file = open(&disk.path("file"));
    write_out(&mut file, PAGES);
    read_pages(&file, 0..PAGES);
    // Ends that are not those of pages, nor of blocks of 64, nor of large folios.
    for (at, (first, bytes)) in
        [(3, PAGE), (1000, 777 * PAGE), (100 * PAGE + 1, 130 * PAGE), (0, 0)].into_iter().enumerate()
    {
        let before = resident(&file);
        let evictor = in_child(&format!("part{at}"), || {
            assert_eq!(fadvise(file.as_raw_fd(), first as i64, bytes as i64, libc::POSIX_FADV_DONTNEED), 0);
        });
        let gone = before - resident(&file);
        assert_eq!(effect(&sidecar.snapshot(), &evictor).0, gone, "{bytes} bytes from {first}");
    }

    // Dirty pages are written first; those that are not clean in time stay.
    file.write_all_at(&vec![8; PAGES * PAGE], 0).unwrap();
    let before = resident(&file);
    let evictor = in_child("dirty", || advise(&file, libc::POSIX_FADV_DONTNEED));
    assert_eq!(effect(&sidecar.snapshot(), &evictor).0, before - resident(&file));
}

#[test]
fn what_comes_back_late_does_not_count() {
    undisturbed(read_back_late);
}

fn read_back_late() {
    const PAGES: usize = 500;
    let disk = Disk::new("ext4");
    let mut file = open(&disk.path("file"));
    write_out(&mut file, PAGES);
    let sidecar = start_with_window(2);
    let evictor = evict("late", &file);
    read_pages(&file, 0..100);
    assert_eq!(effect(&sidecar.snapshot(), &evictor), (PAGES as u64, 100));
    // Time is what it takes; until then its pages are remembered, and afterwards nothing is.
    thread::sleep(Duration::from_millis(2100));
    read_pages(&file, 100..PAGES);
    assert_eq!(resident(&file), PAGES as u64);
    assert_eq!(effect(&sidecar.snapshot(), &evictor), (PAGES as u64, 100));
    let remembered =
        |metrics: &Metrics| metrics.sum("sidecar_bpf_map_entries", &[("module", "fadvise"), ("map", "blocks")]);
    let metrics = sidecar.until(|metrics| remembered(metrics) == 0);
    assert_eq!(remembered(&metrics), 0);

    // Again, with pages of the same blocks.
    let evictor = evict("again", &file);
    read_pages(&file, 0..PAGES);
    assert_eq!(effect(&sidecar.snapshot(), &evictor), (PAGES as u64, PAGES as u64));
}

#[test]
fn pages_that_find_no_room_are_counted() {
    undisturbed(evict_more_than_is_remembered);
}

/// A page in each of more blocks than there is room for. Whoever else gives advice on this machine fills the same map.
fn evict_more_than_is_remembered() {
    const PAGES: usize = 5000;
    const BLOCKS: u64 = 4096;
    const APART: usize = 64;
    let disk = Disk::new("ext4");
    let file = open(&disk.path("file"));
    file.set_len((PAGES * APART * PAGE) as u64).unwrap();
    let all = || (0..PAGES).map(|page| page * APART);
    let sidecar = start(|_| ());
    read_pages(&file, all());
    assert_eq!(resident(&file), PAGES as u64);
    let evictor = evict("sparse", &file);
    read_pages(&file, all());
    let metrics = sidecar.snapshot();
    let map = |family| metrics.sum(family, &[("module", "fadvise"), ("map", "blocks")]);
    assert_eq!(effect(&metrics, &evictor), (PAGES as u64, BLOCKS));
    assert_eq!(map("sidecar_bpf_map_entries"), BLOCKS);
    assert_eq!(map("sidecar_bpf_map_full_total"), PAGES as u64 - BLOCKS);
}
