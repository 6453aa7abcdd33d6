//! Who it is that the kernel knows by the number of a cgroup.
//!
//! ```text
//! cgroup_mkdir, cgroup_rmdir --programs--> number, path --paths--> id, pod, service --+
//! a look at all cgroups -------^                                                      store --> Identity --> collectors
//! CRI, Docker, containerd, podman --runtimes--> names of ids -------------------------+
//! ```
//!
//! One thread keeps the `store`; whoever asks looks into memory, and is never kept waiting by a runtime. Cgroups
//! are known from the moment when they are made, before the first process is in them, and stay known when they are gone.

mod config;
mod folders;
mod follow;
mod keeper;
mod paths;
mod programs;
mod runtimes;
mod skel;
mod store;

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use tokio::sync::mpsc;

pub use config::Config;

use crate::bpf::hook::btf_name;
use crate::bpf::plan::{Plan, Terms};
use crate::kernel::Kernel;
use crate::status::{MapReport, ModuleReport, ProgramReport, Status};
use runtimes::Kind;
use store::Store;

/// Set in the numbers of cgroups of version 1 (`bpf/include/cgroup.h`).
pub const CGROUP_V1: u64 = 1 << 63;

/// Numbers of unknown cgroups that are remembered, so that each is looked for once.
const MISSED: usize = 1 << 12;

/// Who works in a cgroup. What is not known is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Workload {
    /// The whole id that its runtime gave the container.
    pub container_id: Box<str>,
    /// Name of the container; its id as long as nobody has told a name.
    pub container: Box<str>,
    /// Name of its pod.
    pub pod: Box<str>,
    /// The pod's namespace.
    pub namespace: Box<str>,
    /// What it was made of.
    pub image: Box<str>,
    /// Unit of systemd, such as `nginx.service`, of what is in no container.
    pub service: Box<str>,
}

/// What is known of cgroups. Asking takes no longer than a look into memory. The default knows nothing, and learns nothing.
#[derive(Debug, Clone, Default)]
pub struct Identity {
    shared: Arc<Shared>,
    /// Has the keeper look for what is not known; it ends when nobody is left who could ask.
    wake: Option<mpsc::Sender<()>>,
}

/// What those who ask share with the keeper.
#[derive(Debug, Default)]
struct Shared {
    store: RwLock<Store>,
    missed: Mutex<HashSet<u64>>,
    generation: AtomicU64,
    memory_is_v1: AtomicBool,
    /// Whether there has been a look at all cgroups.
    looked: Mutex<bool>,
    settled: Condvar,
    programs: Mutex<Report>,
    lookups: Mutex<BTreeMap<(Kind, Outcome), u64>>,
    /// Sources that are there and do not answer, with the reason.
    silent: Mutex<BTreeMap<String, String>>,
}

/// How the programs fare.
#[derive(Debug, Default)]
struct Report {
    plan: Option<Plan>,
    /// Why they do not run; empty if they do.
    failure: String,
    programs: Vec<ProgramReport>,
    maps: Vec<MapReport>,
}

/// What came of asking a runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Answered,
    Failed,
}

impl Identity {
    /// Starts the keeper. `settled` is called on its thread once everything is attached.
    pub fn start(config: &Config, kernel: &Kernel, settled: fn()) -> Identity {
        let (wake, woken) = mpsc::channel(1);
        let shared = Arc::<Shared>::default();
        shared.memory_is_v1.store(folders::memory_is_v1(), Ordering::Relaxed);
        keeper::spawn(config.clone(), kernel.clone(), Arc::clone(&shared), woken, settled);
        Identity { shared, wake: Some(wake) }
    }

    /// Waits until the cgroups are known that were there before us, for so long at most: what is shown first has its names.
    pub fn settle(&self, most: Duration) {
        if self.wake.is_none() {
            return;
        }
        let looked = lock(&self.shared.looked);
        let wait = self.shared.settled.wait_timeout_while(looked, most, |looked| !*looked);
        drop(wait.unwrap_or_else(PoisonError::into_inner));
    }

    /// Who works in the cgroup of that number; `None` for what belongs to the host, and as long as nothing is known.
    pub fn workload(&self, cgroup: u64) -> Option<Arc<Workload>> {
        self.known_of(cgroup, |_, workload| workload.clone())?
    }

