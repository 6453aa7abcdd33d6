//! The reclaim collector against what the kernel accounts to tasks and cgroups, and what is left in memory.

use std::fs;
use std::time::Duration;

use ebpf_sidecar::histogram::Histogram;
use ebpf_sidecar::status::Status;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use crate::cgroup::Cgroup;
use crate::fixture::{Metrics, Sidecar, Wish, number, run};
use crate::reader::{PAGE, Sparse, done};
use crate::taskstats::{Accounting, reclaim_of};

const STALLS: &str = "sidecar_reclaim_direct_seconds";
const SCANNED: &str = "sidecar_reclaim_scanned_pages_total";
const RECLAIMED: &str = "sidecar_reclaim_reclaimed_pages_total";
const REFAULTS: &str = "sidecar_reclaim_refaults_total";

const LIMIT: u64 = 16 << 20;

fn alone() -> Wish {
    Wish::of(&["reclaim"])
}

/// Number and seconds of the stalls of a process.
fn stalls(metrics: &Metrics, comm: &str, scope: &str) -> (u64, f64) {
    let found = metrics.histogram(STALLS, &[("comm", comm), ("scope", scope)]);
    found.map_or((0, 0.0), |histogram| (histogram.count(), histogram.sum()))
}

/// The first one.
fn stay_on_one_cpu() {
    let mut first = CpuSet::new();
    first.set(0).expect("there is one");
    sched_setaffinity(Pid::this(), &first).expect("a process may stay there");
}

/// Two witnesses of the kernel. Its delay accounting, which measures from inside what we measure, leaves out what took no
/// time by its clock, which at times stands still in a virtual machine. The events and the pressure of the cgroup, from
/// outside, have it all and rarely more: an event without reclaim. We are between the two, and in a try without such
/// events, exact. The task stays on one CPU, because the clocks of two differ, and pressure is a mean over all.
#[test]
fn stalls_are_those_that_the_kernel_accounts_to_the_task() {
    stalls_are_exact(&Sidecar::start(alone()));
}

/// As far as there are hooks for it. The node itself is not made short of memory.
pub fn what_is_seen_is_exact(sidecar: &Sidecar) {
    let hooks = ["mm_vmscan_memcg_reclaim_begin", "mm_vmscan_memcg_reclaim_end"];
    if hooks.iter().all(|hook| sidecar.has("reclaim", hook)) {
        stalls_are_exact(sidecar);
    } else {
        pages_of_a_cgroup(sidecar);
        assert_eq!(sidecar.snapshot().count(STALLS, &[("scope", "memcg")]), 0);
    }
}

fn stalls_are_exact(sidecar: &Sidecar) {
    let _accounting = Accounting::on();
    let file = Sparse::new(4 * LIMIT);
    let mut tries = Vec::new();
    for name in ["limited-1", "limited-2", "limited-3", "limited-4", "limited-5"] {
        let cgroup = Cgroup::with_limit(LIMIT);
        let process = done(name, || {
            stay_on_one_cpu();
            cgroup.join();
            file.read();
        });
        let metrics = sidecar.snapshot();
        let (count, seconds) = stalls(&metrics, name, "memcg");
        let (accounted, accounted_ns) = reclaim_of(process.pid);
        let inside = accounted_ns as f64 / 1e9;
        let (attempts, outside) = if cgroup.v2 {
            let pressure = cgroup.read("memory.pressure");
            let total = pressure.split(&['=', '\n']).nth(4).expect("the total of the first line");
            (cgroup.number("memory.events", "max"), total.parse::<f64>().expect("microseconds") / 1e6)
        } else {
            // Version 1 has no such numbers: the first witness has to do, and a few instructions for each stall.
            (accounted, inside * 1.02)
        };
        drop(process);
        file.forget();
        assert!(count > 0 && (accounted..=attempts).contains(&count), "{name}: {count} of {accounted} to {attempts}");
        tries.push(format!("{accounted} {count} {attempts} stalls, {inside} {seconds} {outside} s"));
        // We record whole microseconds.
        let between = inside - count as f64 / 1e6 <= seconds && seconds <= outside;
        if count == attempts && between {
            return;
        }
    }
    panic!("{tries:#?}");
}

/// The counters of the machine that we show, and what the kernel says of them.
fn vmstat() -> String {
    fs::read_to_string("/proc/vmstat").expect("procfs is mounted")
}

