//! Facts about the host, probed once. Facts only: what follows from them is decided elsewhere. `None` means that it
//! could not be told, which is not the same as no.

mod cast;
mod fentry;
mod kprobes;
mod perf;
mod tracefs;
mod trial;

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use libbpf_rs::btf::types::{Enum, FuncProto, Ptr, Typedef};
use libbpf_rs::btf::{Btf, BtfKind, BtfType, ReferencesType};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use nix::sys::utsname::uname;
use nix::time::{ClockId, clock_getres, clock_gettime};
use thiserror::Error;

/// Types of the running kernel, if it was built with them.
const BTF: &str = "/sys/kernel/btf/vmlinux";

/// Where security modules speak; empty if securityfs is not mounted.
const SECURITY: &str = "/sys/kernel/security";

/// What is known of the running kernel and its host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kernel {
    /// As `uname -r` says.
    pub release: String,
    /// Whether the kernel tells its types.
    pub btf: Option<bool>,
    /// How much the kernel hides from root.
    pub lockdown: Option<Lockdown>,
    /// What manages processes in groups.
    pub cgroup: Option<Cgroup>,
    /// Whether tracefs can be read, without which there are no classic tracepoints: it is mounted, or we may mount it.
    pub tracefs: Option<bool>,
    /// Whether the kernel can put probes into its functions.
    pub kprobes: Option<bool>,
    /// Whether we may have events of perf, through which probes and classic tracepoints run programs.
    pub perf_events: Option<bool>,
    /// Whether BPF programs may hang on functions, through a trampoline.
    pub fentry: Option<bool>,
    /// Number of the kernel's function `bpf_rdonly_cast`, if programs may call it.
    pub cast: Option<u32>,
    /// Bytes of locked memory that a process may have which does not hold `CAP_SYS_RESOURCE`, where maps count as such;
    /// `None` where they do not, or there is no bound.
    pub map_memory: Option<u64>,
    /// Length of a kernel tick (1 / CONFIG_HZ).
    pub tick_ns: u64,
    /// Those of the wanted tracepoints, iterators and functions that BTF has; of a tracepoint, how many arguments it has.
    pub names: BTreeMap<String, usize>,
    /// Those of the wanted classic tracepoints that there are, with their numbers.
    pub numbers: BTreeMap<String, u32>,
    /// Those of the wanted enumerations that BTF has: values and their names.
    pub enums: BTreeMap<String, Vec<(u32, String)>>,
    /// Why BTF cannot be read, if that is so.
    pub btf_error: Option<String>,
}

/// A version of Linux, by what tells it from earlier ones: distributions bring back what is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    /// As in 5.12.
    pub number: &'static str,
    /// What came with it: a helper of BPF, as it is called in `enum bpf_func_id`, or a function of the kernel.
    pub sign: &'static str,
}

/// Atomic operations with a result, and what tracing programs learned in 5.11: see `has_fetch()` of
/// bpf/include/compat.bpf.h.
pub const LINUX_WITH_FETCH: Version = if cfg!(target_arch = "aarch64") {
    Version { number: "5.18", sign: "BPF_FUNC_copy_from_user_task" }
} else {
    Version { number: "5.12", sign: "BPF_FUNC_check_mtu" }
};

/// The memory of maps counts for the cgroup, and no longer as locked memory of the process.
const LINUX_5_11: Version = Version { number: "5.11", sign: "BPF_FUNC_ima_inode_hash" };

/// Programs on functions can be attached again after they were detached (commit f3a95075549e, "bpf: Allow trampoline
/// re-attach for tracing and lsm programs"), as a pause has it.
pub const LINUX_5_13: Version = Version { number: "5.13", sign: "BPF_FUNC_snprintf" };

/// Helpers that call a function of the program again and again (`bpf_loop`), and that tell a program on a function what that
/// was called with and returned (`bpf_get_func_arg`).
pub const LINUX_5_17: Version = Version { number: "5.17", sign: "BPF_FUNC_loop" };

/// A socket that is freed leaves its storage to whoever iterates over all of it, with a pointer to the rest set to NULL;
/// `__bpf_sk_storage_map_seq_show()` follows that pointer, and the kernel crashes. Seen in 7.2, once in a storm of closes.
/// So nobody iterates over it there.
pub const LINUX_7_0: Version = Version { number: "7.0", sign: "bpf_selem_unlink_nofail" };

/// The ring buffer, iterators and the capabilities of their own: without them nothing here runs.
const LINUX_5_8: Version = Version { number: "5.8", sign: "BPF_FUNC_ringbuf_output" };

