//! The thread that keeps what is known: it listens to the programs, looks at all cgroups, and has the runtimes asked. They
//! may hang or die: nobody waits for this thread.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use libbpf_rs::{RingBuffer, RingBufferBuilder};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tracing::warn;

use super::follow::follow;
use super::programs::{self, Programs};
use super::runtimes::sources;
use super::store::Pod;
use super::{Config, MISSED, Shared, folders, lock, paths};
use crate::bpf::load::LoadError;
use crate::kernel::Kernel;

/// Time between two looks at all cgroups, where some are asked about that are not known.
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);

/// Starts the thread. It ends when nobody is left to wake it.
pub fn spawn(config: Config, kernel: Kernel, shared: Arc<Shared>, woken: mpsc::Receiver<()>, settled: fn()) {
    let keep = move || {
        let objects = programs::Objects::new();
        let programs = Programs::load(&objects, &kernel);
        settled();
        match runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime.block_on(async { Keeper::new(config, programs, shared).run(woken).await }),
            Err(error) => warn!(%error, "workloads are not known"),
        }
    };
    if let Err(error) = thread::Builder::new().name("identity".to_owned()).spawn(keep) {
        warn!(%error, "workloads are not known");
    }
}

struct Keeper<'a> {
    config: Config,
    shared: Arc<Shared>,
    programs: Option<Programs<'a>>,
    records: Option<Records>,
    /// Tells those who ask runtimes that there is a container without a name.
    arrivals: watch::Sender<()>,
}

impl<'a> Keeper<'a> {
    fn new(config: Config, programs: Result<Programs<'a>, LoadError>, shared: Arc<Shared>) -> Keeper<'a> {
        let arrivals = watch::Sender::new(());
        let listening = programs.and_then(|programs| {
            let records = Records::listen(&programs, &shared, &arrivals).map_err(LoadError::during("listening"))?;
            Ok((programs, records))
        });
        let listening = listening.inspect_err(|error| {
            warn!(%error, "containers are looked for when something is counted for them, and may be gone by then");
            lock(&shared.programs).failure = error.to_string();
        });
        let (programs, records) = listening.ok().unzip();
        Keeper { config, shared, programs, records, arrivals }
    }

    async fn run(mut self, mut woken: mpsc::Receiver<()>) {
        self.look();
        for source in sources(&self.config) {
            tokio::spawn(follow(source, Arc::clone(&self.shared), self.arrivals.subscribe()));
        }
        let mut looked = Instant::now();
        let mut asked = false;
        loop {
            tokio::select! {
                heard = next(self.records.as_ref()) => if let Err(error) = heard {
                    warn!(%error, "new containers are not heard of any more");
                    lock(&self.shared.programs).failure = error.to_string();
                    self.records = None;
                },
                wake = woken.recv() => match wake {
                    Some(()) => asked = true,
                    None => return,
                },
                () = sleep_until(looked + BETWEEN_LOOKS), if asked => {
                    self.look();
                    (looked, asked) = (Instant::now(), false);
                },
            }
            self.note();
        }
    }

    /// Finds the cgroups there are, and among them those that were asked about.
    fn look(&mut self) {
        if !self.ask_the_kernel() {
            let known = |number| self.shared.store().get(number).map(|(path, _)| path.to_string());
            folders::walk(known, |number, path| found(&self.shared, &self.arrivals, number, path));
        }
        self.name_own_pod();
        // What is not found now never will be, but there is no room to remember all of it.
        let mut missed = lock(&self.shared.missed);
        if missed.len() >= MISSED {
            missed.clear();
        }
        drop(missed);
        self.note();
        *lock(&self.shared.looked) = true;
        self.shared.settled.notify_all();
    }

    /// `false` if it cannot tell.
    fn ask_the_kernel(&mut self) -> bool {
        let (Some(programs), Some(records)) = (&mut self.programs, &self.records) else { return false };
        match programs.look(|| records.consume()) {
            Ok(told) => {
                // It may be mounted where we do not see it.
                if programs.memory_is_v1() && !self.shared.memory_is_v1.swap(true, Ordering::Relaxed) {
                    self.shared.changed();
                }
                told
            }
            Err(error) => {
                warn!(%error, "the kernel does not tell which cgroups there are");
                false
            }
        }
    }

    /// In a sidecar nobody else may tell what our own pod is called: all containers in its cgroup are of it.
    fn name_own_pod(&self) {
        if self.config.pod_name.is_empty() {
            return;
        }
        let (name, namespace) = (self.config.pod_name.as_str().into(), self.config.pod_namespace.as_str().into());
        if let Some(uid) = own_pod_uid(&self.shared)
            && self.shared.store_mut().name_pod(&uid, &Pod { name, namespace })
        {
            self.shared.changed();
        }
    }

    /// For reports.
    fn note(&self) {
        if let Some(programs) = &self.programs {
            let mut report = lock(&self.shared.programs);
            report.plan.get_or_insert_with(|| programs.plan().clone());
            (report.programs, report.maps) = (programs.reports(), programs.maps());
        }
    }
}

/// In a namespace of cgroups our own path says nothing; the number of what is mounted there does.
fn own_pod_uid(shared: &Shared) -> Option<String> {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let top = folders::top().and_then(|top| shared.store().get(top).map(|(path, _)| path.to_string()));
    let paths = own.lines().filter_map(|line| line.splitn(3, ':').nth(2)).chain(top.as_deref());
    paths.into_iter().find_map(|path| Some(paths::parse(path).pod_uid?.into_owned()))
}

/// What the programs tell, as it comes.
struct Records {
    ring: RingBuffer<'static>,
    ready: AsyncFd<OwnedFd>,
}

impl Records {
    fn listen(
        programs: &Programs<'_>,
        shared: &Arc<Shared>,
        arrivals: &watch::Sender<()>,
    ) -> libbpf_rs::Result<Records> {
        let (shared, arrivals) = (Arc::clone(shared), arrivals.clone());
        let map = programs.records()?;
        let mut ring = RingBufferBuilder::new();
        ring.add(&map, move |bytes| {
            hear(&shared, &arrivals, bytes);
            0
        })?;
        let fd = map.as_fd().try_clone_to_owned()?;
        // SAFETY: it is ours, and stays open as long as the `AsyncFd` that takes it.
        let ready = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }.map_err(io::Error::from)?;
        Ok(Records { ring: ring.build()?, ready })
    }

    fn consume(&self) {
        // It passes on what `hear` returns, and that is never an error.
        _ = self.ring.consume();
    }
}

/// Waits for records and takes them in; for ever if nobody sends any.
async fn next(records: Option<&Records>) -> io::Result<()> {
    let Some(records) = records else { return std::future::pending().await };
    // First, so that what comes while others are read is waited for no longer.
    records.ready.readable().await?.clear_ready();
    records.consume();
    Ok(())
}

fn hear(shared: &Shared, arrivals: &watch::Sender<()>, bytes: &[u8]) {
    let Some(record) = programs::record(bytes) else { return };
    // Of one that ended nobody may have heard before.
    if let Some(path) = record.path {
        found(shared, arrivals, record.cgroup, &path);
    }
    if record.ended {
        shared.store_mut().end(record.cgroup);
    }
}

fn found(shared: &Shared, arrivals: &watch::Sender<()>, number: u64, path: &str) {
    let unnamed = shared.store_mut().insert(number, path, std::time::Instant::now());
    if lock(&shared.missed).remove(&number) {
        shared.changed();
    }
    if unnamed {
        arrivals.send_replace(());
    }
}
