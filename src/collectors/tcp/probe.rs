//! Running: loads, attaches, passes, walks. The one file of this collector that deals with libbpf.

use std::mem::{MaybeUninit, size_of};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{Link, MapCore, MapFlags, MapHandle, OpenMapMut, ProgramMut};
use nix::sys::signal::kill;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

use super::audit::{self, Auditor};
use super::decode::Decoder;
use super::metrics::{self, Families, PassContext, SeriesLabels, limited_fits};
use super::skel::types::{
    bss, cost, slot_pool, tcp_caller, tcp_caller_key, tcp_config, tcp_conn, tcp_failure, tcp_failure_key, tcp_listener,
    tcp_listener_key, tcp_missed, tcp_namespace, tcp_program, tcp_series, tcp_series_key, tcp_timing, tcp_timing_key,
};
use super::skel::{OpenTcpSkel, TcpSkel, TcpSkelBuilder};
use super::walk::Pacer;
use crate::bpf::load::{self, LoadError};
use crate::bpf::own;
use crate::bpf::plan::Plan;
use crate::bpf::slots::{Slot, SlotTable};
use crate::bpf::traversal::Traversal;
use crate::collectors::{Audit, CollectError, Collector, Limits, Objects, Setup};
use crate::snapshot::{Descriptor, Family, Labels};
use crate::status::{HookReport, MapReport, ProgramReport};

/// Histograms take 3.4 kB a slot, and their labels have no addresses: this many are plenty.
const MAX_TIMINGS: u32 = 512;

/// What the kernel allocates for the storage of one socket: an element in kmalloc-192 (64 bytes of list heads, 8 of
/// `bpf_local_storage_data`, our value) and the socket's `bpf_local_storage` in another.
const SOCKET_BYTES: u64 = 2 * 192;
const _: () = assert!(64 + 8 + size_of::<tcp_conn>() <= 192);

// SAFETY: generated from C structs that begin with `struct slot_head` and the key, as SLOT_TABLE asserts; all integers.
unsafe impl Slot for tcp_series {
    type Key = tcp_series_key;
}
// SAFETY: as above.
unsafe impl Slot for tcp_timing {
    type Key = tcp_timing_key;
}
// SAFETY: as above.
unsafe impl Slot for tcp_listener {
    type Key = tcp_listener_key;
}
// SAFETY: as above.
unsafe impl Slot for tcp_failure {
    type Key = tcp_failure_key;
}
// SAFETY: as above.
unsafe impl Slot for tcp_caller {
    type Key = tcp_caller_key;
}

struct Tcp<'a> {
    skel: TcpSkel<'a>,
    plan: Plan,
    decoder: Decoder,
    limits: Limits,
    tick_ns: u64,
    series: SlotTable<tcp_series, SeriesLabels>,
    timing: SlotTable<tcp_timing, Labels>,
    listener: SlotTable<tcp_listener, Labels>,
    failure: SlotTable<tcp_failure, Labels>,
    caller: SlotTable<tcp_caller, Labels>,
    sockets: Traversal,
    files: Option<Traversal>,
    /// Held for as long as the collector runs: dropping them detaches.
    _hooks: Vec<Link>,
    pacer: Pacer,
    /// When the last pass was made.
    passed_ns: u64,
    auditor: Auditor,
    /// Process ids mean the same to us as to the programs.
    sees_all_processes: bool,
    /// Jiffies of recycled series that had no samples of their own in `limited_seconds`.
    carried: u64,
}