/// Why nothing can run on this kernel.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Unfit {
    /// It does not tell its types.
    #[error(
        "the kernel was built without BTF (CONFIG_DEBUG_INFO_BTF), or it is hidden from us: there is no {BTF}; kernels of \
         most distributions have had it since Linux 5.10"
    )]
    NoBtf,
    /// It does, but not to us.
    #[error("the kernel's BTF cannot be read from {BTF}: {0}")]
    Btf(String),
    /// BPF cannot do what all modules need.
    #[error("this kernel is older than Linux {}: 6.1 or later has all modules", .0.number)]
    OlderThan(Version),
}

/// Modes of `lockdown(7)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lockdown {
    /// Nothing is hidden.
    None,
    /// Nothing may change the kernel.
    Integrity,
    /// Nor read its memory, which tracing does.
    Confidentiality,
}

/// Versions of control groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cgroup {
    /// The old controllers only.
    V1,
    /// The old controllers and the new tree.
    Hybrid,
    /// The new tree only.
    V2,
}

impl Kernel {
    /// Looks at this host. Of the kernel's types only those are looked up that are `wanted`, and named as BTF names
    /// them (see [`tracepoint`] and [`iterator`]; functions have their own name): all of them would be megabytes.
    pub fn probe<S: AsRef<str>>(wanted: impl IntoIterator<Item = S>) -> Kernel {
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok();
        let mounts = mounts.as_deref().map(mounted);
        let tick = clock_getres(ClockId::CLOCK_MONOTONIC_COARSE).expect("Linux has had the coarse clock since 2.6.32");
        let wanted = wanted.into_iter().map(|name| name.as_ref().to_owned()).collect();
        let (found, locked) = (types(&wanted), getrlimit(Resource::RLIMIT_MEMLOCK).ok());
        let numbers = tracefs::numbers(&wanted);
        let btf_error = found.as_ref().err().map(ToString::to_string);
        let Types { names, enums, fentry, cast } = found.unwrap_or_default();
        let mut kernel = Kernel {
            release: uname().map(|uname| uname.release().to_string_lossy().into_owned()).unwrap_or_default(),
            btf: Path::new(BTF).try_exists().ok(),
            lockdown: lockdown(),
            cgroup: mounts.as_deref().and_then(cgroup),
            tracefs: Some(numbers.is_ok()),
            kprobes: kprobes::offered(),
            perf_events: perf::allowed(),
            fentry,
            cast,
            map_memory: None,
            tick_ns: tick.tv_nsec() as u64,
            names,
            numbers: numbers.unwrap_or_default(),
            enums,
            btf_error,
        };
        let counted = !kernel.enumeration(HELPERS).is_empty() && !kernel.is_since(LINUX_5_11);
        kernel.map_memory = locked.map(|(_, hard)| hard).filter(|&hard| counted && hard != RLIM_INFINITY);
        kernel
    }

    /// Whether there is a tracepoint with typed arguments.
    pub fn has_tracepoint(&self, name: &str) -> bool {
        self.names.contains_key(&tracepoint(name))
    }

    /// How many arguments a tracepoint has; 0 if there is none.
    pub fn tracepoint_arguments(&self, name: &str) -> usize {
        self.names.get(&tracepoint(name)).copied().unwrap_or(0)
    }

    /// Names of the values of an enumeration, none if there is none.
    pub fn enumeration(&self, name: &str) -> &[(u32, String)] {
        self.enums.get(name).map_or(&[], Vec::as_slice)
    }

    /// Whether it is of that version or later, as far as BPF is concerned.
    pub fn is_since(&self, version: Version) -> bool {
        self.has_function(version.sign) || self.enumeration(HELPERS).iter().any(|(_, helper)| helper == version.sign)
    }

    /// Whether anything can run here.
    ///
    /// # Errors
    /// [`Unfit`] if it is certain that nothing can.
    pub fn fit(&self) -> Result<(), Unfit> {
        if self.btf == Some(false) {
            return Err(Unfit::NoBtf);
        }
        if let Some(error) = &self.btf_error {
            return Err(Unfit::Btf(error.clone()));
        }
        // Types that were not asked for, or not told, say nothing.
        if !self.enumeration(HELPERS).is_empty() && !self.is_since(LINUX_5_8) {
            return Err(Unfit::OlderThan(LINUX_5_8));
        }
        Ok(())
    }

    /// Whether there is a function that can be traced.
    pub fn has_function(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    /// Whether there is an iterator over such objects.
    pub fn has_iterator(&self, name: &str) -> bool {
        self.names.contains_key(&iterator(name))
    }
}

/// CLOCK_MONOTONIC in nanoseconds, which bpf_ktime_get_ns() reads too.
pub fn monotonic_ns() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |now| Duration::from(now).as_nanos() as u64)
}

/// The enumeration of BPF's helpers.
pub const HELPERS: &str = "bpf_func_id";

