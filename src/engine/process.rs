//! The usual `process_*` families, from `/proc/self`.

use procfs::process::{LimitValue, Process};

use crate::snapshot::{Descriptor, Family, labels};

static CPU: Descriptor = Descriptor::counter(
    "self",
    "process_cpu_seconds_total",
    "seconds",
    "CPU time of the daemon, with that of its programs that look at sockets and files; that of the others is in sidecar_bpf_run_seconds_total.",
);
static RESIDENT: Descriptor =
    Descriptor::gauge("self", "process_resident_memory_bytes", "bytes", "Resident memory of the daemon.");
static VIRTUAL: Descriptor =
    Descriptor::gauge("self", "process_virtual_memory_bytes", "bytes", "Virtual memory of the daemon.");
static OPEN_FDS: Descriptor = Descriptor::gauge("self", "process_open_fds", "", "Open file descriptors of the daemon.");
static MAX_FDS: Descriptor =
    Descriptor::gauge("self", "process_max_fds", "", "Most file descriptors it may have open.");
static THREADS: Descriptor = Descriptor::gauge("self", "process_threads", "", "Threads of the daemon.");
static START: Descriptor = Descriptor::gauge(
    "self",
    "process_start_time_seconds",
    "seconds",
    "When the daemon was started, in seconds since the Unix epoch.",
);

/// All of them.
pub const ALL: &[&Descriptor] = &[&CPU, &RESIDENT, &VIRTUAL, &OPEN_FDS, &MAX_FDS, &THREADS, &START];

/// What `/proc` tells; what it does not tell is left out.
pub fn families() -> Vec<Family> {
    let Ok(process) = Process::myself() else { return Vec::new() };
    let mut families = Vec::new();
    let mut gauge = |descriptor, value: Option<f64>| {
        if let Some(value) = value {
            let mut family = Family::new(descriptor);
            family.number(labels([]), value);
            families.push(family);
        }
    };
    let stat = process.stat().ok();
    let ticks = procfs::ticks_per_second() as f64;
    gauge(&CPU, stat.as_ref().map(|stat| (stat.utime + stat.stime) as f64 / ticks));
    gauge(&RESIDENT, stat.as_ref().map(|stat| (stat.rss * procfs::page_size()) as f64));
    gauge(&VIRTUAL, stat.as_ref().map(|stat| stat.vsize as f64));
    gauge(&OPEN_FDS, process.fd_count().ok().map(|count| count as f64));
    let limit = process.limits().ok().map(|limits| limits.max_open_files.soft_limit);
    gauge(
        &MAX_FDS,
        limit.and_then(|limit| if let LimitValue::Value(value) = limit { Some(value as f64) } else { None }),
    );
    gauge(&THREADS, stat.as_ref().map(|stat| stat.num_threads as f64));
    let started = |starttime: u64| Some(procfs::boot_time_secs().ok()? as f64 + starttime as f64 / ticks);
    gauge(&START, stat.as_ref().and_then(|stat| started(stat.starttime)));
    families
}