/// Loads and attaches: first the hooks, then the walk that takes over what is older, so that nothing falls between.
pub fn start<'a>(setup: &Setup<'_>, objects: &'a Objects) -> Result<Box<dyn Collector + 'a>, LoadError> {
    let mut plan = Plan::new(super::HOOKS, setup.kernel);
    let skel = load::load(&mut plan, setup.kernel, |plan| {
        let mut open = TcpSkelBuilder::default().open(objects.alloc(MaybeUninit::uninit()))?;
        prepare(&mut open, plan, setup)?;
        open.load()
    })?;
    let attach = LoadError::during("attaching the BPF programs");
    let mut hooks = Vec::new();
    for program in [&skel.progs.tcp_state, &skel.progs.tcp_synack] {
        if takes(&plan, program) {
            hooks.push(program.attach().map_err(&attach)?);
        }
    }
    let sockets = Traversal::new(skel.progs.tcp_pass.attach_iter(skel.maps.sockets.as_fd()).map_err(&attach)?);
    let walk = &skel.progs.tcp_walk;
    let files = if takes(&plan, walk) { Some(Traversal::new(walk.attach().map_err(&attach)?)) } else { None };
    let maps = &skel.maps;
    let mut tcp = Tcp {
        decoder: Decoder::new(&setup.config.tcp),
        limits: setup.limits,
        tick_ns: setup.kernel.tick_ns,
        series: table(&maps.series, &maps.series_index, &maps.series_freed)?,
        timing: table(&maps.timing, &maps.timing_index, &maps.timing_freed)?,
        listener: table(&maps.listener, &maps.listener_index, &maps.listener_freed)?,
        failure: table(&maps.failure, &maps.failure_index, &maps.failure_freed)?,
        caller: table(&maps.caller, &maps.caller_index, &maps.caller_freed)?,
        sockets,
        files,
        _hooks: hooks,
        pacer: Pacer::new(monotonic_ns()),
        passed_ns: 0,
        auditor: Auditor::default(),
        sees_all_processes: in_first_pid_namespace(),
        carried: 0,
        skel,
        plan,
    };
    let io = |source: std::io::Error| LoadError::during("taking over open sockets")(source.into());
    tcp.walk(monotonic_ns()).map_err(io)?;
    tcp.audit_namespaces();
    Ok(Box::new(tcp))
}

fn takes(plan: &Plan, program: &ProgramMut<'_>) -> bool {
    program.name().to_str().is_some_and(|name| plan.takes(name))
}

fn table<V: Slot, C>(
    array: &libbpf_rs::MapMut<'_>,
    index: &libbpf_rs::MapMut<'_>,
    freed: &libbpf_rs::MapMut<'_>,
) -> Result<SlotTable<V, C>, LoadError> {
    let during = LoadError::during("mapping the BPF maps");
    let handle = |map| MapHandle::try_from(map).map_err(&during);
    SlotTable::new(handle(array)?, handle(index)?, handle(freed)?).map_err(|error| during(error.into()))
}

/// Everything that has to be settled before the kernel sees the programs.
fn prepare(open: &mut OpenTcpSkel<'_>, plan: &Plan, setup: &Setup<'_>) -> libbpf_rs::Result<()> {
    let progs = &mut open.progs;
    for program in [&mut progs.tcp_state, &mut progs.tcp_synack, &mut progs.tcp_pass, &mut progs.tcp_walk] {
        let taken = program.name().to_str().is_some_and(|name| plan.takes(name));
        program.set_autoload(taken);
    }
    let labels = &setup.config.tcp.labels;
    let has = |label| u8::from(labels.contains(&label));
    let rodata = open.maps.rodata_data.as_deref_mut().expect("the object has read-only data");
    rodata.config = tcp_config {
        label_pid: has(super::Label::Pid),
        label_src_ip: has(super::Label::SrcIp),
        label_src_port: has(super::Label::SrcPort),
        synack_hook: plan.takes("tcp_synack").into(),
        pad: 0,
    };
    let maps = &mut open.maps;
    let data = maps.bss_data.as_deref_mut().expect("the object has data");
    let max = setup.limits.max_series;
    size([&mut maps.series, &mut maps.series_index, &mut maps.series_freed], &mut data.series_pool, max)?;
    size([&mut maps.listener, &mut maps.listener_index, &mut maps.listener_freed], &mut data.listener_pool, max)?;
    size([&mut maps.failure, &mut maps.failure_index, &mut maps.failure_freed], &mut data.failure_pool, max)?;
    size([&mut maps.caller, &mut maps.caller_index, &mut maps.caller_freed], &mut data.caller_pool, max)?;
    let max = max.min(MAX_TIMINGS);
    size([&mut maps.timing, &mut maps.timing_index, &mut maps.timing_freed], &mut data.timing_pool, max)
}

