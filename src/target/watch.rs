//! Telling the kernel what is watched, and keeping it told.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::rc::Rc;

use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{Link, MapCore, MapFlags, MapHandle, OpenObject};
use thiserror::Error;
use tracing::{info, warn};

use super::config::{Config, comm};
use super::location::{Location, Nowhere};
use super::skel::TargetSkelBuilder;
use super::skel::types::{target_kind, target_kinds, target_value, workload_state};
use super::workload::is_watched;
use crate::bpf::object;
use crate::bpf::plain::Plain;
use crate::identity::{Identity, Workload};

/// The constants in every object that say what is asked for.
const KINDS: &str = ".rodata.target";

/// The maps in every object, which they share.
const VALUES: &str = "target_values";
const CGROUP: &str = "target_cgroup";
const WORKLOADS: &str = "workloads";

/// The key of the only element of an array.
const FIRST: [u8; 4] = [0; 4];

/// More decisions than this are not remembered, but made again.
const MOST_DECISIONS: usize = 1 << 15;

// SAFETY: generated from a C struct of bytes.
unsafe impl Plain for target_kinds {}
// SAFETY: generated from a C struct of integers without padding.
unsafe impl Plain for target_value {}

/// Why nothing is watched.
#[derive(Debug, Error)]
pub enum StartError {
    /// The cgroup was there when the configuration was read.
    #[error("target.cgroup: {0}")]
    Cgroup(#[from] Nowhere),
    /// It does not take what it is told.
    #[error("telling the kernel what to watch: {0}")]
    Kernel(#[from] libbpf_rs::Error),
}

/// What is watched: by default everything, and that costs nothing. All of its copies are one.
#[derive(Debug, Clone, Default)]
pub struct Target {
    some: Option<Rc<Watched>>,
}

#[derive(Debug)]
struct Watched {
    config: Config,
    kinds: target_kinds,
    values: MapHandle,
    cgroup: MapHandle,
    workloads: MapHandle,
    /// Where the cgroup is that is watched, and which one is there as far as we know.
    followed: Option<(Location, Cell<Option<u64>>)>,
    /// Has the kernel follow it by itself.
    _link: Option<Link>,
    identity: Identity,
    decisions: RefCell<HashMap<u64, bool>>,
    /// Of what is known of cgroups, as of the decisions.
    generation: Cell<Option<u64>>,
}

impl Target {
    /// Tells the kernel, before any collector starts.
    ///
    /// # Errors
    /// If it does not take it, or the cgroup is gone.
    pub fn start(config: &Config, identity: &Identity) -> Result<Target, StartError> {
        if config.is_empty() {
            return Ok(Target::default());
        }
        let cgroup = (!config.cgroup.is_empty()).then(|| Location::find(&config.cgroup)).transpose()?;
        let watched = match Watched::load(config, identity, cgroup.clone(), cgroup.is_some()) {
            Err(error) if cgroup.is_some() => {
                warn!(%error, "the kernel does not tell when cgroups are made: the watched one is looked for instead");
                Watched::load(config, identity, cgroup, false)?
            }
            loaded => loaded?,
        };
        info!(only = %config, "watching");
        Ok(Target { some: Some(Rc::new(watched)) })
    }

    /// Whether everything is watched.
    pub fn is_everything(&self) -> bool {
        self.some.is_none()
    }

    /// Whether it takes a process to be watched, so that what belongs to none is not.
    pub fn is_by_process(&self) -> bool {
        self.some.as_ref().is_some_and(|watched| watched.config.by_process())
    }

    /// Tells an object that is not loaded yet, if it has programs that ask.
    ///
    /// # Errors
    /// If the object is not made for that.
    pub fn lend(&self, object: &mut OpenObject) -> libbpf_rs::Result<()> {
        let Some(watched) = &self.some else {
            return [VALUES, CGROUP, WORKLOADS]
                .iter()
                .try_for_each(|name| object::open_map(object, name)?.set_autocreate(false));
        };
        object::open_map(object, KINDS)?.set_initial_value(watched.kinds.as_bytes())?;
        let maps = [(VALUES, &watched.values), (CGROUP, &watched.cgroup), (WORKLOADS, &watched.workloads)];
        maps.iter().try_for_each(|(name, map)| object::open_map(object, name)?.reuse_fd(map.as_fd()))
    }

    /// Whether what was counted of a cgroup is to be shown: not as long as it is not known to be watched.
    fn shows(&self, cgroup: u64) -> bool {
        match &self.some {
            Some(watched) if watched.config.by_workload() => watched.decide(cgroup) == Some(true),
            _ => true,
        }
    }

    /// The name of a slot in which something of a cgroup was counted, if that is to be shown. Slot 0 is of all cgroups.
    pub fn name<T>(&self, slot: u32, cgroup: u64, name: impl FnOnce() -> T) -> Option<T> {
        (slot == 0 || self.shows(cgroup)).then(name)
    }

    /// Whether it takes a container to be watched: the kernel then tells also of those that turn out not to be.
    pub fn is_by_workload(&self) -> bool {
        self.some.as_ref().is_some_and(|watched| watched.config.by_workload())
    }

    /// Whether what happened in a workload is to be told, as far as that is known by then: for other threads.
    pub fn judge(&self) -> impl Fn(Option<&Workload>) -> bool + Send + Sync + use<> {
        let config = self.some.as_ref().filter(|_| self.is_by_workload()).map(|watched| watched.config.clone());
        move |workload| config.as_ref().is_none_or(|config| is_watched(config, workload, true) == Some(true))
    }

    /// Takes notice of cgroups that have come since last time, and of what has become known of others.
    pub fn refresh(&self) {
        if let Some(watched) = &self.some {
            watched.follow();
            watched.decide_anew();
        }
    }
}

impl Watched {
    fn load(
        config: &Config,
        identity: &Identity,
        cgroup: Option<Location>,
        told: bool,
    ) -> Result<Watched, libbpf_rs::Error> {
        let mut place = MaybeUninit::uninit();
        let mut open = TargetSkelBuilder::default().open(&mut place)?;
        let kinds = kinds(config, cgroup.as_ref());
        if let Some(cgroup) = &cgroup {
            let path = &mut open.maps.rodata_data.as_deref_mut().expect("the object has read-only data").target_path;
            path.iter_mut().zip(cgroup.path.bytes()).for_each(|(to, byte)| *to = byte as _);
        }
        open.progs.target_cgroup_made.set_autoload(told);
        open.maps.made.set_autocreate(told)?;
        let values = values(config);
        let object = open.open_object_mut();
        object::open_map(object, KINDS)?.set_initial_value(kinds.as_bytes())?;
        object::open_map(object, VALUES)?.set_max_entries(values.len().max(1) as u32)?;
        if !config.by_workload() {
            object::open_map(object, WORKLOADS)?.set_max_entries(1)?;
        }
        let skel = open.load()?;
        let link = told.then(|| skel.progs.target_cgroup_made.attach()).transpose()?;
        let watched = Watched {
            config: config.clone(),
            kinds,
            values: MapHandle::try_from(&skel.maps.target_values)?,
            cgroup: MapHandle::try_from(&skel.maps.target_cgroup)?,
            workloads: MapHandle::try_from(&skel.maps.workloads)?,
            followed: cgroup.map(|cgroup| (cgroup, Cell::new(None))),
            _link: link,
            identity: identity.clone(),
            decisions: RefCell::default(),
            generation: Cell::new(None),
        };
        for value in values {
            watched.values.update(value.as_bytes(), &[1], MapFlags::ANY)?;
        }
        watched.follow();
        Ok(watched)
    }

    /// The kernel knows of another cgroup under the path by itself, and sooner; unless it calls the path otherwise than we
    /// do, as where we live in a cgroup namespace.
    fn follow(&self) {
        let Some((location, known)) = &self.followed else { return };
        let Some(id) = location.id().filter(|id| known.get() != Some(*id)) else { return };
        match self.cgroup.update(&FIRST, id.as_bytes(), MapFlags::ANY) {
            Ok(()) => known.set(Some(id)),
            Err(error) => warn!(%error, "the watched cgroup is not followed"),
        }
    }

    /// Whether the workload of a cgroup is watched; `None` as long as too little is known of it.
    fn decide(&self, cgroup: u64) -> Option<bool> {
        let known = self.decisions.borrow().get(&cgroup).copied();
        known.or_else(|| {
            let decision = self.judge(cgroup)?;
            self.remember(cgroup, decision);
            Some(decision)
        })
    }

    fn judge(&self, cgroup: u64) -> Option<bool> {
        let workload = self.identity.workload(cgroup);
        let seen = workload.is_some() || self.identity.path(cgroup).is_some();
        is_watched(&self.config, workload.as_deref(), seen)
    }

    fn remember(&self, cgroup: u64, decision: bool) {
        let state = if decision { workload_state::WORKLOAD_WATCHED } else { workload_state::WORKLOAD_IGNORED };
        if let Err(error) = self.workloads.update(cgroup.as_bytes(), &[state.0 as u8], MapFlags::ANY) {
            warn!(%error, cgroup, "the kernel goes on counting what is not shown");
        }
        let mut decisions = self.decisions.borrow_mut();
        if decisions.len() >= MOST_DECISIONS {
            decisions.clear();
        }
        decisions.insert(cgroup, decision);
    }

    /// Decides what can be decided by now, so that the kernel need not count what is not watched. Should a cgroup not be
    /// what it was taken for, what comes from now on is counted, or not.
    fn decide_anew(&self) {
        let generation = Some(self.identity.generation());
        if !self.config.by_workload() || self.generation.replace(generation) == generation {
            return;
        }
        for (cgroup, _, workload) in self.identity.known() {
            let decision = is_watched(&self.config, workload.as_deref(), true);
            let before = self.decisions.borrow().get(&cgroup).copied();
            if let Some(now) = decision.filter(|now| before != Some(*now)) {
                self.remember(cgroup, now);
            }
        }
    }
}

fn kinds(config: &Config, cgroup: Option<&Location>) -> target_kinds {
    target_kinds {
        pids: (!config.pids.is_empty()).into(),
        descendants: config.descendants.into(),
        comms: (!config.comms.is_empty()).into(),
        ports: (!config.ports.is_empty()).into(),
        cgroup: cgroup.is_some().into(),
        cgroup_v1: cgroup.is_some_and(|cgroup| cgroup.v1).into(),
        workloads: config.by_workload().into(),
        pad: 0,
    }
}

fn values(config: &Config) -> Vec<target_value> {
    let number = |kind: target_kind, number: u64| target_value { kind: kind.0.into(), value: [number, 0] };
    let name = |name: &String| {
        let comm = comm(name);
        let half = |at: usize| u64::from_ne_bytes(comm[at..at + 8].try_into().expect("half of sixteen bytes"));
        target_value { kind: target_kind::TARGET_COMM.0.into(), value: [half(0), half(8)] }
    };
    let pids = config.pids.iter().map(|&pid| number(target_kind::TARGET_PID, pid.into()));
    let ports = config.ports.iter().map(|&port| number(target_kind::TARGET_PORT, port.into()));
    pids.chain(ports).chain(config.comms.iter().map(name)).collect()
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.some {
            Some(watched) => watched.config.fmt(f),
            None => f.write_str("everything"),
        }
    }
}
