//! The attach plan: what a collector wants to hang on, as data, and the pure decision for a given kernel.

use crate::kernel::{self, Kernel};
use crate::status::{Cost, HookKind, HookReport};

/// One thing to listen to, with the ways to do it: the first that this kernel offers is taken.
#[derive(Debug)]
pub struct Hook {
    /// What is listened to.
    pub name: &'static str,
    /// What it costs, whichever way is taken.
    pub cost: Cost,
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
    /// Tracepoint, function or iterator, by its name in the kernel.
    pub target: &'static str,
}

/// The decision: for every hook the way that is taken, or why none is.
#[derive(Debug, Clone)]
pub struct Plan {
    choices: Vec<Choice>,
}

#[derive(Debug, Clone)]
struct Choice {
    hook: &'static Hook,
    /// Index into the alternatives; those before it are not to be had.
    taken: Option<usize>,
    /// Why the alternatives before it are not to be had.
    reasons: Vec<String>,
}

/// A hook that the collector cannot do without is absent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{hook} cannot be attached: {reason}")]
pub struct Missing {
    /// The hook.
    pub hook: &'static str,
    /// Why, for each way there is.
    pub reason: String,
}

impl Plan {
    /// Decides from what is known of the kernel, before anything is loaded.
    pub fn new(hooks: &'static [Hook], kernel: &Kernel) -> Plan {
        let choices = hooks.iter().map(|hook| {
            let mut choice = Choice { hook, taken: None, reasons: Vec::new() };
            choice.take_from(0, kernel);
            choice
        });
        Plan { choices: choices.collect() }
    }

    /// Gives up the way that uses `program`, because the kernel refused it, and takes the next. `false` if the plan has
    /// no such program.
    pub fn refuse(&mut self, program: &str, reason: &str, kernel: &Kernel) -> bool {
        for choice in &mut self.choices {
            if let Some(index) = choice.taken
                && choice.hook.alternatives[index].program == program
            {
                choice.reasons.push(format!("{}: {reason}", choice.hook.alternatives[index].kind.as_str()));
                choice.take_from(index + 1, kernel);
                return true;
            }
        }
        false
    }

    /// Whether this program is to be loaded.
    pub fn takes(&self, program: &str) -> bool {
        self.choices.iter().filter_map(Choice::way).any(|way| way.program == program)
    }

    /// # Errors
    /// If a hook is absent without which the collector is no use.
    pub fn check(&self) -> Result<(), Missing> {
        match self.choices.iter().find(|choice| choice.taken.is_none() && choice.hook.without.is_none()) {
            Some(choice) => Err(Missing { hook: choice.hook.name, reason: choice.reason() }),
            None => Ok(()),
        }
    }

    /// What became of every hook.
    pub fn reports(&self) -> Vec<HookReport> {
        let report = |choice: &Choice| HookReport {
            name: choice.hook.name,
            kind: choice.way().map(|way| way.kind),
            cost: choice.hook.cost,
            reason: if choice.taken.is_some() { String::new() } else { choice.reason() },
        };
        self.choices.iter().map(report).collect()
    }

    /// What is missing for want of optional hooks, in words; empty if nothing is.
    pub fn missing(&self) -> String {
        let missing = self.choices.iter().filter(|choice| choice.taken.is_none());
        let texts = missing.filter_map(|choice| {
            let without = choice.hook.without?;
            Some(format!("{without} ({}: {})", choice.hook.name, choice.reason()))
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

    fn take_from(&mut self, first: usize, kernel: &Kernel) {
        self.taken = None;
        for (index, way) in self.hook.alternatives.iter().enumerate().skip(first) {
            match unavailable(way, kernel) {
                None => {
                    self.taken = Some(index);
                    return;
                }
                Some(reason) => self.reasons.push(reason),
            }
        }
    }
}

/// The name by which the kernel's BTF knows what a way hangs on.
pub fn btf_name(way: &Alternative) -> String {
    match way.kind {
        HookKind::TpBtf => kernel::tracepoint(way.target),
        HookKind::Iter => kernel::iterator(way.target),
        HookKind::Fentry | HookKind::Kprobe | HookKind::Tracepoint => way.target.to_owned(),
    }
}

/// Why this kernel does not offer a way, as far as can be known without trying.
fn unavailable(way: &Alternative, kernel: &Kernel) -> Option<String> {
    let target = way.target;
    if kernel.btf == Some(false) {
        return Some("this kernel was built without BTF (CONFIG_DEBUG_INFO_BTF)".to_owned());
    }
    if let Some(error) = &kernel.btf_error {
        return Some(format!("the kernel's BTF cannot be read: {error}"));
    }
    match way.kind {
        HookKind::TpBtf if !kernel.has_tracepoint(target) => Some(format!("this kernel has no tracepoint {target}")),
        HookKind::Iter if !kernel.has_iterator(target) => Some(format!("this kernel has no iterator {target}")),
        HookKind::Fentry if !kernel.has_function(target) => Some(format!("this kernel has no function {target}")),
        HookKind::Kprobe if kernel.kprobes == Some(false) => Some("this kernel has no kprobes".to_owned()),
        HookKind::Tracepoint if kernel.tracefs == Some(false) => Some("tracefs is not mounted".to_owned()),
        _ => None,
    }
}