const TRACEPOINT: &str = "btf_trace_";
const ITERATOR: &str = "bpf_iter__";

/// The BTF name of a tracepoint: a typedef of its prototype.
pub fn tracepoint(name: &str) -> String {
    format!("{TRACEPOINT}{name}")
}

/// The BTF name of an iterator: the struct that its programs are given.
pub fn iterator(name: &str) -> String {
    format!("{ITERATOR}{name}")
}

/// What BTF is asked for.
#[derive(Default)]
struct Types {
    names: BTreeMap<String, usize>,
    enums: BTreeMap<String, Vec<(u32, String)>>,
    fentry: Option<bool>,
    cast: Option<u32>,
}

/// The wanted types that this kernel has, each of the right kind. BTF itself is let go again.
fn types(wanted: &HashSet<String>) -> libbpf_rs::Result<Types> {
    let btf = Btf::from_vmlinux()?;
    let Types { mut names, mut enums, .. } = Types::default();
    for found in btf.type_by_kind::<BtfType<'_>>() {
        let Some(prefix) = prefix(found.kind()) else { continue };
        let Some(name) = found.name().and_then(|name| name.to_str()) else { continue };
        if !(name.starts_with(prefix) && wanted.contains(name)) {
            continue;
        }
        match Enum::try_from(found) {
            Ok(values) => {
                let value = |one: libbpf_rs::btf::types::EnumMember<'_>| {
                    Some((one.value as u32, one.name?.to_str()?.to_owned()))
                };
                enums.insert(name.to_owned(), values.iter().filter_map(value).collect());
            }
            Err(other) => _ = names.insert(name.to_owned(), arguments(other).unwrap_or(0)),
        }
    }
    Ok(Types { names, enums, fentry: fentry::allowed(&btf), cast: cast::offered(&btf) })
}

/// What the name of such a type begins with, if it can be wanted; there are some 150 000 types.
fn prefix(kind: BtfKind) -> Option<&'static str> {
    match kind {
        BtfKind::Typedef => Some(TRACEPOINT),
        BtfKind::Struct => Some(ITERATOR),
        BtfKind::Func | BtfKind::Enum => Some(""),
        _ => None,
    }
}

/// Of the prototype of a tracepoint; the first is the tracepoint's own.
fn arguments(found: BtfType<'_>) -> Option<usize> {
    let pointer = Ptr::try_from(Typedef::try_from(found).ok()?.referenced_type()).ok()?;
    let prototype = FuncProto::try_from(pointer.referenced_type()).ok()?;
    Some(prototype.len().saturating_sub(1))
}

fn lockdown() -> Option<Lockdown> {
    match fs::read_to_string(Path::new(SECURITY).join("lockdown")) {
        Ok(text) => lockdown_mode(&text),
        // Other security modules speak and this one does not: the kernel was built without it.
        Err(_) if fs::read_dir(SECURITY).is_ok_and(|mut entries| entries.next().is_some()) => Some(Lockdown::None),
        Err(_) => None,
    }
}

/// The mode in brackets, as in `none [integrity] confidentiality`.
fn lockdown_mode(text: &str) -> Option<Lockdown> {
    match text.split_once('[')?.1.split_once(']')?.0 {
        "none" => Some(Lockdown::None),
        "integrity" => Some(Lockdown::Integrity),
        "confidentiality" => Some(Lockdown::Confidentiality),
        _ => None,
    }
}

/// Mount points and file systems of `/proc/<pid>/mountinfo`: the fifth field, and the first one after a lone dash (the
/// number of fields before that varies).
fn mounted(mountinfo: &str) -> Vec<(&str, &str)> {
    fn entry(line: &str) -> Option<(&str, &str)> {
        let (mount, kind) = line.split_once(" - ")?;
        Some((mount.split(' ').nth(4)?, kind.split(' ').next()?))
    }
    mountinfo.lines().filter_map(entry).collect()
}

fn cgroup(mounts: &[(&str, &str)]) -> Option<Cgroup> {
    let has = |kind| mounts.iter().any(|(_, mounted)| *mounted == kind);
    match (has("cgroup"), has("cgroup2")) {
        (true, false) => Some(Cgroup::V1),
        (true, true) => Some(Cgroup::Hybrid),
        (false, true) => Some(Cgroup::V2),
        (false, false) => None,
    }
}

impl Lockdown {
    /// Its name in every output.
    pub fn as_str(self) -> &'static str {
        match self {
            Lockdown::None => "none",
            Lockdown::Integrity => "integrity",
            Lockdown::Confidentiality => "confidentiality",
        }
    }
}

