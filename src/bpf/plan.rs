//! The attach plan: what a collector wants to hang on, as data, and the pure decision for a given kernel.

use std::collections::BTreeMap;

use crate::kernel::{self, Kernel, LINUX_5_12, Lockdown, Version};
use crate::status::{HookKind, HookReport};

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
    fn is(&self, kind: &str) -> bool {
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

    fn uses(&self, program: &str) -> bool {
        self.program == program || (!self.along.is_empty() && self.along == program)
    }
}

/// What the operator has to say in the choice.
#[derive(Debug, Clone, Default)]
pub struct Terms {
    /// The module was named: what it may cost is accepted.
    pub named: bool,
    /// For diagnosis: hooks that have such a way are had in no other.
    pub only: Option<Only>,
}

/// The one way that is allowed.
#[derive(Debug, Clone)]
pub struct Only {
    /// As [`HookKind::asked_for_as`] names it.
    pub kind: String,
    /// The key by which the operator asked for it.
    pub setting: String,
}

impl Hook {
    /// Whether it can be had in this way and in others.
    fn is_narrowed_by(&self, kind: &str) -> bool {
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

/// The decision: for every hook the way that is taken, or why none is.
#[derive(Debug, Clone)]
pub struct Plan {
    choices: Vec<Choice>,
    terms: Terms,
    since_5_12: bool,
    refusals: Vec<Refusal>,
    /// Of classic tracepoints.
    numbers: BTreeMap<String, u32>,
}

/// A program that the kernel did not take, although it offers what the program was to hang on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// By its name in the BPF object.
    pub program: &'static str,
    /// In the kernel's words, those of its verifier if it was that.
    pub reason: String,
}

#[derive(Debug, Clone)]
struct Choice {
    hook: &'static Hook,
    /// The operator allows only some of its ways.
    forced: bool,
    /// Index into the alternatives; those before it are not to be had.
    taken: Option<usize>,
    /// Why the alternatives before it are not to be had, or not taken.
    reasons: Vec<String>,
    /// There is a way, which the operator would have to ask for.
    declined: bool,
}

/// A hook that the collector cannot do without is absent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{hook} cannot be attached: {reason}")]
pub struct Missing {
    /// The hook.
    pub hook: &'static str,
    /// Why, for each way there is.
    pub reason: String,
    /// There is a way, and it would be taken if the operator named the module.
    pub declined: bool,
}

impl Plan {
    /// Decides from what is known of the kernel, before anything is loaded.
    pub fn new(hooks: impl IntoIterator<Item = &'static Hook>, kernel: &Kernel, terms: Terms) -> Plan {
        let choices = hooks.into_iter().map(|hook| {
            let only = terms.only.as_ref().filter(|only| hook.is_narrowed_by(&only.kind));
            let reasons = only.map(|only| format!("{} is {}", only.setting, only.kind)).into_iter().collect();
            let mut choice = Choice { hook, forced: only.is_some(), taken: None, reasons, declined: false };
            choice.take_from(0, kernel, &terms);
            choice
        });
        let since_5_12 = kernel.is_since(LINUX_5_12);
        let (choices, numbers) = (choices.collect(), kernel.numbers.clone());
        Plan { choices, terms, since_5_12, refusals: Vec::new(), numbers }
    }

    /// Whether the kernel is as new as that, as `since_5_12()` of the programs says.
    pub fn since_5_12(&self) -> bool {
        self.since_5_12
    }

    /// Gives up the way that uses `program`, because the kernel refused it, and takes the next. `false` if the plan has
    /// no such program.
    pub fn refuse(&mut self, program: &str, reason: &str, kernel: &Kernel) -> bool {
        for choice in &mut self.choices {
            if let Some(index) = choice.taken
                && choice.hook.alternatives[index].uses(program)
            {
                let Alternative { kind, program, .. } = choice.hook.alternatives[index];
                self.refusals.push(Refusal { program, reason: reason.to_owned() });
                choice.reasons.push(format!("{}: {reason}", kind.as_str()));
                choice.take_from(index + 1, kernel, &self.terms);
                return true;
            }
        }
        false
    }

    /// What the kernel refused, whether or not something else does as well.
    pub fn refusals(&self) -> &[Refusal] {
        &self.refusals
    }

    /// Whether this program is to be loaded.
    pub fn takes(&self, program: &str) -> bool {
        self.way(program).is_some()
    }

    /// Whether something is run in each network namespace.
    pub fn enters(&self) -> bool {
        self.choices.iter().filter_map(Choice::way).any(|way| way.enters)
    }

    /// The number of the classic tracepoint that this program is to hang on; `None` if it hangs on something else.
    pub fn number(&self, program: &str) -> Option<u32> {
        let way = self.way(program).filter(|way| way.kind == HookKind::Tracepoint && way.program == program)?;
        self.numbers.get(way.target).copied()
    }

    fn way(&self, program: &str) -> Option<&'static Alternative> {
        self.choices.iter().filter_map(Choice::way).find(|way| way.uses(program))
    }

