//! How a module fares, and why: names, reasons and the pure roll-up from hooks to modules to the daemon.

use std::fmt;

/// State of a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// Everything it offers is there.
    Running,
    /// It runs, with something missing on this kernel or something wrong.
    Degraded,
    /// This kernel cannot run it.
    Unsupported,
    /// It should run here and does not.
    Failed,
    /// Not asked for.
    Disabled,
}

/// Health of the daemon, as probes see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Every module that was asked for is running.
    Healthy,
    /// Some are not, and say why.
    Degraded,
    /// None is, or no collection comes through.
    Unhealthy,
}

/// When a program of ours costs something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cost {
    /// Only when its event happens, or when the daemon asks.
    Event,
    /// It taxes unrelated work of the whole machine.
    System,
}

/// How a program hangs on the kernel; the cheapest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookKind {
    /// Tracepoint with typed arguments.
    TpBtf,
    /// Entry of a kernel function, through the BPF trampoline.
    Fentry,
    /// Its exit.
    Fexit,
    /// A breakpoint in a kernel function.
    Kprobe,
    /// Tracepoint through perf.
    Tracepoint,
    /// Iterator: runs when the daemon asks.
    Iter,
}

/// One thing that a module listens to, and what became of it on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookReport {
    /// What is listened to, such as `inet_sock_set_state`.
    pub name: &'static str,
    /// How; `None` if it is absent.
    pub kind: Option<HookKind>,
    /// What the program hangs on, as the kernel calls it: not always what the hook is named after, since some kernels have it
    /// elsewhere. Of a classic tracepoint with its group; empty if it is absent.
    pub target: &'static str,
    /// What it takes from unrelated work; empty if nothing.
    pub tax: &'static str,
    /// It goes through network namespaces one by one, which takes `CAP_SYS_ADMIN`.
    pub enters: bool,
    /// The operator allows no other way (`collector.<module>.hook`).
    pub forced: bool,
    /// Why it is absent; empty if it is in use.
    pub reason: String,
}

/// One of our programs and what it has cost so far.
#[derive(Debug, Clone, PartialEq)]
pub struct ProgramReport {
    /// Name of the program in the kernel.
    pub name: String,
    /// It runs when the daemon asks, not when something happens.
    pub asked: bool,
    /// How often it ran; an iterator, how often it went over everything.
    pub runs: u64,
    /// CPU time of its runs, estimated from some of them; of an iterator, what the thread that ran it needed.
    pub run_ns: u64,
    /// Runs that the kernel left out because the program was at work on that CPU already; `None` if it does not tell.
    pub missed: Option<u64>,
}

/// One of our maps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapReport {
    /// Name of the map in the kernel.
    pub name: String,
    /// Entries in use; `None` if the kernel does not tell.
    pub entries: Option<u64>,
    /// Kernel memory, in bytes.
    pub bytes: u64,
    /// How often something found no room; `None` where that cannot happen.
    pub full: Option<u64>,
}

/// Everything there is to say of a module but its metrics.
#[derive(Debug, Clone, PartialEq)]
pub struct ModuleReport {
    /// Its noun.
    pub name: &'static str,
    /// One line on what it shows.
    pub summary: &'static str,
    /// How it fares.
    pub status: Status,
    /// Why it is not running in full; empty when it is.
    pub reason: String,
    /// It is disabled because it would take something from unrelated work, and was not named.
    pub declined: bool,
    /// Its hooks, in use or not.
    pub hooks: Vec<HookReport>,
    /// Its programs that are loaded.
    pub programs: Vec<ProgramReport>,
    /// Its maps.
    pub maps: Vec<MapReport>,
}

/// Health of the daemon from the states of its modules.
pub fn health(modules: &[ModuleReport]) -> Health {
    let mut wanted = modules.iter().map(|module| module.status).filter(|status| *status != Status::Disabled).peekable();
    if wanted.peek().is_none() {
        return Health::Unhealthy;
    }
    let any = modules.iter().any(ModuleReport::runs);
    let all = wanted.all(|status| status == Status::Running);
    match (all, any) {
        (true, _) => Health::Healthy,
        (false, true) => Health::Degraded,
        (false, false) => Health::Unhealthy,
    }
}

impl Status {
    /// All states, for series that show one of them as 1.
    pub const ALL: [Status; 5] =
        [Status::Running, Status::Degraded, Status::Unsupported, Status::Failed, Status::Disabled];

    /// Its name in every output.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Running => "running",
            Status::Degraded => "degraded",
            Status::Unsupported => "unsupported",
            Status::Failed => "failed",
            Status::Disabled => "disabled",
        }
    }
}

impl Health {
    /// Its name in every output.
    pub fn as_str(self) -> &'static str {
        match self {
            Health::Healthy => "healthy",
            Health::Degraded => "degraded",
            Health::Unhealthy => "unhealthy",
        }
    }
}

impl ModuleReport {
    /// Whether it counts anything.
    pub fn runs(&self) -> bool {
        matches!(self.status, Status::Running | Status::Degraded)
    }

    /// Whether it goes through network namespaces one by one.
    pub fn enters(&self) -> bool {
        self.hooks.iter().any(|hook| hook.enters)
    }
}

impl HookReport {
    /// When it costs something.
    pub fn cost(&self) -> Cost {
        if self.tax.is_empty() { Cost::Event } else { Cost::System }
    }
}

impl Cost {
    /// Its name in every output.
    pub fn as_str(self) -> &'static str {
        match self {
            Cost::Event => "event",
            Cost::System => "system",
        }
    }
}

impl HookKind {
    /// Its name in every output.
    pub fn as_str(self) -> &'static str {
        match self {
            HookKind::TpBtf => "tp_btf",
            HookKind::Fentry => "fentry",
            HookKind::Fexit => "fexit",
            HookKind::Kprobe => "kprobe",
            HookKind::Tracepoint => "tracepoint",
            HookKind::Iter => "iter",
        }
    }

    /// What an operator calls it who asks for it: entry and exit of a function come together. `None` if there is never
    /// another way.
    pub fn asked_for_as(self) -> Option<&'static str> {
        match self {
            HookKind::Fentry | HookKind::Fexit => Some(HookKind::Fentry.as_str()),
            HookKind::TpBtf | HookKind::Kprobe | HookKind::Tracepoint => Some(self.as_str()),
            HookKind::Iter => None,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(states: &[Status]) -> Health {
        let modules: Vec<_> = states
            .iter()
            .map(|&status| ModuleReport {
                name: "m",
                summary: "",
                status,
                reason: String::new(),
                declined: false,
                hooks: vec![],
                programs: vec![],
                maps: vec![],
            })
            .collect();
        health(&modules)
    }

    #[test]
    fn health_rolls_up_what_was_asked_for() {
        use Status::*;
        assert_eq!(of(&[Running, Disabled]), Health::Healthy);
        assert_eq!(of(&[Running, Failed]), Health::Degraded);
        assert_eq!(of(&[Degraded]), Health::Degraded);
        assert_eq!(of(&[Failed, Unsupported]), Health::Unhealthy);
        assert_eq!(of(&[Disabled]), Health::Unhealthy);
        assert_eq!(of(&[]), Health::Unhealthy);
    }
}
