//! Every way to attach every hook: what a module shows is exact however it is attached, and what a host does not offer is
//! replaced by the next way, or missing as stated. Each prints a line for a table: `matrix:`, module, hook, way, result.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use ebpf_sidecar::bpf::hook::{Alternative, Hook, unavailable};
use ebpf_sidecar::bpf::plan::Plan;
use ebpf_sidecar::collectors::{self, AUTO, Spec, btf_names};
use ebpf_sidecar::kernel::Kernel;
use ebpf_sidecar::status::Status;

use crate::disk::{Disk, undisturbed};
use crate::fixture::{Network, Sidecar, Wish, seen};
use crate::ways::{Forced, Way, config, forced, pretend, programs, take_away, tell};
use crate::{drops, fadvise, page_cache, reclaim, retransmit, tcp};

/// Holds a module to what did not come from us. It starts the module itself, once, when it is ready.
type Exact<'a> = &'a dyn Fn(&dyn Fn() -> Sidecar);

/// A module that runs everywhere: nothing starts where none can.
const ANOTHER: &str = "reclaim";

struct Matrix<'a> {
    spec: &'static Spec,
    exact: Exact<'a>,
    /// By the programs that were attached: nothing else makes a difference.
    outcomes: BTreeMap<Vec<&'static str>, Result<String, String>>,
    failures: Vec<String>,
}

fn every_way(spec: &'static Spec, exact: Exact<'_>) {
    every_way_of(spec, |_| true, exact);
}

/// Of some hooks alone.
fn every_way_of(spec: &'static Spec, wanted: fn(&Hook) -> bool, exact: Exact<'_>) {
    // Nothing else: containers are not looked for.
    let kernel = Kernel::probe(btf_names());
    let mut matrix = Matrix { spec, exact, outcomes: BTreeMap::new(), failures: Vec::new() };
    for mut forced in forced(spec, &kernel) {
        // What is for kernels of other versions is no matter of what this one refuses.
        forced.ways.retain(|way| wanted(way.hook) && way.how.unsuited(&kernel).is_none());
        matrix.forced(&forced);
    }
    for hook in spec.hooks.iter().filter(|hook| wanted(hook)) {
        matrix.taken_away(hook, kernel.clone());
    }
    assert!(matrix.failures.is_empty(), "on Linux {}:\n{}", kernel.release, matrix.failures.join("\n"));
}

