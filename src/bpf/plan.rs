//! The attach plan: of the ways to hang on each hook the one for a given kernel. A pure decision.

use std::collections::BTreeMap;

use crate::bpf::hook::{Alternative, Hook, unavailable};
use crate::kernel::{Kernel, LINUX_WITH_FETCH};
use crate::status::{HookKind, HookReport};

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

/// The decision: for every hook the way that is taken, or why none is.
#[derive(Debug, Clone)]
pub struct Plan {
    choices: Vec<Choice>,
    terms: Terms,
    /// What is missing whatever is attached; empty if nothing is.
    lacks: &'static str,
    has_fetch: bool,
    cast: Option<u32>,
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
    /// All hooks of the collector: without this one, none is in use.
    pub hooks: Vec<HookReport>,
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
        let has_fetch = kernel.is_since(LINUX_WITH_FETCH);
        let (choices, numbers, cast) = (choices.collect(), kernel.numbers.clone(), kernel.cast);
        Plan { choices, terms, lacks: "", has_fetch, cast, refusals: Vec::new(), numbers }
    }

    /// Says what is missing whatever is attached.
    pub fn lacking(self, lacks: &'static str) -> Plan {
        Plan { lacks, ..self }
    }

    /// Whether the kernel is [that new](LINUX_WITH_FETCH), as `has_fetch()` of the programs says.
    pub fn has_fetch(&self) -> bool {
        self.has_fetch
    }

    /// [`Kernel::cast`].
    pub fn cast(&self) -> Option<u32> {
        self.cast
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
            Some(choice) => {
                let (hook, reason, declined) = (choice.hook.name, choice.reason(), choice.declined);
                Err(Missing { hook, reason, declined, hooks: self.unused(hook) })
            }
            None => Ok(()),
        }
    }

    /// What is to be said of the hooks where one is missing without which the others are no use.
    fn unused(&self, missing: &str) -> Vec<HookReport> {
        let unused = |report: HookReport| match report.kind {
            None => report,
            Some(_) => {
                let reason = format!("no use without {missing}");
                HookReport { kind: None, target: "", tax: "", enters: false, reason, ..report }
            }
        };
        self.reports().into_iter().map(unused).collect()
    }

    /// What became of every hook.
    pub fn reports(&self) -> Vec<HookReport> {
        let report = |choice: &Choice| HookReport {
            name: choice.hook.name,
            kind: choice.way().map(|way| way.kind),
            target: choice.way().map_or("", |way| way.target),
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
        let untold = Some(self.lacks.to_owned()).filter(|lacks| !lacks.is_empty());
        texts.chain(untold).collect::<Vec<_>>().join("; ")
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
                if !self.reasons.contains(&reason) {
                    self.reasons.push(reason);
                }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bpf::hook::kinds;
    use crate::kernel;

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
                Alternative::tp_btf("new", "kfree_skb").since(LINUX_WITH_FETCH),
                Alternative::tp_btf("old", "kfree_skb").along("cleaner").lacking("some are not seen"),
            ],
        }];
        let helpers = [(0, LINUX_WITH_FETCH.sign.to_owned())];
        let recent = Kernel { enums: [(kernel::HELPERS.to_owned(), helpers.into())].into(), ..kernel(2) };
        let plan = Plan::new(HOOKS, &recent, Terms::default());
        assert!(plan.has_fetch() && plan.takes("new") && !plan.takes("old") && !plan.takes("cleaner"));
        let mut plan = Plan::new(HOOKS, &kernel(2), Terms::default());
        assert!(!plan.has_fetch() && plan.takes("old") && plan.takes("cleaner") && !plan.takes("new"));
        let version = LINUX_WITH_FETCH.number;
        assert_eq!(plan.missing(), format!("some are not seen (sockets: this kernel is older than Linux {version})"));
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