impl Cgroup {
    /// Its name in every output.
    pub fn as_str(self) -> &'static str {
        match self {
            Cgroup::V1 => "v1",
            Cgroup::Hybrid => "hybrid",
            Cgroup::V2 => "v2",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2: &str = "25 30 0:23 / /sys rw,nosuid shared:7 - sysfs sysfs rw\n\
                      29 25 0:26 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw,nsdelegate\n\
                      34 25 0:12 / /sys/kernel/tracing rw - tracefs tracefs rw\n";
    const HYBRID: &str = "30 25 0:25 / /sys/fs/cgroup ro shared:8 - tmpfs tmpfs ro\n\
                          31 30 0:26 / /sys/fs/cgroup/unified rw shared:9 - cgroup2 cgroup2 rw\n\
                          32 30 0:27 / /sys/fs/cgroup/cpu rw shared:10 master:1 - cgroup cgroup rw,cpu\n";

    #[test]
    fn mounts_are_read_whatever_the_number_of_optional_fields() {
        let found = mounted(V2);
        assert_eq!(found, [("/sys", "sysfs"), ("/sys/fs/cgroup", "cgroup2"), ("/sys/kernel/tracing", "tracefs")]);
        assert_eq!(mounted("nonsense\n"), []);
    }

    #[test]
    fn the_cgroup_version_follows_from_the_mounts() {
        assert_eq!(cgroup(&mounted(V2)), Some(Cgroup::V2));
        assert_eq!(cgroup(&mounted(HYBRID)), Some(Cgroup::Hybrid));
        assert_eq!(cgroup(&mounted(HYBRID)[2..]), Some(Cgroup::V1));
        assert_eq!(cgroup(&[]), None);
    }

    #[test]
    fn the_lockdown_mode_is_the_one_in_brackets() {
        assert_eq!(lockdown_mode("[none] integrity confidentiality\n"), Some(Lockdown::None));
        assert_eq!(lockdown_mode("none [integrity] confidentiality\n"), Some(Lockdown::Integrity));
        assert_eq!(lockdown_mode("none integrity [confidentiality]\n"), Some(Lockdown::Confidentiality));
        assert_eq!(lockdown_mode("[later] none\n"), None);
        assert_eq!(lockdown_mode(""), None);
    }

    #[test]
    fn this_kernel_tells_its_types() {
        let kernel = Kernel::probe([
            "btf_trace_inet_sock_set_state",
            "tcp_sendmsg",
            "skb_drop_reason",
            "task_struct",
            "nothing",
        ]);
        assert_eq!(kernel.tracepoint_arguments("inet_sock_set_state"), 3);
        assert!(kernel.has_function("tcp_sendmsg") && !kernel.has_function("nothing"));
        // Not wanted, and of another kind.
        assert!(!kernel.has_iterator("tcp") && !kernel.has_function("task_struct"));
        let reasons = kernel.enumeration("skb_drop_reason");
        assert!(reasons.iter().any(|(_, name)| name == "SKB_DROP_REASON_NO_SOCKET"), "{reasons:?}");
    }

    #[test]
    fn a_kernel_without_types_or_ring_buffers_is_unfit() {
        let with = |helpers: &[&str]| Kernel {
            btf: Some(true),
            enums: [(HELPERS.to_owned(), helpers.iter().map(|&name| (0, name.to_owned())).collect())].into(),
            ..Kernel::default()
        };
        let old = with(&["BPF_FUNC_map_lookup_elem", "BPF_FUNC_ringbuf_output"]);
        assert_eq!((old.fit(), old.is_since(LINUX_WITH_FETCH)), (Ok(()), false));
        assert!(with(&["BPF_FUNC_ringbuf_output", LINUX_WITH_FETCH.sign]).is_since(LINUX_WITH_FETCH));
        assert_eq!(with(&["BPF_FUNC_map_lookup_elem"]).fit(), Err(Unfit::OlderThan(LINUX_5_8)));
        assert_eq!(Kernel { btf: Some(false), ..Kernel::default() }.fit(), Err(Unfit::NoBtf));
        let unreadable = Kernel { btf_error: Some("permission denied".to_owned()), ..old };
        assert_eq!(unreadable.fit(), Err(Unfit::Btf("permission denied".to_owned())));
        // Nothing is known of it.
        assert_eq!(Kernel::default().fit(), Ok(()));
    }

    #[test]
    fn this_kernel_has_what_is_needed() {
        assert_eq!(Kernel::probe([HELPERS]).fit(), Ok(()));
    }

    #[test]
    fn this_host_has_a_name_and_a_tick() {
        let kernel = Kernel::probe::<&str>([]);
        assert!(!kernel.release.is_empty());
        assert!((1_000_000..=10_000_000).contains(&kernel.tick_ns), "{}", kernel.tick_ns);
    }
}