/// What we and the kernel have counted by the same moment: one in which nothing was reclaimed.
fn at_rest(sidecar: &Sidecar) -> (Metrics, String) {
    let moments = (0..1000).map(|_| {
        // Each CPU keeps some of the statistics of its node to itself for a while.
        fs::write("/proc/sys/vm/stat_refresh", "1").expect("root may");
        (vmstat(), sidecar.snapshot(), vmstat())
    });
    let mut quiet = moments.filter(|(before, _, after)| reclaim_in(before).eq(reclaim_in(after)));
    let (_, metrics, vmstat) = quiet.next().expect("a moment without reclaim");
    (metrics, vmstat)
}

fn reclaim_in(vmstat: &str) -> impl Iterator<Item = &str> {
    let names = ["pgscan", "pgsteal", "workingset_refault", "allocstall"];
    vmstat.lines().filter(move |line| names.iter().any(|name| line.starts_with(name)))
}

/// How much a counter of ours gained between two moments.
fn gained(from: &Metrics, to: &Metrics, family: &str, label: (&str, &str)) -> u64 {
    to.sum(family, &[label]) - from.sum(family, &[label])
}

/// Each counter that has one of the kernel's beside it gained the same between two moments.
fn assert_gains_are_those_of_vmstat(from: &(Metrics, String), to: &(Metrics, String)) {
    let counters = [
        (SCANNED, "by", "pgscan_", ["kswapd", "direct"]),
        (RECLAIMED, "by", "pgsteal_", ["kswapd", "direct"]),
        (REFAULTS, "type", "workingset_refault_", ["anon", "file"]),
    ];
    for (family, label, prefix, values) in counters {
        for value in values {
            let name = format!("{prefix}{value}");
            let kernels = number(&to.1, &name) - number(&from.1, &name);
            assert_eq!(gained(&from.0, &to.0, family, (label, value)), kernels, "{name}");
        }
    }
}

/// Whichever way the kernel ages pages, if it can do both. Whatever else the machine reclaims for cgroups at the same time
/// is in these numbers too: then another try tells.
#[test]
fn pages_reclaimed_for_a_cgroup_are_exact() {
    let sidecar = Sidecar::start(alone());
    let module = sidecar.module("reclaim");
    assert_eq!(module.status == Status::Running, module.reason.is_empty());
    match fs::read_to_string(GENERATIONS) {
        Ok(before) => {
            for way in ["0", "7", before.trim()] {
                fs::write(GENERATIONS, way).expect("root may choose");
                pages_of_a_cgroup(&sidecar);
            }
        }
        Err(_) => pages_of_a_cgroup(&sidecar),
    }
}

const GENERATIONS: &str = "/sys/kernel/mm/lru_gen/enabled";

fn pages_of_a_cgroup(sidecar: &Sidecar) {
    let file = Sparse::new(4 * LIMIT);
    let mut tries = Vec::new();
    for _ in 0..5 {
        let cgroup = Cgroup::with_limit(LIMIT);
        let before = at_rest(sidecar);
        // A kernel that does not count them apart has them here, and we say so.
        let apart = before.0.count(RECLAIMED, &[("by", "memcg")]) == 1;
        let module = before.0.0.modules.iter().find(|module| module.name == "reclaim").expect("it was asked for");
        assert_eq!(module.reason.contains("and not apart"), !apart, "{}", module.reason);
        let process = done("limited", || {
            cgroup.join();
            file.read();
        });
        let after = at_rest(sidecar);
        let gone = 4 * LIMIT / PAGE - file.resident();
        assert_gains_are_those_of_vmstat(&before, &after);
        let by = ("by", if apart { "memcg" } else { "direct" });
        let [reclaimed, scanned] = [RECLAIMED, SCANNED].map(|family| gained(&before.0, &after.0, family, by));
        // Where memory is short, kswapd takes some of these pages.
        assert!(gone > 0 && scanned >= reclaimed, "{gone} {reclaimed} {scanned}");
        tries.push((gone, reclaimed, scanned));
        let told = cgroup.v2.then(|| ["pgsteal", "pgscan"].map(|name| cgroup.number("memory.stat", name)));
        drop(process);
        file.forget();
        if reclaimed == gone && told.is_none_or(|told| told == [reclaimed, scanned]) {
            return;
        }
    }
    panic!("pages gone, pages that we say were reclaimed and scanned: {tries:?}");
}

#[test]
fn pages_that_come_back_are_refaults() {
    let sidecar = Sidecar::start(alone());
    let file = Sparse::new(LIMIT * 5 / 4);
    let cgroup = Cgroup::with_limit(LIMIT);
    let before = at_rest(&sidecar);
    let _process = done("thrashing", || {
        cgroup.join();
        (0..4).for_each(|_| file.read());
    });
    let after = at_rest(&sidecar);
    assert_gains_are_those_of_vmstat(&before, &after);
    assert!(gained(&before.0, &after.0, REFAULTS, ("type", "file")) > 0);
}

