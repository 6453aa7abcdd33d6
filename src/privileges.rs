//! What the process may do, and what it would need.

use std::fmt;

use caps::{CapSet, Capability, CapsHashSet};
use thiserror::Error;
use tracing::warn;

/// What loading and attaching takes. `CAP_SYS_ADMIN` stands for both, as it did before Linux 5.8 split them off.
const NEEDED: [Capability; 2] = [Capability::CAP_BPF, Capability::CAP_PERFMON];

/// What running takes once everything is attached: maps and iterators, and a look at other users' processes.
const KEPT: [Capability; 3] = [Capability::CAP_BPF, Capability::CAP_PERFMON, Capability::CAP_SYS_PTRACE];

/// What it takes to enter network namespaces, where sockets are passed over in one after another.
const ENTERING: Capability = Capability::CAP_SYS_ADMIN;

/// What raises the bound of locked memory.
const LOCKING: Capability = Capability::CAP_SYS_RESOURCE;

/// More locked memory than maps ever take.
const PLENTY: u64 = 64 << 20;

/// The capabilities that are missing.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub struct Missing(Vec<Capability>);

impl Missing {
    /// Their names, such as `CAP_BPF`.
    pub fn names(&self) -> Vec<String> {
        self.0.iter().map(ToString::to_string).collect()
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.names();
        let short: Vec<_> = names.iter().map(|name| name.trim_start_matches("CAP_")).collect();
        write!(
            f,
            "missing {}: run as root, or `setcap {}=ep` the binary, or in Kubernetes set \
             securityContext.capabilities.add: [{}]",
            names.join(" and "),
            names.join(",").to_lowercase(),
            short.join(", ")
        )
    }
}

/// What the process effectively holds.
///
/// # Errors
/// If the kernel does not tell.
pub fn held() -> Result<CapsHashSet, caps::errors::CapsError> {
    caps::read(None, CapSet::Effective)
}

/// Whether that is enough to run.
///
/// # Errors
/// [`Missing`] if it is not.
pub fn require(held: &CapsHashSet) -> Result<(), Missing> {
    let missing: Vec<_> = NEEDED.into_iter().filter(|needed| !held.contains(needed)).collect();
    if missing.is_empty() || held.contains(&Capability::CAP_SYS_ADMIN) { Ok(()) } else { Err(Missing(missing)) }
}

/// The same, where maps may take so much locked memory and no more.
///
/// # Errors
/// [`Missing`] if it is not enough.
pub fn require_with_memory(held: &CapsHashSet, bound: Option<u64>) -> Result<(), Missing> {
    require(held)?;
    let bounded = bound.is_some_and(|bytes| bytes < PLENTY) && !held.contains(&LOCKING);
    if bounded { Err(Missing(vec![LOCKING])) } else { Ok(()) }
}

/// Gives up, for the calling thread and those that it will start, what is of no use once everything is attached. Where
/// `CAP_SYS_ADMIN` stands for what is needed, it stays.
pub fn drop_unneeded() {
    drop_but(&KEPT);
}

/// The same, for a thread that goes on to enter network namespaces.
pub fn drop_unneeded_but_entering() {
    drop_but(&[KEPT.as_slice(), &[ENTERING]].concat());
}

fn drop_but(kept: &[Capability]) {
    let Ok(permitted) = caps::read(None, CapSet::Permitted) else { return };
    let split = NEEDED.iter().all(|needed| permitted.contains(needed));
    let kept: CapsHashSet = permitted
        .into_iter()
        .filter(|held| kept.contains(held) || (!split && *held == Capability::CAP_SYS_ADMIN))
        .collect();
    // Effective first: it may not exceed what is permitted.
    let dropped = [CapSet::Effective, CapSet::Permitted].into_iter().try_for_each(|set| caps::set(None, set, &kept));
    if let Err(error) = dropped {
        warn!(%error, "cannot drop capabilities");
    }
}

/// What will be less good with these capabilities, though it runs. `enters`: network namespaces have to be entered.
pub fn note(held: &CapsHashSet, enters: bool) -> Option<String> {
    let ptrace = "without CAP_SYS_PTRACE, the audit leaves out the network namespaces of other users' processes";
    let entering = "without CAP_SYS_ADMIN, connections in other network namespaces are counted when they close";
    let notes = [(Capability::CAP_SYS_PTRACE, true, ptrace), (ENTERING, enters, entering)];
    let notes = notes.iter().filter(|(needed, matters, _)| *matters && !held.contains(needed));
    let text = notes.map(|(_, _, text)| *text).collect::<Vec<_>>().join("; ");
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn require_of(held: &[Capability]) -> Result<(), String> {
        require(&held.iter().copied().collect()).map_err(|missing| missing.to_string())
    }

    #[test]
    fn both_or_the_old_one_for_both() {
        use Capability::*;
        assert_eq!(require_of(&[CAP_BPF, CAP_PERFMON]), Ok(()));
        assert_eq!(require_of(&[CAP_SYS_ADMIN]), Ok(()));
    }

    #[test]
    fn a_bound_of_locked_memory_has_to_be_raised() {
        use Capability::*;
        let of = |held: &[_], bound| require_with_memory(&held.iter().copied().collect(), bound).is_ok();
        assert!(of(&[CAP_SYS_ADMIN], None) && of(&[CAP_SYS_ADMIN], Some(PLENTY)));
        assert!(!of(&[CAP_SYS_ADMIN], Some(64 << 10)) && !of(&[], None));
        assert!(of(&[CAP_SYS_ADMIN, CAP_SYS_RESOURCE], Some(64 << 10)));
    }

    #[test]
    fn the_message_says_how_to_grant_what_is_missing() {
        assert_eq!(
            require_of(&[Capability::CAP_NET_ADMIN]).unwrap_err(),
            "missing CAP_BPF and CAP_PERFMON: run as root, or `setcap cap_bpf,cap_perfmon=ep` the binary, or in \
             Kubernetes set securityContext.capabilities.add: [BPF, PERFMON]"
        );
        assert!(require_of(&[Capability::CAP_BPF]).unwrap_err().starts_with("missing CAP_PERFMON: "));
    }

    #[test]
    fn ptrace_is_only_noted() {
        assert!(note(&CapsHashSet::new(), false).is_some());
        assert!(note(&[Capability::CAP_SYS_PTRACE].into_iter().collect(), false).is_none());
    }

    #[test]
    fn entering_namespaces_is_noted_where_it_is_done() {
        let held = [Capability::CAP_SYS_PTRACE].into_iter().collect();
        assert!(note(&held, true).is_some_and(|note| note.starts_with("without CAP_SYS_ADMIN, ")));
        let held = [Capability::CAP_SYS_PTRACE, Capability::CAP_SYS_ADMIN].into_iter().collect();
        assert_eq!(note(&held, true), None);
    }
}
