//! Runs the collectors, one after another on one thread, and makes a snapshot of what they find and of how they fare.

mod governor;
mod own;
mod process;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use thiserror::Error;
use tracing::{error, info, warn};

use crate::bpf::load::LoadError;
use crate::bpf::plan::Refusal;
use crate::collectors::{ALL, Collector, Found, LISTS_CONNECTIONS, Objects, Setup, Spec};
use crate::connections::{ListError, Listing, Query};
use crate::histogram::{Bound, Histogram};
use crate::identity::Identity;
use crate::kernel::{Unfit, monotonic_ns};
use crate::sampler::{SampleError, Source};
use crate::snapshot::{Descriptor, Family, Snapshot};
use crate::status::{HookReport, ModuleReport, Status};
use crate::target::{self, Target};
pub use governor::Budget;
use governor::{Governor, Load, Order};

/// What the engine needs beside the collectors' own configuration.
#[derive(Debug, Clone)]
pub struct Options {
    /// Names of the collectors to run.
    pub modules: Vec<String>,
    /// What programs that run when something happens may cost.
    pub budget: Budget,
    /// Name of the node.
    pub node: Arc<str>,
    /// The bucket boundaries that text formats show.
    pub bounds: Arc<[Bound]>,
}

/// Why the engine does not run.
#[derive(Debug, Error)]
pub enum StartError {
    /// Nothing can run on this kernel.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// None of the modules that were asked for runs.
    #[error("no module could be started: {0}")]
    Nothing(String),
    /// The same, because none can here.
    #[error("no module can run on this host: {0}")]
    Unsupported(String),
    /// What is to be watched cannot be.
    #[error(transparent)]
    Target(#[from] target::StartError),
    /// The thread itself failed.
    #[error(transparent)]
    Thread(#[from] SampleError),
}

/// The collectors and what is remembered of them.
pub struct Engine<'a> {
    modules: Vec<Module<'a>>,
    governor: Governor,
    target: Target,
    options: Options,
    identity: Identity,
    sequence: u64,
    started: Instant,
}

/// One collector, running or not.
struct Module<'a> {
    spec: &'static Spec,
    state: State<'a>,
    /// It runs for another one alone, and is not shown.
    needed_by: Option<&'static str>,
    /// Why its programs are detached for now; empty if they are not.
    paused: String,
    /// How often that was so.
    pauses: u64,
    /// How long its collections took.
    durations: Histogram,
}

enum State<'a> {
    Running {
        collector: Box<dyn Collector + 'a>,
        /// Why the last collection came to nothing; empty if it did not.
        failure: String,
    },
    Ended {
        status: Status,
        reason: String,
        /// It would run if it was named.
        declined: bool,
        /// Those that it would have, if that is known.
        hooks: Vec<HookReport>,
    },
}

impl<'a> Engine<'a> {
    /// Starts the collectors that were asked for. One that cannot run leaves the others alone.
    ///
    /// # Errors
    /// [`StartError::Nothing`] or [`StartError::Unsupported`] if none runs.
    pub fn start(setup: &Setup<'_>, objects: &'a Objects, options: Options) -> Result<Engine<'a>, StartError> {
        let modules: Vec<_> = ALL
            .iter()
            .map(|spec| {
                let wanted = |spec: &Spec| options.modules.iter().any(|name| name == spec.name);
                let shown = wanted(spec);
                let needed_by = ALL.iter().find(|other| wanted(other) && other.needs == Some(spec.name));
                let runs = shown || needed_by.is_some();
                let state = if runs { State::start(spec, setup, objects) } else { State::disabled() };
                let needed_by = needed_by.filter(|_| !shown).map(|other| other.name);
                Module { spec, state, needed_by, paused: String::new(), pauses: 0, durations: Histogram::default() }
            })
            .collect();
        let governor = Governor::new(options.budget, modules.len());
        let (identity, target, started) = (setup.identity.clone(), setup.target.clone(), Instant::now());
        let engine = Engine { modules, governor, target, options, identity, sequence: 0, started };
        engine.tally()?;
        Ok(engine)
    }

    /// Whether collections go through network namespaces one by one.
    pub fn enters_namespaces(&self) -> bool {
        self.reports().iter().any(ModuleReport::enters)
    }

    fn reports(&self) -> Vec<ModuleReport> {
        let mut reports: Vec<_> = self.modules.iter().map(Module::report).collect();
        for (index, module) in self.modules.iter().enumerate() {
            let needed = self.modules.iter().find(|other| module.spec.needs == Some(other.spec.name));
            if let Some(Module { spec, state: State::Ended { status, reason, .. }, .. }) = needed
                && reports[index].runs()
            {
                let lack = format!("processes are not known, as {} is {status}: {reason}", spec.name);
                let report = &mut reports[index];
                report.status = Status::Degraded;
                report.reason = if report.reason.is_empty() { lack } else { format!("{lack}; {}", report.reason) };
            }
        }
        reports
    }

    /// One line for each module that was asked for; an error if none of them runs.
    fn tally(&self) -> Result<(), StartError> {
        let mut reasons = Vec::new();
        for module in &self.modules {
            let State::Running { collector, .. } = &module.state else { continue };
            for Refusal { program, reason } in collector.attachment().plan.refusals() {
                warn!(module = module.spec.name, program, reason, "the kernel refuses a program");
            }
        }
        let reports = self.reports();
        for report in &reports {
            for hook in report.hooks.iter().filter(|hook| !hook.tax.is_empty()) {
                warn!(module = report.name, hook = hook.name, "takes {}", hook.tax);
            }
            match report.status {
                Status::Running => info!(module = report.name, "running"),
                Status::Disabled if report.declined => {
                    info!(module = report.name, reason = report.reason, "not running")
                }
                Status::Disabled => (),
                status => {
                    warn!(module = report.name, %status, reason = report.reason, "not running in full");
                    reasons.push(format!("{}: {}", report.name, report.reason));
                }
            }
        }
        let runs = self.modules.iter().any(|module| matches!(module.state, State::Running { .. }));
        let failed = reports.iter().any(|report| report.status == Status::Failed);
        match (runs, failed) {
            (true, _) => Ok(()),
            (false, true) => Err(StartError::Nothing(reasons.join("; "))),
            (false, false) => Err(StartError::Unsupported(reasons.join("; "))),
        }
    }
}

