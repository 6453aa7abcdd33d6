//! Who it is that the kernel knows by a number.

pub mod cgroups;

use std::sync::{Arc, Mutex, PoisonError};

use cgroups::Cgroups;

/// Set in the numbers of cgroups of version 1 (`bpf/include/cgroup.h`).
pub const CGROUP_V1: u64 = 1 << 63;

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

/// What is known of cgroups. Asking takes no longer than a look into memory.
#[derive(Debug, Clone, Default)]
pub struct Identity {
    cgroups: Arc<Mutex<Cgroups>>,
}

impl Identity {
    /// Who works in the cgroup of that number; `None` for what belongs to the host, and as long as nothing is known.
    pub fn workload(&self, _cgroup: u64) -> Option<Arc<Workload>> {
        None
    }

    /// The path within the hierarchy; `/` for the root. `None`: not known, as of a cgroup that was gone before anybody
    /// asked, or is outside of our cgroup namespace.
    pub fn path(&self, cgroup: u64) -> Option<Arc<str>> {
        let mut cgroups = self.cgroups.lock().unwrap_or_else(PoisonError::into_inner);
        cgroups.learn([cgroup & !CGROUP_V1]);
        cgroups.path(cgroup & !CGROUP_V1).map(Arc::from)
    }

    /// Every cgroup that is known by number: its path, and who works in it.
    pub fn known(&self) -> Vec<(u64, Arc<str>, Option<Arc<Workload>>)> {
        Vec::new()
    }

    /// The whole number of a cgroup of the memory controller's hierarchy.
    pub fn of_memory(&self, id: u64) -> u64 {
        if cgroups::memory_is_v1() { id | CGROUP_V1 } else { id }
    }

    /// Grows whenever something else is known of a cgroup than before: what was made of it has to be made anew.
    pub fn generation(&self) -> u64 {
        0
    }
}