    /// # Errors
    /// If a hook is absent without which the collector is no use.
    pub fn check(&self) -> Result<(), Missing> {
        match self.choices.iter().find(|choice| choice.taken.is_none() && choice.hook.without.is_none()) {
            Some(choice) => Err(Missing { hook: choice.hook.name, reason: choice.reason(), declined: choice.declined }),
            None => Ok(()),
        }
    }

    /// What became of every hook.
    pub fn reports(&self) -> Vec<HookReport> {
        let report = |choice: &Choice| HookReport {
            name: choice.hook.name,
            kind: choice.way().map(|way| way.kind),
            tax: choice.way().map_or("", |way| way.tax),
            enters: choice.way().is_some_and(|way| way.enters),
            forced: choice.forced,
            reason: if choice.taken.is_some() { String::new() } else { choice.reason() },
        };
        self.choices.iter().map(report).collect()
    }

    /// What is missing for want of optional hooks or of better ways, in words; empty if nothing is.
    pub fn missing(&self) -> String {
        let texts = self.choices.iter().filter_map(|choice| {
            let missing = match choice.way() {
                Some(way) => way.lacks,
                None => choice.hook.without?,
            };
            (!missing.is_empty()).then(|| format!("{missing} ({}: {})", choice.hook.name, choice.reason()))
        });
        texts.collect::<Vec<_>>().join("; ")
    }
}

impl Choice {
    fn way(&self) -> Option<&'static Alternative> {
        self.taken.map(|index| &self.hook.alternatives[index])
    }

    fn reason(&self) -> String {
        self.reasons.join(", ")
    }

    /// Whoever forces a way takes what it costs.
    fn take_from(&mut self, first: usize, kernel: &Kernel, terms: &Terms) {
        self.taken = None;
        self.declined = false;
        let only = terms.only.as_ref().filter(|_| self.forced);
        for (index, way) in self.hook.alternatives.iter().enumerate().skip(first) {
            if only.is_some_and(|only| !way.is(&only.kind)) {
                continue;
            } else if let Some(reason) = unavailable(way, kernel) {
                self.reasons.push(reason);
            } else if !way.tax.is_empty() && !terms.named && !self.forced {
                self.declined = true;
                let (kind, target, tax) = (way.kind.as_str(), way.target, way.tax);
                self.reasons.push(format!("{kind} {target} would take {tax}: name the module to accept that"));
            } else {
                self.taken = Some(index);
                return;
            }
        }
    }
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
        return Some("this kernel was built without BTF (CONFIG_DEBUG_INFO_BTF)".to_owned());
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

#[cfg(test)]
mod tests {
    use super::*;

    static HOOKS: &[Hook] = &[
        Hook {
            name: "kfree_skb",
            without: None,
            alternatives: &[
                Alternative::tp_btf("with_reason", "kfree_skb").with_arguments(3),
                Alternative::tp_btf("plain", "kfree_skb").lacking("reasons are not known"),
            ],
        },
        Hook {
            name: "fadvise",
            without: Some("calls are not seen"),
            alternatives: &[
                Alternative::new(HookKind::Fexit, "at_exit", "vfs_fadvise"),
                Alternative::new(HookKind::Tracepoint, "at_syscall", "syscalls/sys_exit_fadvise64")
                    .taxing("40 ns of every system call"),
            ],
        },
    ];

    const NAMED: Terms = Terms { named: true, only: None };

    fn only(kind: &str) -> Terms {
        let (kind, setting) = (kind.to_owned(), "collector.m.hook".to_owned());
        Terms { named: false, only: Some(Only { kind, setting }) }
    }

    fn kernel(arguments: usize) -> Kernel {
        let names = [("btf_trace_kfree_skb", arguments), ("vfs_fadvise", 0)];
        let names = names.map(|(name, arguments)| (name.to_owned(), arguments)).into();
        let numbers = [("syscalls/sys_exit_fadvise64".to_owned(), 612)].into();
        Kernel { btf: Some(true), tracefs: Some(true), names, numbers, ..Kernel::default() }
    }

    #[test]
    fn the_first_way_that_the_kernel_offers_is_taken() {
        let plan = Plan::new(HOOKS, &kernel(3), Terms::default());
        assert!(plan.takes("with_reason") && plan.takes("at_exit") && !plan.takes("plain"));
        assert_eq!((plan.check(), plan.missing()), (Ok(()), String::new()));
    }

    #[test]
    fn a_lesser_way_says_what_it_lacks_and_why_it_was_taken() {
        let plan = Plan::new(HOOKS, &kernel(2), Terms::default());
        assert!(plan.takes("plain"));
        let text =
            "reasons are not known (kfree_skb: the tracepoint kfree_skb of this kernel has fewer than 3 arguments)";
        assert_eq!((plan.check(), plan.missing()), (Ok(()), text.to_owned()));
    }

