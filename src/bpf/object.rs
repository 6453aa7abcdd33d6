//! What is the same for the object of every collector: loading what the plan takes, attaching it, and finding its maps.

use std::io::{Error, ErrorKind};
use std::mem::size_of;
use std::os::fd::AsFd;

use libbpf_rs::{
    Link, Map, MapCore, MapFlags, MapHandle, Object, OpenMapMut, OpenObject, ProgramAttachType, ProgramMut,
};

use super::instructions;
use super::own;
use super::plain::{Plain, from_bytes};
use super::plan::Plan;
use super::tracepoint;
use crate::status::ProgramReport;

/// Has the programs loaded that the plan takes, and no others; nor the maps in which those would time themselves. Makes
/// them fit for the kernel.
///
/// # Errors
/// If there is no memory.
pub fn autoload(object: &mut OpenObject, plan: &Plan) -> libbpf_rs::Result<()> {
    for mut program in object.progs_mut() {
        let taken = program.name().to_str().is_some_and(|name| plan.takes(name));
        program.set_autoload(taken);
        if taken {
            instructions::fit(&mut program, plan.has_fetch(), plan.cast())?;
        }
    }
    for mut map in object.maps_mut() {
        if let Some(program) = map.name().to_str().and_then(|name| name.strip_suffix("_cost"))
            && !plan.takes(program)
        {
            map.set_autocreate(false).expect("the object is not loaded yet");
        }
    }
    Ok(())
}

/// How the programs of an object hang on the kernel.
#[derive(Debug)]
pub struct Attachment {
    /// By which they are attached.
    pub plan: Plan,
    /// Dropping them detaches.
    links: Vec<Link>,
}

impl Attachment {
    /// Nothing is attached yet.
    pub fn new(plan: &Plan) -> Attachment {
        Attachment { plan: plan.clone(), links: Vec::new() }
    }

    /// Takes the links that [`attach`] made.
    pub fn hold(&mut self, links: Vec<Link>) {
        self.links = links;
    }

    /// Detaches what is attached.
    pub fn release(&mut self) {
        self.links.clear();
    }
}

/// Attaches the programs that the plan takes, but for iterators, which are run. Dropping the links detaches them.
///
/// # Errors
/// For the first that cannot be attached; none is attached then.
pub fn attach(object: &Object, plan: &Plan) -> libbpf_rs::Result<Vec<Link>> {
    let taken = object.progs_mut().filter(|program| program.name().to_str().is_some_and(|name| plan.takes(name)));
    let events = taken.filter(|program| !is_iterator(program));
    events.map(|program| attach_one(&program, plan)).collect()
}

fn attach_one(program: &ProgramMut<'_>, plan: &Plan) -> libbpf_rs::Result<Link> {
    match program.name().to_str().and_then(|name| plan.number(name)) {
        Some(number) => tracepoint::attach(program, number),
        None => program.attach(),
    }
}

fn is_iterator(program: &ProgramMut<'_>) -> bool {
    matches!(program.attach_type(), ProgramAttachType::TraceIter)
}

/// A map of an object that is not loaded yet.
///
/// # Errors
/// If it has no such map.
pub fn open_map<'a>(object: &'a mut OpenObject, name: &str) -> libbpf_rs::Result<OpenMapMut<'a>> {
    object.maps_mut().find(|map| map.name() == name).ok_or_else(|| nothing("map", name))
}

/// A map of a loaded object.
///
/// # Errors
/// If it has no such map, or there are no descriptors left.
pub fn map(object: &Object, name: &str) -> libbpf_rs::Result<MapHandle> {
    MapHandle::try_from(&find(object, name).ok_or_else(|| nothing("map", name))?)
}

/// A program of a loaded object.
///
/// # Errors
/// If it has no such program.
pub fn program<'a>(object: &'a Object, name: &str) -> libbpf_rs::Result<ProgramMut<'a>> {
    object.progs_mut().find(|program| program.name() == name).ok_or_else(|| nothing("program", name))
}

fn find<'a>(object: &'a Object, name: &str) -> Option<Map<'a>> {
    object.maps().find(|map| map.name() == name)
}

fn nothing(kind: &str, name: &str) -> libbpf_rs::Error {
    Error::new(ErrorKind::NotFound, format!("the object has no {kind} {name}")).into()
}

/// What the programs cost that time themselves: those with a map called like them (`COST` of `bpf/include/cost.bpf.h`).
pub fn costs(object: &Object) -> Vec<ProgramReport> {
    let report = |program: libbpf_rs::Program<'_>| {
        let name = program.name().to_str()?.to_owned();
        let map = program.autoload().then(|| find(object, &format!("{name}_cost")))??;
        let per_cpu = map.lookup_percpu(&[0; size_of::<u32>()], MapFlags::ANY).ok()??;
        let cpus = per_cpu.iter().map(|bytes| from_bytes::<Cost>(bytes));
        let (runs, run_ns) = cpus.fold((0, 0), |sum, cpu| (sum.0 + cpu.runs, sum.1 + cpu.ns));
        Some(ProgramReport { name, asked: false, runs, run_ns, missed: own::missed_runs(program.as_fd()) })
    };
    object.progs().filter_map(report).collect()
}

/// `struct cost`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct Cost {
    runs: u64,
    ns: u64,
    until: u64,
}

// SAFETY: as it stands here.
unsafe impl Plain for Cost {}

/// The sums over all CPUs of an element of a per-CPU array that has nothing but words of 64 bits.
pub fn sum_of_cpus<const N: usize>(map: &impl MapCore, key: u32) -> [u64; N] {
    let mut sums = [0; N];
    let per_cpu = map.lookup_percpu(&key.to_ne_bytes(), MapFlags::ANY).ok().flatten();
    for bytes in per_cpu.iter().flatten() {
        for (sum, word) in sums.iter_mut().zip(bytes.chunks_exact(size_of::<u64>())) {
            *sum += from_bytes::<u64>(word);
        }
    }
    sums
}