/// Room for `max` label sets and `other`.
fn size(maps: [&mut OpenMapMut<'_>; 3], pool: &mut slot_pool, max: u32) -> libbpf_rs::Result<()> {
    for map in maps {
        map.set_max_entries(max + 1)?;
    }
    *pool = slot_pool { next: 1, max: max + 1, folded: 0 };
    Ok(())
}

impl Tcp<'_> {
    /// Programs write to it at any time: a copy, each word of which was there at some moment of the call.
    fn data(&self) -> bss {
        let data: *const bss = &raw const **self.skel.maps.bss_data.as_ref().expect("the object has data");
        // SAFETY: mapped for as long as the skeleton lives.
        unsafe { data.read_volatile() }
    }

    fn data_mut(&mut self) -> &mut bss {
        self.skel.maps.bss_data.as_deref_mut().expect("the object has data")
    }

    /// Finds the owners of sockets, and takes over those older than we are.
    fn walk(&mut self, now_ns: u64) -> std::io::Result<()> {
        let due = self.data().owners_due;
        let data = self.data_mut();
        data.walk_number = data.walk_number.wrapping_add(1).max(1);
        data.pass_now_ns = now_ns;
        let Some(files) = &mut self.files else { return Ok(()) };
        let cost = files.run()?;
        self.pacer.walked(due, now_ns, cost);
        Ok(())
    }

    /// Brings every live socket's counters to its series.
    fn pass(&mut self, now_ns: u64) -> std::io::Result<PassContext> {
        let data = self.data_mut();
        data.pass_number += 1;
        data.pass_now_ns = now_ns;
        data.pass_sockets = 0;
        let number = data.pass_number;
        self.sockets.run()?;
        self.passed_ns = now_ns;
        Ok(PassContext { number, now_ns, tick_ns: self.tick_ns })
    }

    fn cost(&self, program: &ProgramMut<'_>, index: tcp_program) -> ProgramReport {
        let key = index.0.to_ne_bytes();
        let per_cpu = self.skel.maps.costs.lookup_percpu(&key, MapFlags::ANY).ok().flatten();
        let cpus = per_cpu.iter().flatten().map(|bytes| from_bytes::<cost>(bytes));
        let (runs, run_ns) = cpus.fold((0, 0), |sum, cpu| (sum.0 + cpu.runs, sum.1 + cpu.ns));
        let name = program.name().to_string_lossy().into_owned();
        ProgramReport { name, runs, run_ns, missed: own::missed_runs(program.as_fd()) }
    }

    fn missed(&self) -> tcp_missed {
        let mut sum = tcp_missed::default();
        let per_cpu = self.skel.maps.missed.lookup_percpu(&0u32.to_ne_bytes(), MapFlags::ANY).ok().flatten();
        for bytes in per_cpu.iter().flatten() {
            let cpu: tcp_missed = from_bytes(bytes);
            sum.untracked += cpu.untracked;
            sum.no_memory += cpu.no_memory;
            sum.namespaces += cpu.namespaces;
        }
        sum
    }

    fn namespaces(&self) -> Vec<(u64, tcp_namespace)> {
        let map = &self.skel.maps.namespaces;
        let entry = |key: Vec<u8>| {
            let value = map.lookup(&key, MapFlags::ANY).ok()??;
            Some((u64::from_ne_bytes(key.try_into().ok()?), from_bytes(&value)))
        };
        map.keys().filter_map(entry).collect()
    }

    fn audit_namespaces(&mut self) {
        self.auditor.update(self.namespaces().into_iter());
    }

    /// Forgets namespaces in which the last walk found nobody alive.
    fn prune_namespaces(&mut self) -> libbpf_rs::Result<()> {
        for (id, ns) in self.namespaces() {
            if !audit::lives(&ns) {
                self.auditor.end(id);
                self.skel.maps.namespaces.delete(&id.to_ne_bytes())?;
            }
        }
        Ok(())
    }
}

