//! The daemon's own families: how the modules fare, what they cost, and what they missed.

use super::process;
use super::{Module, State};
use crate::identity::Identity;
use crate::snapshot::{Descriptor, Family, Labels, labels};
use crate::status::{ModuleReport, Status};

static STATUS: Descriptor =
    Descriptor::gauge("self", "sidecar_module_status", "", "1 for the status that the module is in, 0 for the others.");
static PAUSES: Descriptor = Descriptor::counter(
    "self",
    "sidecar_module_pauses_total",
    "",
    "How often the module was paused because our BPF programs took more CPU than collector.max_cpu_percent.",
);
static HOOK: Descriptor = Descriptor::gauge("self", "sidecar_hook_info", "", "Hooks in use, with their kind.");
static RUNS: Descriptor = Descriptor::counter(
    "self",
    "sidecar_bpf_runs_total",
    "",
    "Runs of each of our BPF programs; of those that look at sockets and files, one over all counts once.",
);
static RUN_SECONDS: Descriptor = Descriptor::counter(
    "self",
    "sidecar_bpf_run_seconds_total",
    "seconds",
    "CPU time of each of our BPF programs, from every 17th run; of those that look at sockets and files, from the clock of the thread that runs them.",
);
static MISSED: Descriptor = Descriptor::counter(
    "self",
    "sidecar_bpf_missed_runs_total",
    "",
    "Runs that the kernel left out because the program was at work on that CPU already.",
);
static MAP_ENTRIES: Descriptor = Descriptor::gauge("self", "sidecar_bpf_map_entries", "", "Entries in our BPF maps.");
static MAP_BYTES: Descriptor = Descriptor::gauge(
    "self",
    "sidecar_bpf_map_bytes",
    "bytes",
    "Kernel memory of our BPF maps, which the resident memory of the process does not show.",
);
static MAP_FULL: Descriptor =
    Descriptor::counter("self", "sidecar_bpf_map_full_total", "", "How often something found no room in a BPF map.");
static SERIES: Descriptor = Descriptor::gauge("self", "sidecar_series", "", "Series that each family has now.");
static FOLDED: Descriptor = Descriptor::counter(
    "self",
    "sidecar_series_folded_total",
    "",
    "How often something was counted in the series `other` because the family was full.",
);
static AUDIT_KERNEL: Descriptor = Descriptor::counter(
    "self",
    "sidecar_audit_kernel_total",
    "",
    "The kernel's own count since the start, in the network namespaces that processes live in.",
);
static AUDIT_COUNTED: Descriptor = Descriptor::counter(
    "self",
    "sidecar_audit_counted_total",
    "",
    "Our count of what sidecar_audit_kernel_total counts.",
);
static COLLECTION: Descriptor =
    Descriptor::histogram("self", "sidecar_collection_seconds", "Time that each module took to collect.");
static LOOKUPS: Descriptor = Descriptor::counter(
    "self",
    "sidecar_identity_lookups_total",
    "",
    "How often runtimes of containers that are there were asked for names.",
);
static BUILD: Descriptor = Descriptor::gauge("self", "sidecar_build_info", "", "Version of the daemon.");

/// All of them and the process's, in the order in which they are shown.
pub fn descriptors() -> impl Iterator<Item = &'static Descriptor> {
    let own = [
        &STATUS,
        &PAUSES,
        &HOOK,
        &RUNS,
        &RUN_SECONDS,
        &MISSED,
        &MAP_ENTRIES,
        &MAP_BYTES,
        &MAP_FULL,
        &SERIES,
        &FOLDED,
        &AUDIT_KERNEL,
        &AUDIT_COUNTED,
        &COLLECTION,
        &BUILD,
        &LOOKUPS,
    ];
    own.into_iter().chain(process::ALL.iter().copied())
}

/// Makes them from the reports and from what the modules found.
pub fn families<'a>(
    modules: &mut [Module<'_>],
    reports: impl Iterator<Item = &'a ModuleReport>,
    found: &[Family],
) -> Vec<Family> {
    let mut status = Family::new(&STATUS);
    let mut hook = Family::new(&HOOK);
    let mut runs = Family::new(&RUNS);
    let mut run_seconds = Family::new(&RUN_SECONDS);
    let mut missed = Family::new(&MISSED);
    let mut map_entries = Family::new(&MAP_ENTRIES);
    let mut map_bytes = Family::new(&MAP_BYTES);
    let mut map_full = Family::new(&MAP_FULL);
    for report in reports {
        let module = report.name;
        for one in Status::ALL {
            let labels = labels([("module", module), ("status", one.as_str())]);
            status.integer(labels, u64::from(one == report.status));
        }
        for used in &report.hooks {
            if let Some(kind) = used.kind {
                hook.integer(labels([("module", module), ("hook", used.name), ("kind", kind.as_str())]), 1);
            }
        }
        for program in &report.programs {
            let labels = labels([("module", module), ("program", &program.name)]);
            runs.integer(Labels::clone(&labels), program.runs);
            if let Some(count) = program.missed {
                missed.integer(Labels::clone(&labels), count);
            }
            run_seconds.number(labels, program.run_ns as f64 / 1e9);
        }
        for map in &report.maps {
            let labels = labels([("module", module), ("map", &map.name)]);
            if let Some(entries) = map.entries {
                map_entries.integer(Labels::clone(&labels), entries);
            }
            if let Some(full) = map.full {
                map_full.integer(Labels::clone(&labels), full);
            }
            map_bytes.integer(labels, map.bytes);
        }
    }
    let mut families =
        vec![status, pauses(modules), hook, runs, run_seconds, missed, map_entries, map_bytes, map_full, series(found)];
    families.extend(from_modules(modules));
    families.push(build());
    families.extend(process::families());
    families
}

fn series(found: &[Family]) -> Family {
    let mut series = Family::new(&SERIES);
    for family in found {
        series.integer(labels([("family", family.descriptor.name)]), family.samples.len() as u64);
    }
    series
}

fn pauses(modules: &[Module<'_>]) -> Family {
    let mut pauses = Family::new(&PAUSES);
    for module in modules.iter().filter(|module| matches!(module.state, State::Running { .. })) {
        pauses.integer(labels([("module", module.spec.name)]), module.pauses);
    }
    pauses
}

fn from_modules(modules: &mut [Module<'_>]) -> [Family; 4] {
    let mut folded = Family::new(&FOLDED);
    let mut kernel = Family::new(&AUDIT_KERNEL);
    let mut counted = Family::new(&AUDIT_COUNTED);
    let mut collection = Family::new(&COLLECTION);
    for module in modules {
        collection.histogram(labels([("module", module.spec.name)]), module.durations.clone());
        let (State::Running { collector, .. }, None) = (&mut module.state, module.needed_by) else { continue };
        for (family, times) in collector.folded() {
            folded.integer(labels([("family", family.name)]), times);
        }
        for audit in collector.audit() {
            let labels = labels([("counter", audit.counter)]);
            kernel.integer(Labels::clone(&labels), audit.kernel);
            counted.integer(labels, audit.counted);
        }
    }
    [folded, kernel, counted, collection]
}

/// Of a source that is not there, there is none.
pub fn lookups(identity: &Identity) -> Family {
    let mut lookups = Family::new(&LOOKUPS);
    for (source, outcome, count) in identity.lookups() {
        lookups.integer(labels([("source", source), ("outcome", outcome)]), count);
    }
    lookups
}

fn build() -> Family {
    let mut build = Family::new(&BUILD);
    build.integer(labels([("version", env!("CARGO_PKG_VERSION"))]), 1);
    build
}