    #[test]
    fn an_older_kernel_takes_another_way_with_all_its_programs() {
        static HOOKS: &[Hook] = &[Hook {
            name: "sockets",
            without: None,
            alternatives: &[
                Alternative::tp_btf("new", "kfree_skb").since(LINUX_5_12),
                Alternative::tp_btf("old", "kfree_skb").along("cleaner").lacking("some are not seen"),
            ],
        }];
        let helpers = [(0, LINUX_5_12.sign.to_owned())];
        let recent = Kernel { enums: [(kernel::HELPERS.to_owned(), helpers.into())].into(), ..kernel(2) };
        let plan = Plan::new(HOOKS, &recent, Terms::default());
        assert!(plan.since_5_12() && plan.takes("new") && !plan.takes("old") && !plan.takes("cleaner"));
        let mut plan = Plan::new(HOOKS, &kernel(2), Terms::default());
        assert!(!plan.since_5_12() && plan.takes("old") && plan.takes("cleaner") && !plan.takes("new"));
        assert_eq!(plan.missing(), "some are not seen (sockets: this kernel is older than Linux 5.12)");
        // One does not go without the other.
        assert!(plan.refuse("cleaner", "EINVAL", &kernel(2)));
        assert!(!plan.takes("old") && plan.check().is_err());
    }

    #[test]
    fn unrelated_work_is_taxed_only_for_modules_that_were_named() {
        for named in [false, true] {
            let mut plan = Plan::new(HOOKS, &kernel(3), Terms { named, only: None });
            assert!(plan.refuse("at_exit", "EPERM", &kernel(3)));
            assert_eq!(plan.takes("at_syscall"), named);
            let report = &plan.reports()[1];
            let (kind, tax) =
                (named.then_some(HookKind::Tracepoint), if named { "40 ns of every system call" } else { "" });
            assert_eq!((report.kind, report.tax), (kind, tax));
            assert_eq!(plan.missing().contains("name the module to accept that"), !named, "{}", plan.missing());
        }
    }

    #[test]
    fn a_forced_way_is_taken_before_better_ones_and_whatever_it_costs() {
        let plan = Plan::new(HOOKS, &kernel(3), only("tracepoint"));
        assert!(plan.takes("at_syscall") && !plan.takes("at_exit"));
        assert!(plan.takes("with_reason"), "a hook that has no such way is had as always");
        assert_eq!(plan.reports().iter().map(|hook| hook.forced).collect::<Vec<_>>(), [false, true]);
        // It is as good as the best: nothing is missing.
        assert_eq!((plan.check(), plan.missing()), (Ok(()), String::new()));
    }

    #[test]
    fn without_the_forced_way_no_other_is_taken() {
        let mut plan = Plan::new(HOOKS, &kernel(3), only("fentry"));
        assert!(plan.takes("at_exit"));
        assert!(plan.refuse("at_exit", "EPERM", &kernel(3)));
        assert_eq!(plan.refusals(), [Refusal { program: "at_exit", reason: "EPERM".to_owned() }]);
        assert!(!plan.takes("at_syscall"));
        assert_eq!(plan.missing(), "calls are not seen (fadvise: collector.m.hook is fentry, fexit: EPERM)");
        let bare = Kernel { tracefs: Some(false), ..kernel(3) };
        let plan = Plan::new(HOOKS, &bare, only("tracepoint"));
        let reason = "collector.m.hook is tracepoint, tracefs is neither mounted nor ours to mount (CAP_SYS_ADMIN)";
        assert_eq!(plan.reports()[1].reason, reason);
    }

    #[test]
    fn a_way_that_is_the_only_one_anyhow_is_not_forced() {
        let plan = Plan::new(HOOKS, &kernel(2), only("tp_btf"));
        assert!(plan.takes("plain") && plan.takes("at_exit"));
        assert!(plan.reports().iter().all(|hook| !hook.forced));
    }

    #[test]
    fn kinds_are_those_of_the_plans() {
        assert_eq!(kinds(HOOKS), ["tp_btf", "fentry", "tracepoint"]);
    }

    #[test]
    fn an_indispensable_hook_that_was_declined_is_told_from_one_that_is_not_there() {
        static ONLY: &[Hook] = &[HOOK];
        const HOOK: Hook = Hook {
            name: "fadvise",
            without: None,
            alternatives: &[
                Alternative::new(HookKind::Fexit, "at_exit", "no_such_function"),
                Alternative::new(HookKind::Tracepoint, "at_syscall", "syscalls/sys_exit_fadvise64").taxing("40 ns"),
            ],
        };
        assert!(Plan::new(ONLY, &kernel(3), Terms::default()).check().is_err_and(|missing| missing.declined));
        assert_eq!(Plan::new(ONLY, &kernel(3), NAMED).check(), Ok(()));
        let bare = Kernel { tracefs: Some(false), ..kernel(3) };
        assert!(Plan::new(ONLY, &bare, NAMED).check().is_err_and(|missing| !missing.declined));
        assert!(Plan::new(ONLY, &bare, Terms::default()).check().is_err_and(|missing| !missing.declined));
    }
}