#[test]
fn a_full_family_folds_into_other() {
    let sidecar = Sidecar::start(Wish { max_series: 1, ..alone() });
    let _accounting = Accounting::on();
    let file = Sparse::new(2 * LIMIT);
    let mut accounted = 0;
    for name in ["folded-1", "folded-2", "folded-3"] {
        let cgroup = Cgroup::with_limit(LIMIT);
        let process = done(name, || {
            cgroup.join();
            file.read();
        });
        accounted += reclaim_of(process.pid).0;
        drop(process);
        file.forget();
    }
    // Another process of this machine may have stalled as well.
    let metrics = sidecar.snapshot();
    assert!(metrics.count(STALLS, &[]) <= 2);
    let known = stalls(&metrics, "folded-1", "memcg").0;
    assert!(stalls(&metrics, "other", "other").0 + known >= accounted, "{known} and other of {accounted}");
    assert!(metrics.sum("sidecar_series_folded_total", &[("family", STALLS)]) > 0);
}

#[test]
fn idle_series_disappear() {
    let wish = Wish { idle_ttl: Duration::from_secs(1), interval: Duration::from_millis(100), ..alone() };
    let sidecar = Sidecar::start(wish);
    let file = Sparse::new(2 * LIMIT);
    let cgroup = Cgroup::with_limit(LIMIT);
    let _process = done("idle", || {
        cgroup.join();
        file.read();
    });
    assert!(stalls(&sidecar.snapshot(), "idle", "memcg").0 > 0);
    let metrics = sidecar.until(|metrics| stalls(metrics, "idle", "memcg").0 == 0);
    assert_eq!(stalls(&metrics, "idle", "memcg").0, 0);
}

/// What is in the pool of huge pages is nobody's to reclaim: the rest of the memory is soon full of page cache. kswapd,
/// which would make room in time, hardly gets the CPU.
#[test]
#[ignore = "takes all memory of the machine: for virtual machines"]
fn a_machine_short_of_memory_is_counted_to_the_page() {
    a_machine_short_of_memory(&Sidecar::start(alone()));
}

/// As far as there are hooks for the time that it takes.
pub fn a_machine_short_of_memory(sidecar: &Sidecar) {
    const LEFT: u64 = 200 << 20;
    const HUGE: u64 = 2 << 20;
    let _pool = Pool::of((number(&fs::read_to_string("/proc/meminfo").unwrap(), "MemAvailable:") * 1024 - LEFT) / HUGE);
    let kswapd = run("pidof kswapd0");
    let kswapd = kswapd.trim();
    run(&format!("renice -n 19 -p {kswapd}"));
    run(&format!("taskset -p 1 {kswapd}"));
    let file = Sparse::new(3 * LEFT);
    let before = at_rest(sidecar);
    let process = done("short", || {
        stay_on_one_cpu();
        file.read();
    });
    drop(process);
    let after = at_rest(sidecar);
    run(&format!("renice -n 0 -p {kswapd}"));
    assert_gains_are_those_of_vmstat(&before, &after);
    for by in ["kswapd", "direct"] {
        assert!(gained(&before.0, &after.0, RECLAIMED, ("by", by)) > 0, "{by}");
    }
    assert_eq!(gained(&before.0, &after.0, RECLAIMED, ("by", "memcg")), 0);
    if !["mm_vmscan_direct_reclaim_begin", "mm_vmscan_direct_reclaim_end"]
        .iter()
        .all(|hook| sidecar.has("reclaim", hook))
    {
        return assert_eq!(after.0.count(STALLS, &[]), 0);
    }
    assert!(stalls(&after.0, "short", "node").0 > 0);
    let all = |metrics: &Metrics| metrics.histograms(STALLS, &[("scope", "node")]).map(Histogram::count).sum::<u64>();
    assert_eq!(all(&after.0) - all(&before.0), allocstall(&after.1) - allocstall(&before.1));
}

fn allocstall(vmstat: &str) -> u64 {
    let zones = vmstat.lines().filter(|line| line.starts_with("allocstall_"));
    zones.filter_map(|line| line.split_once(' ')).map(|(_, n)| n.parse::<u64>().expect("a number")).sum()
}

/// The pool of huge pages, which is empty again afterwards.
struct Pool;

impl Pool {
    const FILE: &str = "/proc/sys/vm/nr_hugepages";

    fn of(pages: u64) -> Pool {
        fs::write(Pool::FILE, pages.to_string()).expect("the kernel has huge pages");
        Pool
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let _ = fs::write(Pool::FILE, "0");
    }
}