impl Engine<'_> {
    /// Pauses modules whose programs cost more than they may, and lets them go on later.
    fn govern(&mut self) {
        let now_ns = monotonic_ns();
        let loads: Vec<_> = self.modules.iter().enumerate().filter_map(|(index, module)| module.load(index)).collect();
        for order in self.governor.decide(now_ns, &loads) {
            match order {
                Order::Pause { module, percent, rest } => {
                    self.modules[module].pause(percent, rest, self.options.budget)
                }
                Order::Resume { module } if self.modules[module].resume(now_ns) => (),
                Order::Resume { module } => self.governor.postpone(module, now_ns),
            }
        }
    }
}

impl Source for Engine<'_> {
    fn collect(&mut self) -> Snapshot {
        self.target.refresh();
        let mut families = Vec::new();
        for module in &mut self.modules {
            families.extend(module.collect());
        }
        families.retain(|family| !family.samples.is_empty());
        let (modules, helpers) = (self.reports(), vec![self.identity.report()]);
        let reports = modules.iter().chain(&helpers);
        families.extend(own::families(&mut self.modules, reports, &families));
        families.push(own::lookups(&self.identity));
        families.retain(|family| !family.samples.is_empty());
        self.sequence += 1;
        Snapshot {
            sequence: self.sequence,
            taken_at: SystemTime::now(),
            uptime: self.started.elapsed(),
            node: Arc::clone(&self.options.node),
            modules,
            helpers,
            families,
            bounds: Arc::clone(&self.options.bounds),
        }
    }

    fn connections(&mut self, query: &Query) -> Result<Listing, ListError> {
        self.target.refresh();
        let module = self.modules.iter_mut().find(|module| module.spec.name == LISTS_CONNECTIONS);
        let Found { taken_at, live, total, connections } = module.expect("it is among all modules").list(query)?;
        Ok(Listing { node: Arc::clone(&self.options.node), taken_at, live, total, connections })
    }

    fn tick(&mut self) {
        self.target.refresh();
        for module in &mut self.modules {
            module.guarded(|collector| collector.tick(monotonic_ns()));
        }
        self.govern();
    }
}

impl<'a> State<'a> {
    fn start(spec: &Spec, setup: &Setup<'_>, objects: &'a Objects) -> State<'a> {
        match (spec.start)(setup, objects) {
            Ok(collector) => State::Running { collector, failure: String::new() },
            Err(LoadError::Unsupported(missing)) => {
                let status = if missing.declined { Status::Disabled } else { Status::Unsupported };
                let reason = missing.to_string();
                State::Ended { status, reason, declined: missing.declined, hooks: missing.hooks }
            }
            Err(error @ LoadError::Failed { .. }) => {
                // With its sources.
                State::failed(format!("{:#}", anyhow::Error::new(error)))
            }
        }
    }

    fn failed(reason: String) -> State<'a> {
        State::Ended { status: Status::Failed, reason, declined: false, hooks: Vec::new() }
    }

    fn disabled() -> State<'a> {
        let reason = "not among collector.modules".to_owned();
        State::Ended { status: Status::Disabled, reason, declined: false, hooks: Vec::new() }
    }
}

impl<'a> Module<'a> {
    fn collect(&mut self) -> Vec<Family> {
        let before = Instant::now();
        let families = self.guarded(|collector| collector.collect(monotonic_ns()));
        if families.is_some() {
            self.durations.record(before.elapsed().as_micros() as u64);
        }
        families.filter(|_| self.needed_by.is_none()).unwrap_or_default()
    }

