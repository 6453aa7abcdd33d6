//! The one composer: from the configuration to a daemon that collects and serves, and back to nothing.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::runtime;
use tokio::sync::{oneshot, watch};
use tracing::{error, info, warn};

use crate::collectors::{self, Limits, Objects, Setup, Shared};
use crate::config::Config;
use crate::engine::{Budget, Engine, Options, StartError};
use crate::event_log;
use crate::events::Events;
use crate::histogram::Bound;
use crate::identity::{self, Identity};
use crate::kernel::Kernel;
use crate::privileges;
use crate::sampler::{Pace, Sampler};
use crate::server::{self, BindError, Servers};
use crate::shutdown;
use crate::status::{ModuleReport, Status};
use crate::target::Target;

/// How long a thread may take to end: the collector to let go of its programs, the log to write what there is.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long the first collection may wait for the names of what was there before. It hardly ever does: loading takes longer.
const SETTLE: Duration = Duration::from_secs(1);

/// Threads that serve. They mostly wait; collecting and encoding large pages happen on others.
const SERVING_THREADS: usize = 2;

/// Why the daemon did not start, or ended unasked.
#[derive(Debug, Error)]
pub enum Error {
    /// A listener cannot be had.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Nothing can be collected.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The system refused something basic.
    #[error("{context}")]
    System {
        /// What was being done.
        context: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The connection log cannot be written.
    #[error(transparent)]
    Log(#[from] event_log::StartError),
    /// The collection thread is gone, and with it everything there was to serve.
    #[error("the collection thread ended unexpectedly")]
    CollectorEnded,
}

impl Error {
    /// Whether nothing that was asked for can run on this host.
    pub fn is_unfit(&self) -> bool {
        matches!(self, Error::Start(StartError::Unfit(_) | StartError::Unsupported(_)))
    }

    /// Whether the configuration has to change.
    pub fn is_configuration(&self) -> bool {
        matches!(self, Error::Bind(BindError::File(_)) | Error::Log(event_log::StartError::Open { .. }))
    }
}

/// All that a kernel's BTF is asked for.
pub fn btf_names() -> impl Iterator<Item = String> {
    collectors::btf_names().into_iter().chain(identity::btf_names())
}

/// What each module would use on this host.
pub fn plan(config: &Config, kernel: &Kernel) -> Vec<ModuleReport> {
    let report = |spec: &&'static collectors::Spec| {
        let plan = config.collector.sections.plan(spec, kernel, config.collector.named);
        let wanted = config.collector.modules.iter().any(|name| name == spec.name);
        let check = plan.check();
        let declined = wanted && check.as_ref().is_err_and(|missing| missing.declined);
        let hooks = check.as_ref().map_or_else(|missing| missing.hooks.clone(), |()| plan.reports());
        let (status, reason) = match check {
            _ if !wanted => (Status::Disabled, "not among collector.modules".to_owned()),
            Err(missing) if declined => (Status::Disabled, missing.to_string()),
            Err(missing) => (Status::Unsupported, missing.to_string()),
            Ok(()) if plan.missing().is_empty() => (Status::Running, String::new()),
            Ok(()) => (Status::Degraded, plan.missing()),
        };
        let (name, summary) = (spec.name, spec.summary);
        ModuleReport { name, summary, status, reason, declined, hooks, programs: Vec::new(), maps: Vec::new() }
    };
    collectors::ALL.iter().map(report).collect()
}

/// What those would use that help the modules.
pub fn helpers(kernel: &Kernel) -> Vec<ModuleReport> {
    vec![identity::plan(kernel)]
}

/// Runs until asked to stop.
///
/// # Errors
/// If it cannot start, or the collection thread ends by itself.
pub fn run(config: Config) -> Result<(), Error> {
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(SERVING_THREADS)
        .on_thread_start(privileges::drop_unneeded)
        .enable_all()
        .build()
        .map_err(system("cannot start threads"))?;
    runtime.block_on(serve(config))
}

async fn serve(config: Config) -> Result<(), Error> {
    let asked = shutdown::requested().map_err(system("cannot listen for signals"))?;
    let servers = Servers::bind(&config.server, server::Limits::default()).await?;
    let (http, grpc) = (servers.http_address(), servers.grpc_address());
    let interval = config.collector.interval;
    let (events, log) = (Events::new(&config.node.name), config.events.clone());

    let (ending, mut ended) = oneshot::channel();
    let (sampler, collector) = start_collecting(config, events.clone(), ending)?;
    privileges::drop_unneeded();
    let log = if log.enabled { start_logging(&log, &events)? } else { None };
    info!(%http, %grpc, "serving");

    let (stop, stopped) = watch::channel(false);
    let serving = tokio::spawn(servers.serve(sampler, events.clone(), interval, stopped));
    let outcome = tokio::select! {
        signal = asked => {
            info!(signal, "stopping");
            Ok(())
        }
        _ = &mut ended => Err(Error::CollectorEnded),
    };
    // Nobody listens any more if serving has ended by itself.
    let _ = stop.send(true);
    if let Err(error) = serving.await {
        error!(%error, "serving failed");
    }
    events.end();
    if let Some(log) = log
        && !ends(&log)
    {
        warn!("the connection log cannot be written; giving up on what is left of it");
    }
    detach(collector);
    outcome
}

/// Without the tcp module there is nothing to log; everything else may still be of use.
fn start_logging(config: &event_log::Config, events: &Events) -> Result<Option<JoinHandle<()>>, Error> {
    match event_log::start(config, events) {
        Ok(log) => Ok(Some(log)),
        Err(error @ event_log::StartError::Listen(_)) => {
            warn!(error = %format!("{:#}", anyhow::Error::new(error)), "there is no connection log");
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// Starts the collection thread. `ending` is dropped when it ends, however that comes.
fn start_collecting(
    config: Config,
    events: Events,
    ending: oneshot::Sender<()>,
) -> Result<(Sampler, JoinHandle<()>), StartError> {
    let pace = Pace { freshness: config.collector.freshness, interval: config.collector.interval };
    Sampler::spawn(pace, move |serve| {
        let _ending = ending;
        let kernel = Kernel::probe(btf_names());
        kernel.fit()?;
        let limits = Limits { max_series: config.metrics.max_series, idle_ttl: config.metrics.idle_ttl };
        let identity = Identity::start(&config.identity, &kernel, privileges::drop_unneeded);
        let target = Target::start(&config.target, &identity)?;
        let setup = Setup {
            named: config.collector.named,
            kernel: &kernel,
            config: &config.collector.sections,
            limits,
            identity,
            target,
            events,
            shared: Shared::default(),
        };
        let bounds = config.metrics.histogram_buckets.iter().map(|&seconds| Bound::new(seconds));
        let options = Options {
            modules: config.collector.modules.clone(),
            budget: Budget {
                percent: config.collector.max_cpu_percent,
                // It is looked at once in an interval.
                window: config.collector.max_cpu_window.max(config.collector.interval),
            },
            node: Arc::from(config.node.name.as_str()),
            bounds: bounds.collect::<Result<_, _>>().expect("the configuration was checked"),
        };
        let objects = Objects::new();
        let mut engine = Engine::start(&setup, &objects, options)?;
        setup.identity.settle(SETTLE);
        if engine.enters_namespaces() {
            privileges::drop_unneeded_but_entering();
        } else {
            privileges::drop_unneeded();
        }
        serve(&mut engine);
        Ok(())
    })
}

/// Waits for the programs to be detached. The kernel does it anyway when the process ends.
fn detach(collector: JoinHandle<()>) {
    if ends(&collector) {
        info!("stopped");
    } else {
        warn!("a collection hangs; leaving it to the kernel to detach the programs");
    }
}

/// Waits for a thread, within bounds.
fn ends(thread: &JoinHandle<()>) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while !thread.is_finished() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(2));
    }
    thread.is_finished()
}

fn system(context: &'static str) -> impl Fn(io::Error) -> Error {
    move |source| Error::System { context, source }
}