impl Collector for Tcp<'_> {
    fn collect(&mut self, now_ns: u64) -> Result<Vec<Family>, CollectError> {
        if self.pacer.wants(self.data().owners_due, now_ns) {
            self.walk(now_ns).map_err(CollectError::during("looking for the owners of sockets"))?;
        }
        let pass = self.pass(now_ns).map_err(CollectError::during("reading the sockets"))?;
        let data = self.data();
        let mapping = CollectError::during("mapping the series");
        let (decoder, max_series) = (&self.decoder, self.limits.max_series);
        let mut families = Families::new();
        let (mut folded, mut like) = (self.carried, None);
        for (slot, s, memory) in self.series.live(data.series_pool.next).map_err(&mapping)? {
            let names = memory
                .get_or_insert_with(|| SeriesLabels::new(decoder.series(slot, &s.key), limited_fits(slot, max_series)));
            if names.is_folded() {
                like = Some(decoder.series(0, &s.key));
            }
            families.series(names, &s, pass, &mut folded);
        }
        if let Some(like) = like {
            families.limited_other(&like, folded, pass);
        }
        for (slot, t, memory) in self.timing.live(data.timing_pool.next).map_err(&mapping)? {
            families.timing(memory.get_or_insert_with(|| decoder.timing(slot, &t.key)), &t);
        }
        for (slot, f, memory) in self.failure.live(data.failure_pool.next).map_err(&mapping)? {
            families.failure(memory.get_or_insert_with(|| decoder.failure(slot, &f.key)), &f);
        }
        for (slot, l, memory) in self.listener.live(data.listener_pool.next).map_err(&mapping)? {
            families.listener(memory.get_or_insert_with(|| decoder.listener(slot, &l.key)), &l, pass);
        }
        for (slot, c, memory) in self.caller.live(data.caller_pool.next).map_err(&mapping)? {
            families.caller(memory.get_or_insert_with(|| decoder.caller(slot, &c.key)), &c);
        }
        families.missed(&self.missed());
        Ok(families.finish())
    }

    fn tick(&mut self, now_ns: u64) -> Result<(), CollectError> {
        if self.pacer.affords(now_ns) {
            self.walk(now_ns).map_err(CollectError::during("looking for the owners of sockets"))?;
            self.prune_namespaces().map_err(CollectError::during("forgetting network namespaces"))?;
        }
        // As of the last pass, which marked everything that is in use.
        let (ttl_ns, passed_ns) = (self.limits.idle_ttl.as_nanos() as u64, self.passed_ns);
        let idle = |last_ns: u64| passed_ns.saturating_sub(last_ns) > ttl_ns;
        let expiring = CollectError::during("expiring idle series");
        let (max_series, carried) = (self.limits.max_series, &mut self.carried);
        let carry = |slot, s: tcp_series| {
            if !limited_fits(slot, max_series) {
                *carried += s.chrono.iter().sum::<u64>();
            }
        };
        self.series.expire(|s| idle(s.head.last_ns), carry).map_err(&expiring)?;
        self.timing.expire(|t| idle(t.head.last_ns), |_, _| ()).map_err(&expiring)?;
        self.failure.expire(|f| idle(f.head.last_ns), |_, _| ()).map_err(&expiring)?;
        self.listener.expire(|l| idle(l.head.last_ns), |_, _| ()).map_err(&expiring)?;
        let sees_all = self.sees_all_processes;
        let gone = |c: &tcp_caller| if sees_all { !alive(c.key.pid) } else { idle(c.head.last_ns) };
        self.caller.expire(gone, |_, _| ()).map_err(&expiring)?;
        self.audit_namespaces();
        Ok(())
    }

    fn hooks(&self) -> Vec<HookReport> {
        self.plan.reports()
    }

    fn missing(&self) -> String {
        self.plan.missing()
    }

    fn programs(&self) -> Vec<ProgramReport> {
        let progs = &self.skel.progs;
        let hooked = [(&progs.tcp_state, tcp_program::PROGRAM_STATE), (&progs.tcp_synack, tcp_program::PROGRAM_SYNACK)];
        let hooked = hooked.into_iter().filter(|(program, _)| takes(&self.plan, program));
        let hooked = hooked.map(|(program, index)| self.cost(program, index));
        let files = self.files.as_ref().map(|files| files.report("tcp_walk"));
        hooked.chain([self.sockets.report("tcp_pass")]).chain(files).collect()
    }

    fn maps(&self) -> Vec<MapReport> {
        let maps = &self.skel.maps;
        let data = self.data();
        let missed = self.missed();
        let table = |name: &str, maps: [&libbpf_rs::MapMut<'_>; 3], pool: slot_pool| MapReport {
            name: name.to_owned(),
            entries: Some(u64::from(pool.next.min(pool.max)) - 1),
            bytes: maps.into_iter().filter_map(own::map_bytes).sum(),
            full: Some(pool.folded),
        };
        vec![
            MapReport {
                name: "sockets".to_owned(),
                entries: Some(data.pass_sockets),
                bytes: data.pass_sockets * SOCKET_BYTES,
                full: Some(missed.no_memory),
            },
            table("series", [&maps.series, &maps.series_index, &maps.series_freed], data.series_pool),
            table("timing", [&maps.timing, &maps.timing_index, &maps.timing_freed], data.timing_pool),
            table("failure", [&maps.failure, &maps.failure_index, &maps.failure_freed], data.failure_pool),
            table("listener", [&maps.listener, &maps.listener_index, &maps.listener_freed], data.listener_pool),
            table("caller", [&maps.caller, &maps.caller_index, &maps.caller_freed], data.caller_pool),
            MapReport {
                name: "namespaces".to_owned(),
                entries: Some(maps.namespaces.keys().count() as u64),
                bytes: own::map_bytes(&maps.namespaces).unwrap_or(0),
                full: Some(missed.namespaces),
            },
        ]
    }

    fn folded(&self) -> Vec<(&'static Descriptor, u64)> {
        let data = self.data();
        let tables = [
            (metrics::OF_SERIES, data.series_pool),
            (metrics::OF_TIMING, data.timing_pool),
            (metrics::OF_FAILURE, data.failure_pool),
            (metrics::OF_LISTENER, data.listener_pool),
            (metrics::OF_CALLER, data.caller_pool),
        ];
        tables.iter().flat_map(|(families, pool)| families.iter().map(|family| (*family, pool.folded))).collect()
    }

    fn audit(&mut self) -> Vec<Audit> {
        self.audit_namespaces();
        self.auditor.totals()
    }
}

/// A value as the kernel gave it.
fn from_bytes<T: Copy + Default>(bytes: &[u8]) -> T {
    let mut value = T::default();
    let size = size_of::<T>().min(bytes.len());
    // SAFETY: used for generated types of integers alone, for which any bytes are a value; `size` fits both.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), (&raw mut value).cast::<u8>(), size) };
    value
}

/// Programs see the process ids of the first pid namespace, whose inode is PROC_PID_INIT_INO of include/linux/proc_ns.h.
fn in_first_pid_namespace() -> bool {
    std::fs::metadata("/proc/self/ns/pid").is_ok_and(|ns| ns.ino() == 0xEFFF_FFFC)
}

fn alive(pid: u32) -> bool {
    // No signal is sent; a process of another user is alive as well.
    kill(Pid::from_raw(pid as i32), None) != Err(nix::errno::Errno::ESRCH)
}

/// CLOCK_MONOTONIC, which bpf_ktime_get_ns() reads too.
fn monotonic_ns() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |now| Duration::from(now).as_nanos() as u64)
}
