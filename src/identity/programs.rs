//! Programs that tell of cgroups: loads, attaches, listens. The one file of this room that deals with libbpf.

use std::io;
use std::mem::{MaybeUninit, offset_of};

use libbpf_rs::skel::{OpenSkel, Skel, SkelBuilder};
use libbpf_rs::{MapHandle, OpenObject};
use typed_arena::Arena;

use super::skel::types::{bss, identity_event, identity_record};
use super::skel::{IdentitySkel, IdentitySkelBuilder};
use crate::bpf::hook::{Alternative, Hook};
use crate::bpf::load::{self, LoadError};
use crate::bpf::object::{self, Attachment};
use crate::bpf::own;
use crate::bpf::plan::{Plan, Terms};
use crate::bpf::traversal::Traversal;
use crate::kernel::{Kernel, LINUX_5_17};
use crate::status::{HookKind, MapReport, ProgramReport};

/// What is listened to. All of it costs only when a cgroup comes or goes, or when the daemon asks.
pub const HOOKS: &[Hook] = &[
    Hook {
        name: "cgroup_mkdir",
        without: Some("containers are looked for when something is counted for them, and may be gone by then"),
        alternatives: &[Alternative::tp_btf("identity_began", "cgroup_mkdir")],
    },
    Hook {
        name: "cgroup_rmdir",
        without: Some("cgroups that are gone take the room of others"),
        alternatives: &[Alternative::tp_btf("identity_ended", "cgroup_rmdir")],
    },
    Hook {
        name: "task",
        without: Some("cgroups from before the daemon are known as far as their hierarchy is mounted"),
        alternatives: &[Alternative::new(HookKind::Iter, LOOK, "task").since(LINUX_5_17)],
    },
];

const LOOK: &str = "identity_look";

/// A look that was cut short goes on so many cgroups earlier: some may have gone meanwhile, and all others moved up.
const OVERLAP: u32 = 64;

/// Looks in a row, if the buffer is too small for all cgroups.
const LOOKS: u32 = 200;

/// Bytes that the names of a cgroup may take; those that take more are not told.
const LONGEST: usize = size_of::<identity_record>() - offset_of!(identity_record, names);

/// Where objects live: there is one for each attempt at loading.
pub type Objects = Arena<MaybeUninit<OpenObject>>;

/// The programs at work.
pub struct Programs<'a> {
    skel: IdentitySkel<'a>,
    attachment: Attachment,
    look: Option<Traversal>,
}