    fn list(&mut self, query: &Query) -> Result<Found, ListError> {
        let report = self.report();
        let not_running = |reason| ListError::NotRunning { module: self.spec.name, reason };
        if !report.runs() || !self.paused.is_empty() {
            return Err(not_running(report.reason));
        }
        match self.attempt(|collector| collector.connections(monotonic_ns(), query).transpose()) {
            Some(Ok(Some(found))) => Ok(found),
            Some(Ok(None)) => Err(not_running(report.reason)),
            Some(Err(error)) => Err(ListError::Failed(error.to_string())),
            None => Err(not_running(self.report().reason)),
        }
    }

    /// Lets the collector do something. An error is kept until it succeeds again; after a panic it is done with, as
    /// nobody knows what state it is in.
    fn guarded<T, E: ToString>(&mut self, action: impl FnOnce(&mut (dyn Collector + 'a)) -> Result<T, E>) -> Option<T> {
        let outcome = self.attempt(action)?;
        let State::Running { failure, .. } = &mut self.state else { return None };
        match outcome {
            Ok(value) => {
                failure.clear();
                Some(value)
            }
            Err(error) => {
                *failure = error.to_string();
                warn!(module = self.spec.name, error = *failure, "collection failed");
                None
            }
        }
    }

    /// What the collector makes of it; `None` if it does not run, or panics.
    fn attempt<T>(&mut self, action: impl FnOnce(&mut (dyn Collector + 'a)) -> T) -> Option<T> {
        let State::Running { collector, .. } = &mut self.state else { return None };
        match catch_unwind(AssertUnwindSafe(|| action(collector.as_mut()))) {
            Ok(outcome) => Some(outcome),
            Err(panic) => {
                let reason = format!("it panicked: {}", panic_text(panic.as_ref()));
                error!(module = self.spec.name, reason, "stopped");
                self.state = State::failed(reason);
                None
            }
        }
    }

    /// What its programs have cost that run when something happens; nothing if it does not run.
    fn load(&self, module: usize) -> Option<Load> {
        let State::Running { collector, .. } = &self.state else { return None };
        let programs = collector.programs();
        let run_ns = programs.iter().filter(|program| !program.asked).map(|program| program.run_ns).sum();
        Some(Load { module, rank: self.spec.rank, run_ns })
    }

    fn pause(&mut self, percent: f64, rest: Duration, budget: Budget) {
        let State::Running { collector, .. } = &mut self.state else { return };
        collector.pause();
        self.pauses += 1;
        self.paused = format!(
            "paused for {}: all programs together took {percent:.2} % of a CPU over {}, and may take {} \
             (collector.max_cpu_percent); what happens until then is not counted",
            humantime::format_duration(rest),
            humantime::format_duration(budget.window),
            budget.percent
        );
        warn!(module = self.spec.name, reason = self.paused, "paused");
    }

    /// Whether it could go on.
    fn resume(&mut self, now_ns: u64) -> bool {
        let resumed = self.guarded(|collector| {
            let resumed = collector.resume(now_ns);
            resumed.inspect_err(|_| collector.pause())
        });
        if resumed.is_some() {
            self.paused.clear();
            info!(module = self.spec.name, "goes on");
        }
        resumed.is_some()
    }

    fn report(&self) -> ModuleReport {
        let mut report = ModuleReport {
            name: self.spec.name,
            summary: self.spec.summary,
            status: Status::Running,
            reason: String::new(),
            declined: false,
            hooks: Vec::new(),
            programs: Vec::new(),
            maps: Vec::new(),
        };
        match &self.state {
            State::Running { collector, failure } => {
                report.hooks = collector.attachment().plan.reports();
                report.programs = collector.programs();
                report.maps = collector.maps();
                let missing =
                    if self.paused.is_empty() { collector.attachment().plan.missing() } else { self.paused.clone() };
                report.reason = if failure.is_empty() { missing } else { failure.clone() };
                if !report.reason.is_empty() {
                    report.status = if failure.is_empty() { Status::Degraded } else { Status::Failed };
                }
                if let Some(other) = self.needed_by {
                    report.status = Status::Disabled;
                    report.reason = format!("not among collector.modules; its programs run for {other}");
                }
            }
            State::Ended { status, reason, declined, hooks } => {
                report.hooks = hooks.clone();
                report.status = *status;
                report.reason = reason.clone();
                report.declined = *declined;
            }
        }
        report
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    match panic.downcast_ref::<&str>() {
        Some(text) => text,
        None => panic.downcast_ref::<String>().map_or("without a word", String::as_str),
    }
}

/// Every family that there can be, in the order in which it is shown.
pub fn descriptors() -> impl Iterator<Item = &'static Descriptor> {
    ALL.iter().flat_map(|spec| spec.families.iter().copied()).chain(own::descriptors())
}
