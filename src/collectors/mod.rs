//! The collectors: each a noun with a folder here, a folder in `bpf/`, a section in the configuration and a kernel test.

pub mod drops;
pub mod fadvise;
pub mod labels;
pub mod page_cache;
pub mod reclaim;
pub mod retransmit;
pub mod tcp;

use std::cell::OnceCell;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::time::{Duration, SystemTime};

use libbpf_rs::{MapHandle, Object, OpenObject};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use typed_arena::Arena;

use crate::bpf::hook::{Hook, btf_name, kinds};
use crate::bpf::load::LoadError;
use crate::bpf::object::{self, Attachment};
use crate::bpf::plan::{Only, Plan, Terms};
use crate::connections::{Connection, Query};
use crate::events::Events;
use crate::identity::Identity;
use crate::kernel::{HELPERS, Kernel, LINUX_7_0};
use crate::snapshot::{Descriptor, Family};
use crate::status::{HookKind, MapReport, ProgramReport};
use crate::target::Target;

/// Every collector there is, in the order in which it is shown.
pub const ALL: &[&Spec] =
    &[&tcp::SPEC, &retransmit::SPEC, &fadvise::SPEC, &page_cache::SPEC, &reclaim::SPEC, &drops::SPEC];

/// Names that stand for several collectors.
pub const ALIASES: &[(&str, &[&str])] = &[("memory", &["page-cache", "reclaim"])];

/// Name of the one that lists connections.
pub const LISTS_CONNECTIONS: &str = tcp::SPEC.name;

/// The names of collectors that a list of names stands for. Names that nobody has are kept.
pub fn resolve(names: &[String]) -> Vec<String> {
    let stands_for = |name: &String| match ALIASES.iter().find(|(alias, _)| alias == name) {
        Some((_, several)) => several.iter().map(|&one| one.to_owned()).collect(),
        None => vec![name.clone()],
    };
    names.iter().flat_map(stands_for).collect()
}

/// A section for each collector, owned by it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// TCP connections.
    pub tcp: Section<tcp::Config>,
    /// What is sent again.
    pub retransmit: Section<()>,
    /// Advice on files.
    pub fadvise: Section<fadvise::Config>,
    /// The page cache.
    #[serde(rename = "page-cache")]
    pub page_cache: Section<page_cache::Config>,
    /// Memory reclaim.
    pub reclaim: Section<()>,
    /// Dropped packets.
    pub drops: Section<()>,
}

/// The settings of a collector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Section<T: Default> {
    /// For diagnosis: the one way in which hooks are attached that can be had in several; [`AUTO`] for the cheapest.
    pub hook: String,
    /// Those that no other collector has.
    #[serde(flatten)]
    pub own: T,
}

/// No way is forced.
pub const AUTO: &str = "auto";

impl<T: Default> Default for Section<T> {
    fn default() -> Self {
        Section { hook: AUTO.to_owned(), own: T::default() }
    }
}

/// A value that is not allowed.
#[derive(Debug, PartialEq, Eq)]
pub struct Invalid {
    /// Such as `collector.drops.hook`.
    pub key: String,
    /// What would be.
    pub allowed: String,
}

impl Config {
    /// # Errors
    /// [`Invalid`] for the first way that no hook of its collector has.
    pub fn validate(&self) -> Result<(), Invalid> {
        for spec in ALL {
            let (asked, kinds) = ((spec.asked)(self), kinds(spec.hooks));
            if asked != AUTO && !kinds.contains(&asked) {
                let both = if asked == HookKind::Fexit.as_str() { "; fentry stands for fexit, too" } else { "" };
                let allowed = format!("the hooks of {} can be had as {AUTO}, {}{both}", spec.name, kinds.join(", "));
                return Err(Invalid { key: setting(spec), allowed });
            }
        }
        Ok(())
    }

    /// How the hooks of a collector are to be attached on a host.
    pub fn plan(&self, spec: &Spec, kernel: &Kernel, named: bool) -> Plan {
        let asked = Some((spec.asked)(self)).filter(|asked| *asked != AUTO);
        let only = asked.map(|kind| Only { kind: kind.to_owned(), setting: setting(spec) });
        let wanted = spec.hooks.iter().filter(|hook| self.page_cache.own.wants(hook));
        Plan::new(wanted, kernel, Terms { named, only }).lacking((spec.lacks)(kernel))
    }
}