    /// The path within its hierarchy, as `/proc/<pid>/cgroup` has it on the host; `/` for the root. `None`: not known, as
    /// of a cgroup that was gone before anybody asked.
    pub fn path(&self, cgroup: u64) -> Option<Arc<str>> {
        self.known_of(cgroup, |path, _| Arc::clone(path))
    }

    /// The whole number of a cgroup of the memory controller's hierarchy.
    pub fn of_memory(&self, id: u64) -> u64 {
        if self.shared.memory_is_v1.load(Ordering::Relaxed) { id | CGROUP_V1 } else { id }
    }

    /// Grows whenever something else is known of a cgroup than before: what was made of it has to be made anew.
    pub fn generation(&self) -> u64 {
        self.shared.generation.load(Ordering::Acquire)
    }

    /// Everything that is known: numbers, paths, and who works there.
    pub fn known(&self) -> Vec<(u64, Arc<str>, Option<Arc<Workload>>)> {
        let store = self.shared.store();
        store.all().map(|(number, path, workload)| (number, Arc::clone(path), workload.clone())).collect()
    }

    /// Its own state, in the form of that of a module.
    pub fn report(&self) -> ModuleReport {
        let ended = self.wake.as_ref().is_some_and(mpsc::Sender::is_closed);
        let refused = self.shared.store().refused;
        let programs = lock(&self.shared.programs);
        let mut reasons = vec![programs.failure.clone(), programs.plan.as_ref().map(Plan::missing).unwrap_or_default()];
        if ended {
            reasons.push("it ended unexpectedly; what was known stays".to_owned());
        }
        if refused > 0 {
            reasons.push(format!("{refused} cgroups found no room"));
        }
        reasons.extend(lock(&self.shared.silent).iter().map(|(source, reason)| format!("{source}: {reason}")));
        reasons.retain(|reason| !reason.is_empty());
        ModuleReport {
            name: "identity",
            summary: "Who works in a cgroup: container, pod, namespace or service",
            status: match reasons[..] {
                _ if ended => Status::Failed,
                [] => Status::Running,
                _ => Status::Degraded,
            },
            reason: reasons.join("; "),
            declined: false,
            hooks: programs.plan.as_ref().map(Plan::reports).unwrap_or_default(),
            programs: programs.programs.clone(),
            maps: programs.maps.clone(),
        }
    }

    /// How often runtimes were asked, by source and outcome.
    pub fn lookups(&self) -> Vec<(&'static str, &'static str, u64)> {
        let lookups = lock(&self.shared.lookups);
        lookups.iter().map(|((kind, outcome), count)| (kind.as_str(), outcome.as_str(), *count)).collect()
    }

    fn known_of<T>(&self, cgroup: u64, of: impl Fn(&Arc<str>, &Option<Arc<Workload>>) -> T) -> Option<T> {
        if let Some((path, workload)) = self.shared.store().get(cgroup) {
            return Some(of(path, workload));
        }
        self.miss(cgroup);
        None
    }

    /// Has an unknown cgroup looked for, once.
    fn miss(&self, cgroup: u64) {
        let mut missed = lock(&self.shared.missed);
        if cgroup == 0 || missed.len() >= MISSED || !missed.insert(cgroup) {
            return;
        }
        drop(missed);
        if self.shared.store().contains(cgroup) {
            // It became known since we looked. Who removes it says so, be it the keeper or we.
            if lock(&self.shared.missed).remove(&cgroup) {
                self.shared.changed();
            }
        } else if let Some(wake) = &self.wake {
            // If it is full, the keeper is about to look anyway.
            _ = wake.try_send(());
        }
    }
}

impl Shared {
    fn store(&self) -> RwLockReadGuard<'_, Store> {
        self.store.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn store_mut(&self) -> RwLockWriteGuard<'_, Store> {
        self.store.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was shown of some cgroup no longer holds.
    fn changed(&self) {
        self.generation.fetch_add(1, Ordering::Release);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Outcome {
    fn as_str(self) -> &'static str {
        match self {
            Outcome::Answered => "answered",
            Outcome::Failed => "failed",
        }
    }
}

/// What it would use on this host.
pub fn plan(kernel: &Kernel) -> ModuleReport {
    let identity = Identity::default();
    lock(&identity.shared.programs).plan = Some(Plan::new(programs::HOOKS, kernel, Terms::default()));
    identity.report()
}

/// What this room asks a kernel's BTF for.
pub fn btf_names() -> Vec<String> {
    programs::HOOKS.iter().flat_map(|hook| hook.alternatives).map(btf_name).collect()
}
