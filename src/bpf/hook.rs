//! What a collector wants to hang on, as data: hooks, each with the ways to have it.

use crate::kernel::{self, Kernel, Lockdown, Version};
use crate::status::HookKind;

/// One thing to listen to, with the ways to do it: the first that this kernel offers is taken.
#[derive(Debug)]
pub struct Hook {
    /// What is listened to.
    pub name: &'static str,
    /// What is missing without it. `None`: the collector cannot do without.
    pub without: Option<&'static str>,
    /// Cheapest first.
    pub alternatives: &'static [Alternative],
}

/// One way to hang on a hook.
#[derive(Debug, PartialEq, Eq)]
pub struct Alternative {
    /// How.
    pub kind: HookKind,
    /// The program, by its name in the BPF object.
    pub program: &'static str,
    /// Tracepoint, function or iterator, by its name in the kernel; of a classic tracepoint also its group, as in
    /// `syscalls/sys_exit_fadvise64`.
    pub target: &'static str,
    /// A tracepoint with typed arguments must have so many.
    pub arguments: usize,
    /// What is missing when this way is taken; empty if nothing is.
    pub lacks: &'static str,
    /// What it takes from work that has nothing to do with it; empty if it costs only when its event happens.
    pub tax: &'static str,
    /// A version of Linux before which it is no use.
    pub since: Option<Version>,
    /// A version of Linux since which there are better ways than this.
    pub before: Option<Version>,
    /// Another program that goes with it; empty if none does.
    pub along: &'static str,
    /// It is run in each network namespace that there is, which takes `CAP_SYS_ADMIN`.
    pub enters: bool,
}

impl Alternative {
    /// A way that lacks nothing and costs only when its event happens.
    pub const fn new(kind: HookKind, program: &'static str, target: &'static str) -> Alternative {
        let (arguments, since, before) = (0, None, None);
        Alternative { kind, program, target, arguments, lacks: "", tax: "", since, before, along: "", enters: false }
    }

    /// A tracepoint with typed arguments.
    pub const fn tp_btf(program: &'static str, target: &'static str) -> Alternative {
        Alternative::new(HookKind::TpBtf, program, target)
    }

    /// To be taken only where the tracepoint has so many arguments: later kernels add some at the end.
    pub const fn with_arguments(self, arguments: usize) -> Alternative {
        Alternative { arguments, ..self }
    }

    /// To be taken only since that version.
    pub const fn since(self, version: Version) -> Alternative {
        Alternative { since: Some(version), ..self }
    }

    /// To be taken only before that version.
    pub const fn before(self, version: Version) -> Alternative {
        Alternative { before: Some(version), ..self }
    }

    /// Has another program loaded and attached with it, which hangs on what its section says.
    pub const fn along(self, program: &'static str) -> Alternative {
        Alternative { along: program, ..self }
    }

    /// Has it run in each network namespace.
    pub const fn entering(self) -> Alternative {
        Alternative { enters: true, ..self }
    }

    /// Says what is missing this way.
    pub const fn lacking(self, lacks: &'static str) -> Alternative {
        Alternative { lacks, ..self }
    }

    /// Whether this is what an operator means by `kind`.
    pub(super) fn is(&self, kind: &str) -> bool {
        self.kind.asked_for_as() == Some(kind)
    }

    /// Says what it takes from unrelated work. Such a way is taken only for modules that the operator has named.
    pub const fn taxing(self, tax: &'static str) -> Alternative {
        Alternative { tax, ..self }
    }

    /// Why it is for kernels of other versions, if it is. It is not tried there then, nor taken if it could be had.
    pub fn unsuited(&self, kernel: &Kernel) -> Option<String> {
        let since = self.since.filter(|&version| !kernel.is_since(version));
        let before = self.before.filter(|&version| kernel.is_since(version));
        let older = since.map(|version| format!("this kernel is older than Linux {}", version.number));
        older.or_else(|| before.map(|version| format!("this way is for kernels before Linux {}", version.number)))
    }

    pub(super) fn uses(&self, program: &str) -> bool {
        self.program == program || (!self.along.is_empty() && self.along == program)
    }
}

impl Hook {
    /// Whether it can be had in this way and in others.
    pub(super) fn is_narrowed_by(&self, kind: &str) -> bool {
        let fit = self.alternatives.iter().filter(|way| way.is(kind)).count();
        (1..self.alternatives.len()).contains(&fit)
    }
}

/// The ways in which these hooks can be had, as an operator asks for them: each once, in the order in which they are
/// preferred.
pub fn kinds(hooks: &[Hook]) -> Vec<&'static str> {
    let all = hooks.iter().flat_map(|hook| hook.alternatives).filter_map(|way| way.kind.asked_for_as());
    let mut kinds: Vec<_> = Vec::new();
    for kind in all {
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    kinds
}

/// The name by which the kernel's BTF knows what a way hangs on.
pub fn btf_name(way: &Alternative) -> String {
    match way.kind {
        HookKind::TpBtf => kernel::tracepoint(way.target),
        HookKind::Iter => kernel::iterator(way.target),
        HookKind::Fentry | HookKind::Fexit | HookKind::Kprobe | HookKind::Tracepoint => way.target.to_owned(),
    }
}

/// Why this kernel does not offer a way, as far as can be known without trying.
pub fn unavailable(way: &Alternative, kernel: &Kernel) -> Option<String> {
    let target = way.target;
    if kernel.btf == Some(false) {
        return Some("this kernel shows no BTF (CONFIG_DEBUG_INFO_BTF)".to_owned());
    }
    if let Some(error) = &kernel.btf_error {
        return Some(format!("the kernel's BTF cannot be read: {error}"));
    }
    if kernel.lockdown == Some(Lockdown::Confidentiality) {
        return Some("the kernel is locked down (confidentiality): no program may read its memory".to_owned());
    }
    if let Some(reason) = way.unsuited(kernel) {
        return Some(reason);
    }
    match way.kind {
        HookKind::TpBtf if !kernel.has_tracepoint(target) => Some(format!("this kernel has no tracepoint {target}")),
        HookKind::TpBtf if kernel.tracepoint_arguments(target) < way.arguments => {
            Some(format!("the tracepoint {target} of this kernel has fewer than {} arguments", way.arguments))
        }
        HookKind::Iter if !kernel.has_iterator(target) => Some(format!("this kernel has no iterator {target}")),
        HookKind::Fentry | HookKind::Fexit if kernel.fentry == Some(false) => {
            Some(format!("this host refuses programs at functions of the kernel such as {target} (fentry)"))
        }
        HookKind::Fentry | HookKind::Fexit if !kernel.has_function(target) => {
            Some(format!("this kernel has no function {target}"))
        }
        HookKind::Kprobe if kernel.kprobes == Some(false) => Some("this kernel has no kprobes".to_owned()),
        HookKind::Kprobe | HookKind::Tracepoint if kernel.perf_events == Some(false) => Some(
            "this host refuses us events of perf (kernel.perf_event_paranoid, or a lack of CAP_PERFMON)".to_owned(),
        ),
        HookKind::Kprobe if !kernel.has_function(target) => Some(format!("this kernel has no function {target}")),
        HookKind::Tracepoint if kernel.tracefs == Some(false) => {
            Some("tracefs is neither mounted nor ours to mount (CAP_SYS_ADMIN)".to_owned())
        }
        HookKind::Tracepoint if !kernel.numbers.contains_key(target) => {
            Some(format!("this kernel has no tracepoint {target}"))
        }
        _ => None,
    }
}