/// The key of the way that is forced.
fn setting(spec: &Spec) -> String {
    format!("collector.{}.hook", spec.name)
}

/// What a collector is, before it runs.
#[derive(Debug)]
pub struct Spec {
    /// Its noun.
    pub name: &'static str,
    /// One line on what it shows.
    pub summary: &'static str,
    /// What it hangs on.
    pub hooks: &'static [Hook],
    /// The way of attaching them that is asked for in its section.
    pub asked: fn(&Config) -> &str,
    /// Enumerations of the kernel whose names it shows.
    pub enums: &'static [&'static str],
    /// What a kernel cannot tell, however the hooks are attached; empty if that is nothing.
    pub lacks: fn(&Kernel) -> &'static str,
    /// A module whose programs it relies on: that runs along, without being shown, if it was not asked for.
    pub needs: Option<&'static str>,
    /// Modules with lower numbers are paused first when the programs cost more than `collector.max_cpu_percent`.
    pub rank: u8,
    /// What it can show.
    pub families: &'static [&'static Descriptor],
    /// Loads and attaches it; nothing stays attached on error.
    pub start: Start,
}

/// Loads and attaches a collector. What it returns lives as long as the objects.
pub type Start = for<'a> fn(&Setup<'_>, &'a Objects) -> Result<Box<dyn Collector + 'a>, LoadError>;

/// Where BPF objects live: on the stack of the one thread that owns everything BPF.
pub type Objects = Arena<MaybeUninit<OpenObject>>;

/// What a collector may know when it starts.
#[derive(Debug)]
pub struct Setup<'a> {
    /// Whether the operator has named the modules, and so accepts what hooks take from unrelated work.
    pub named: bool,
    /// The host.
    pub kernel: &'a Kernel,
    /// The sections of all collectors; each takes its own.
    pub config: &'a Config,
    /// Bounds that hold for all.
    pub limits: Limits,
    /// Who lives in a cgroup.
    pub identity: Identity,
    /// What is watched.
    pub target: Target,
    /// Where events are offered.
    pub events: Events,
    /// What collectors that start earlier leave for later ones.
    pub shared: Shared,
}

impl Setup<'_> {
    /// How the hooks of a collector are to be attached.
    pub fn plan(&self, spec: &Spec) -> Plan {
        self.config.plan(spec, self.kernel, self.named)
    }
}

/// What the programs of one collector look up in the maps of another.
#[derive(Debug, Default)]
pub struct Shared {
    /// What the tcp module keeps of every socket (`bpf/include/sockets.bpf.h`).
    pub sockets: OnceCell<MapHandle>,
}

impl Shared {
    /// Gives an object the tcp module's map in place of its own. Without that module it keeps its own, which is empty.
    ///
    /// # Errors
    /// If the maps do not match.
    pub fn lend_sockets(&self, object: &mut OpenObject, plan: &Plan) -> libbpf_rs::Result<()> {
        let (made, other) = sockets(plan);
        object::open_map(object, other)?.set_autocreate(false)?;
        match self.sockets.get() {
            Some(sockets) => object::open_map(object, made)?.reuse_fd(sockets.as_fd()),
            None => Ok(()),
        }
    }
}

/// Names of the map that records of sockets are kept in on this kernel, and of the one that is not made.
pub fn sockets(plan: &Plan) -> (&'static str, &'static str) {
    let (stored, by_address) = ("sockets", "sockets_by_address");
    if plan.has_fetch() { (stored, by_address) } else { (by_address, stored) }
}

/// Bounds that hold for all collectors.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most label sets of a family.
    pub max_series: u32,
    /// How long a series stays that nothing happens to.
    pub idle_ttl: Duration,
}

/// A collector that runs. It is dropped to stop it: its programs are then detached.
pub trait Collector {
    /// Reads the kernel's counters. `now_ns` is CLOCK_MONOTONIC. Families without samples are left out by the caller.
    ///
    /// # Errors
    /// If the kernel does not answer; what was collected before stays as it was.
    fn collect(&mut self, now_ns: u64) -> Result<Vec<Family>, CollectError>;