impl<'a> Programs<'a> {
    /// Loads and attaches what this host offers.
    ///
    /// # Errors
    /// If something goes wrong that is no program's fault.
    pub fn load(objects: &'a Objects, kernel: &Kernel) -> Result<Programs<'a>, LoadError> {
        let mut plan = Plan::new(HOOKS, kernel, Terms::default());
        load::load(&mut plan, kernel, |plan| {
            let mut open = IdentitySkelBuilder::default().open(objects.alloc(MaybeUninit::uninit()))?;
            object::autoload(open.open_object_mut(), plan)?;
            let skel = open.load()?;
            let look =
                if plan.takes(LOOK) { Some(Traversal::new(LOOK, skel.progs.identity_look.attach()?)) } else { None };
            let mut attachment = Attachment::new(plan);
            attachment.hold(object::attach(skel.object(), plan)?);
            Ok(Programs { skel, attachment, look })
        })
    }

    /// What the programs have to tell: see [`record`].
    ///
    /// # Errors
    /// If there are no descriptors left.
    pub fn records(&self) -> libbpf_rs::Result<MapHandle> {
        MapHandle::try_from(&self.skel.maps.records)
    }

    /// Has all cgroups told, in pieces that the buffer holds; `told` is to empty it. `false` if this host cannot.
    ///
    /// # Errors
    /// If the kernel ends it early.
    pub fn look(&mut self, told: impl Fn()) -> io::Result<bool> {
        let Some(look) = &mut self.look else { return Ok(false) };
        let mut skip = [0; 2];
        for _ in 0..LOOKS {
            let data = self.skel.maps.bss_data.as_deref_mut().expect("the object has data");
            [data.look_v2.skip, data.look_v1.skip] = skip;
            look.run()?;
            told();
            let data: *const bss = &raw const **self.skel.maps.bss_data.as_ref().expect("the object has data");
            // SAFETY: mapped for as long as the skeleton lives; the program that writes to it has ended.
            let looks = unsafe { [(*data).look_v2, (*data).look_v1] };
            if looks.iter().all(|look| look.more == 0) {
                return Ok(true);
            }
            skip = looks.map(|look| look.seen.saturating_sub(OVERLAP));
        }
        Ok(true)
    }

    /// Whether the memory controller was found in a hierarchy of version 1 by the last look.
    pub fn memory_is_v1(&self) -> bool {
        self.skel.maps.bss_data.as_ref().is_some_and(|data| data.look_v1.seen > 0)
    }

    /// How they are attached, and what this host lacks.
    pub fn plan(&self) -> &Plan {
        &self.attachment.plan
    }

    /// What they have cost.
    pub fn reports(&self) -> Vec<ProgramReport> {
        let look = self.look.iter().map(Traversal::report);
        object::costs(self.skel.object()).into_iter().chain(look).collect()
    }

    /// Their maps.
    pub fn maps(&self) -> Vec<MapReport> {
        let data: *const bss = &raw const **self.skel.maps.bss_data.as_ref().expect("the object has data");
        // SAFETY: mapped for as long as the skeleton lives; some value that it had during the call.
        let full = unsafe { (&raw const (*data).records_full).read_volatile() };
        let bytes = own::map_bytes(&self.skel.maps.records).unwrap_or(0);
        vec![MapReport { name: "records".to_owned(), entries: None, bytes, full: Some(full) }]
    }
}

/// What was told of a cgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its number.
    pub cgroup: u64,
    /// It is gone.
    pub ended: bool,
    /// From the root of its hierarchy; `None` if that is too long.
    pub path: Option<String>,
}

/// Reads what a program wrote. `None` if it is not of this version of ours.
pub fn record(bytes: &[u8]) -> Option<Record> {
    let word = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let cgroup = u64::from_ne_bytes(bytes.get(..8)?.try_into().ok()?);
    let event = word(offset_of!(identity_record, event))?;
    let length = word(offset_of!(identity_record, length))? as usize;
    let names = bytes.get(offset_of!(identity_record, names)..)?;
    let path = if length > LONGEST { None } else { Some(path(names.get(..length)?)) };
    Some(Record { cgroup, ended: event == identity_event::CGROUP_ENDED.0, path })
}

/// Of names that begin with the last one, each with a zero at its end.
fn path(names: &[u8]) -> String {
    let names = names.split_inclusive(|&byte| byte == 0).rev();
    let name = |bytes: &[u8]| format!("/{}", String::from_utf8_lossy(bytes.strip_suffix(&[0]).unwrap_or(bytes)));
    let path: String = names.map(name).collect();
    if path.is_empty() { "/".to_owned() } else { path }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(length: u32, names: &[u8]) -> Vec<u8> {
        [&7u64.to_ne_bytes()[..], &identity_event::CGROUP_ENDED.0.to_ne_bytes(), &length.to_ne_bytes(), names].concat()
    }

    #[test]
    fn a_record_is_as_long_as_its_names() {
        let path = |length, names| record(&bytes(length, names)).map(|record| record.path);
        assert_eq!(
            record(&bytes(11, b"shop.slice\0")),
            Some(Record { cgroup: 7, ended: true, path: Some("/shop.slice".to_owned()) })
        );
        assert_eq!(path(7, b"a\0bc\0d\0and what was here before"), Some(Some("/d/bc/a".to_owned())));
        assert_eq!(path(0, b""), Some(Some("/".to_owned())));
        assert_eq!(path(LONGEST as u32 + 1, b""), Some(None));
        assert_eq!(path(LONGEST as u32, b""), None);
        assert_eq!(record(&bytes(2, b"a\0")[..9]), None);
    }
}