impl Matrix<'_> {
    fn forced(&mut self, Forced { setting, kernel, ways }: &Forced) {
        let offered = |way: &&Way| unavailable(way.how, kernel).is_none();
        if ways.iter().any(|way| offered(&way)) {
            let outcome = self.run(kernel, setting);
            ways.iter().filter(offered).for_each(|way| self.told(way.hook, &way.label(), outcome.clone()));
        }
        for way in ways.iter().filter(|way| !offered(way)) {
            let reason = unavailable(way.how, kernel).expect("it is not offered");
            let outcome = self.refused(way, kernel, setting).map(|()| format!("not here: {reason}"));
            self.told(way.hook, &way.label(), outcome);
        }
    }

    /// Takes away one way after another of those that a host would take for a hook.
    fn taken_away(&mut self, hook: &'static Hook, mut kernel: Kernel) {
        loop {
            let Some(how) = self.taken(hook, &kernel) else { return };
            take_away(&mut kernel, how);
            let (plan, next) = (self.plan(&kernel, AUTO), self.taken(hook, &kernel));
            let missing = hook.without.filter(|_| plan.check().is_ok()).unwrap_or("the module cannot run");
            let instead = next.map_or(missing.to_owned(), |how| Way { hook, how }.label());
            let outcome = match plan.check() {
                Ok(()) => self.run(&kernel, AUTO),
                Err(missing) => self.unsupported(&kernel, &missing.to_string()),
            };
            let label = format!("without {}", Way { hook, how }.label());
            self.told(hook, &label, outcome.map(|_| format!("ok: {instead}")));
        }
    }

    /// The way that the plan takes; a program may be in several, for kernels of different versions.
    fn taken(&self, hook: &'static Hook, kernel: &Kernel) -> Option<&'static Alternative> {
        let plan = self.plan(kernel, AUTO);
        hook.alternatives.iter().find(|way| plan.takes(way.program) && unavailable(way, kernel).is_none())
    }

    fn plan(&self, kernel: &Kernel, setting: &str) -> Plan {
        config(self.spec, setting).plan(self.spec, kernel, true)
    }

    fn start(&self, kernel: &Kernel, setting: &str, modules: Vec<&'static str>) -> Sidecar {
        let (config, kernel) = (config(self.spec, setting), Some(kernel.clone()));
        Sidecar::start(Wish { modules, config, kernel, ..Wish::default() })
    }

    /// What the module shows is exact, and it was attached as planned: nothing was replaced in silence.
    fn run(&mut self, kernel: &Kernel, setting: &str) -> Result<String, String> {
        let plan = self.plan(kernel, setting);
        let taken: Vec<_> = programs(self.spec).filter(|program| plan.takes(program)).collect();
        if let Some(outcome) = self.outcomes.get(&taken) {
            return outcome.clone();
        }
        let start = || {
            let sidecar = self.start(kernel, setting, vec![self.spec.name]);
            let report = sidecar.module(self.spec.name);
            assert_eq!(report.hooks, plan.reports(), "{}", report.reason);
            for program in programs(self.spec) {
                let loaded = report.programs.iter().any(|report| report.name == program);
                assert_eq!(loaded, plan.takes(program), "{program}: {}", report.reason);
            }
            assert!(report.reason.contains(&plan.missing()), "{}: {}", report.reason, plan.missing());
            sidecar
        };
        let outcome = caught(|| (self.exact)(&start)).map(|()| "ok".to_owned());
        self.outcomes.insert(taken, outcome.clone());
        outcome
    }

    /// The module does not run, and says why.
    fn unsupported(&self, kernel: &Kernel, reason: &str) -> Result<String, String> {
        caught(|| {
            let report = self.start(kernel, AUTO, vec![self.spec.name, ANOTHER]).module(self.spec.name);
            assert_eq!((report.status, &*report.reason), (Status::Unsupported, reason));
        })
        .map(|()| String::new())
    }

    /// What is said not to be here is not: the kernel refuses it when it is tried all the same.
    fn refused(&self, way: &Way, kernel: &Kernel, setting: &str) -> Result<(), String> {
        let mut believed = kernel.clone();
        pretend(&mut believed, way.how);
        assert!(self.plan(&believed, setting).takes(way.how.program));
        caught(|| {
            let report = self.start(&believed, setting, vec![self.spec.name, ANOTHER]).module(self.spec.name);
            assert_ne!(report.status, Status::Failed, "{}", report.reason);
            assert!(!report.programs.iter().any(|program| program.name == way.how.program), "it is to be had");
        })
    }

    fn told(&mut self, hook: &Hook, way: &str, outcome: Result<String, String>) {
        let result =
            outcome.clone().unwrap_or_else(|failure| format!("FAILED: {}", failure.replace(['\n', '\t'], " ")));
        tell(&["matrix:", self.spec.name, hook.name, way, &result]);
        if let Err(failure) = outcome {
            self.failures.push(format!("{} {} {way}: {failure}", self.spec.name, hook.name));
        }
    }
}

fn caught(action: impl FnOnce()) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(action)).map_err(|panic| text(panic.as_ref()))
}

fn text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a word".to_owned())
}

#[test]
fn tcp() {
    let network = Network::new();
    every_way(&collectors::tcp::SPEC, &|start| seen(|| tcp::what_is_seen_is_exact(&network, start)));
}

#[test]
fn retransmit() {
    let network = Network::new();
    every_way(&collectors::retransmit::SPEC, &|start| seen(|| retransmit::what_is_seen_is_exact(&network, start)));
}

#[test]
fn fadvise() {
    let disk = Disk::new("ext4");
    every_way(&collectors::fadvise::SPEC, &|start| {
        undisturbed(|| {
            let sidecar = start();
            fadvise::calls_count_by_advice_and_error(&sidecar);
            fadvise::pages_count_as_they_go_and_come_back(&sidecar, &disk, 500);
        });
    });
}

#[test]
fn page_cache() {
    let disk = Disk::new("ext4");
    every_way(&collectors::page_cache::SPEC, &|start| {
        undisturbed(|| page_cache::what_is_seen_is_exact(start(), &disk));
    });
}

#[test]
fn reclaim() {
    let for_a_cgroup = |hook: &Hook| hook.name.contains("_memcg_");
    every_way_of(&collectors::reclaim::SPEC, for_a_cgroup, &|start| reclaim::what_is_seen_is_exact(&start()));
}

#[test]
#[ignore = "takes all memory of the machine: for virtual machines"]
fn reclaim_of_the_node() {
    let for_the_node = |hook: &Hook| hook.name.contains("_direct_");
    every_way_of(&collectors::reclaim::SPEC, for_the_node, &|start| reclaim::a_machine_short_of_memory(&start()));
}

#[test]
fn drops() {
    let network = drops::dropping();
    every_way(&collectors::drops::SPEC, &|start| drops::what_is_seen_is_exact(&start(), &network));
}