    /// Housekeeping at each interval, after a collection.
    ///
    /// # Errors
    /// As for [`Collector::collect`].
    fn tick(&mut self, now_ns: u64) -> Result<(), CollectError>;

    /// Its programs and maps in the kernel.
    fn object(&self) -> &Object;

    /// How the programs are attached.
    fn attachment(&self) -> &Attachment;

    /// The same, to be changed.
    fn attachment_mut(&mut self) -> &mut Attachment;

    /// Detaches its programs; what they have counted stays. What happens until [`Collector::resume`] is not counted.
    fn pause(&mut self) {
        self.attachment_mut().release();
    }

    /// Ends a pause.
    ///
    /// # Errors
    /// If the kernel refuses; it stays paused.
    fn resume(&mut self, _now_ns: u64) -> Result<(), CollectError> {
        self.reattach()
    }

    /// Attaches its programs again.
    ///
    /// # Errors
    /// If the kernel refuses.
    fn reattach(&mut self) -> Result<(), CollectError> {
        let links = object::attach(self.object(), &self.attachment().plan);
        let links = links.map_err(CollectError::during("attaching the BPF programs again"))?;
        self.attachment_mut().hold(links);
        Ok(())
    }

    /// What its programs have cost.
    fn programs(&self) -> Vec<ProgramReport> {
        object::costs(self.object())
    }

    /// Its maps.
    fn maps(&self) -> Vec<MapReport>;

    /// How often something was counted in `other`, by the families that this concerns.
    fn folded(&self) -> Vec<(&'static Descriptor, u64)>;

    /// Lists live connections. `now_ns` is CLOCK_MONOTONIC. `None` if it knows of none.
    fn connections(&mut self, _now_ns: u64, _query: &Query) -> Option<Result<Found, CollectError>> {
        None
    }

    /// Its totals beside the kernel's own, since start; none if there are none to be compared.
    fn audit(&mut self) -> Vec<Audit> {
        Vec::new()
    }
}

/// Live connections that a collector has found.
#[derive(Debug)]
pub struct Found {
    /// When the sockets were read.
    pub taken_at: SystemTime,
    /// All that are live.
    pub live: u64,
    /// Of these, those that match.
    pub total: u64,
    /// Of these the largest, in order.
    pub connections: Vec<Connection>,
}

/// A total of the kernel and ours for the same thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Audit {
    /// What is counted.
    pub counter: &'static str,
    /// By the kernel.
    pub kernel: u64,
    /// By us.
    pub counted: u64,
}

/// Why a collection came to nothing.
#[derive(Debug, Error)]
#[error("{context}: {source}")]
pub struct CollectError {
    context: &'static str,
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl CollectError {
    /// For `map_err`: says what was being done.
    pub fn during<E>(context: &'static str) -> impl Fn(E) -> CollectError
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        move |source| CollectError { context, source: source.into() }
    }
}

/// What the plans of all collectors ask a kernel's BTF for.
pub fn btf_names() -> Vec<String> {
    let ways = ALL.iter().flat_map(|spec| spec.hooks).flat_map(|hook| hook.alternatives).map(btf_name);
    let enums = ALL.iter().flat_map(|spec| spec.enums).copied().chain([HELPERS, LINUX_7_0.sign]);
    ways.chain(enums.map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collectors_start_after_those_they_need_and_are_paused_one_by_one() {
        for (index, spec) in ALL.iter().enumerate() {
            let earlier = &ALL[..index];
            assert!(spec.needs.is_none_or(|needed| earlier.iter().any(|other| other.name == needed)), "{}", spec.name);
            assert!(earlier.iter().all(|other| other.rank != spec.rank && other.name != spec.name), "{}", spec.name);
        }
    }

    #[test]
    fn aliases_stand_for_collectors() {
        let names: Vec<_> = ALL.iter().map(|spec| spec.name).collect();
        assert!(
            ALIASES
                .iter()
                .all(|(alias, several)| { !names.contains(alias) && several.iter().all(|one| names.contains(one)) })
        );
    }
}
