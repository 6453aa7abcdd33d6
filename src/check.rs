//! `ebpf-sidecar check`: what this host supports, before anything is loaded.

use std::fmt;

use caps::CapsHashSet;
use serde_json::{Map, Value, json};

use crate::kernel::{Cgroup, Kernel, Lockdown};
use crate::privileges::{self, Missing};
use crate::status::{self, Health, HookKind, HookReport, ModuleReport, Status};

/// All that the verdict rests on.
#[derive(Debug)]
pub struct Report<'a> {
    /// The host.
    pub kernel: &'a Kernel,
    /// Capabilities that the process lacks.
    pub missing: Option<Missing>,
    /// What will be less good with the capabilities that it has.
    pub note: Option<String>,
    /// What would be watched, in words.
    pub watching: String,
    /// Each module, with the hooks that it would use.
    pub modules: &'a [ModuleReport],
    /// What helps the modules, in the same form.
    pub helpers: &'a [ModuleReport],
}

/// Exit code of the command: 0 if every wanted module is fully available, 1 if less is, 2 if the daemon cannot run.
pub fn verdict(report: &Report<'_>) -> u8 {
    if report.hindrance().is_some() {
        return 2;
    }
    match status::health(report.modules) {
        Health::Healthy if report.modules.iter().any(|module| module.declined) => 1,
        Health::Healthy if report.helpers.iter().any(|helper| helper.status != Status::Running) => 1,
        Health::Healthy => 0,
        Health::Degraded => 1,
        Health::Unhealthy => 2,
    }
}

/// The verdict in words, and the first reason for it.
fn conclusion(report: &Report<'_>) -> String {
    match (verdict(report), report.hindrance()) {
        (0, _) => "everything is available".to_owned(),
        (1, _) => "it runs, with less than everything".to_owned(),
        (_, Some(reason)) => format!("it cannot run: {reason}"),
        (_, None) => "it cannot run: no module is available".to_owned(),
    }
}

/// The facts about the host; null where it could not be told.
fn facts(kernel: &Kernel) -> [(&'static str, Value); 7] {
    [
        ("kernel", json!(kernel.release)),
        ("btf", json!(kernel.btf.map(|there| there && kernel.btf_error.is_none()))),
        ("lockdown", json!(kernel.lockdown.map(Lockdown::as_str))),
        ("cgroup", json!(kernel.cgroup.map(Cgroup::as_str))),
        ("tracefs", json!(kernel.tracefs)),
        ("kprobes", json!(kernel.kprobes)),
        ("fentry", json!(kernel.fentry)),
    ]
}

/// A fact for people.
fn in_words(fact: &Value) -> &str {
    match fact {
        Value::Bool(true) => "yes",
        Value::Bool(false) => "no",
        other => other.as_str().unwrap_or("unknown"),
    }
}

impl<'a> Report<'a> {
    /// From what was found: the host, what the process may do, what it is to watch, and what each module would use.
    pub fn new(
        kernel: &'a Kernel,
        held: &CapsHashSet,
        watching: String,
        modules: &'a [ModuleReport],
        helpers: &'a [ModuleReport],
    ) -> Self {
        let enters = modules.iter().filter(|module| module.runs()).any(ModuleReport::enters);
        let (missing, note) =
            (privileges::require_with_memory(held, kernel.map_memory).err(), privileges::note(held, enters));
        Report { kernel, missing, note, watching, modules, helpers }
    }

    /// Why nothing can run here, whatever is to be had for the modules.
    fn hindrance(&self) -> Option<String> {
        let missing = self.missing.as_ref().map(Missing::to_string);
        missing.or_else(|| self.kernel.fit().err().map(|unfit| unfit.to_string()))
    }

    /// For machines.
    pub fn to_json(&self) -> Value {
        let host: Map<_, _> = facts(self.kernel).map(|(name, fact)| (name.to_owned(), fact)).into_iter().collect();
        json!({
            "verdict": match verdict(self) { 0 => "available", 1 => "degraded", _ => "unavailable" },
            "conclusion": conclusion(self),
            "host": host,
            "capabilities": {
                "missing": self.missing.as_ref().map(Missing::names).unwrap_or_default(),
                "note": self.note,
            },
            "watching": self.watching,
            "modules": self.modules.iter().map(|module| self.module(module)).collect::<Vec<_>>(),
            "helpers": self.helpers.iter().map(|helper| self.module(helper)).collect::<Vec<_>>(),
        })
    }

    fn module(&self, module: &ModuleReport) -> Value {
        let (status, reason, hooks) = match self.hindrance() {
            Some(reason) if module.status != Status::Disabled => (Status::Unsupported, reason, &[][..]),
            _ => (module.status, module.reason.clone(), &module.hooks[..]),
        };
        json!({
            "name": module.name,
            "summary": module.summary,
            "status": status.as_str(),
            "reason": reason,
            "hooks": hooks.iter().map(hook).collect::<Vec<_>>(),
        })
    }
}

fn hook(hook: &HookReport) -> Value {
    json!({
        "name": hook.name,
        "kind": hook.kind.map(HookKind::as_str),
        "target": hook.target,
        "cost": hook.cost().as_str(),
        "tax": hook.tax,
        "forced": hook.forced,
        "reason": hook.reason,
    })
}

/// For people.
impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, fact) in facts(self.kernel) {
            writeln!(f, "{name:<14}{}", in_words(&fact))?;
        }
        let lacking = self.missing.as_ref().map(|missing| format!("lacking {}", missing.names().join(" and ")));
        writeln!(f, "{:<14}{}", "capabilities", lacking.as_deref().unwrap_or("sufficient"))?;
        if let Some(note) = &self.note {
            writeln!(f, "{:<14}{note}", "")?;
        }
        writeln!(f, "{:<14}{}", "watching", self.watching)?;
        for module in self.modules.iter().chain(self.helpers) {
            writeln!(f)?;
            if self.hindrance().is_some() {
                writeln!(f, "{:<14}cannot run", module.name)?;
                continue;
            }
            writeln!(f, "{:<14}{}{}", module.name, module.status, because(&module.reason))?;
            if module.status != Status::Disabled {
                module.hooks.iter().try_for_each(|hook| row(f, hook))?;
            }
        }
        writeln!(f)?;
        writeln!(f, "{}", conclusion(self))
    }
}

fn row(f: &mut fmt::Formatter<'_>, hook: &HookReport) -> fmt::Result {
    let kind = hook.kind.map_or("absent", HookKind::as_str);
    let price = if hook.tax.is_empty() { String::new() } else { format!("; it takes {}", hook.tax) };
    let forced = if hook.forced { " (forced)" } else { "" };
    let elsewhere = if hook.name.starts_with(hook.target) { String::new() } else { format!(", by {}", hook.target) };
    writeln!(f, "  {kind:<12}{}{elsewhere}{forced}{}{price}", hook.name, because(&hook.reason))
}

fn because(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(": {reason}") }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use caps::Capability;

    use super::*;
    use crate::kernel::HELPERS;

    fn hook(reason: &str) -> HookReport {
        HookReport {
            name: "",
            kind: None,
            target: "",
            tax: "",
            enters: false,
            forced: false,
            reason: reason.to_owned(),
        }
    }

    fn of(status: Status) -> ModuleReport {
        let reason = if status == Status::Running { "" } else { "no iterator tcp" };
        ModuleReport {
            name: "tcp",
            summary: "TCP connections",
            status,
            reason: reason.to_owned(),
            declined: false,
            hooks: vec![
                HookReport {
                    name: "inet_sock_set_state",
                    kind: Some(HookKind::TpBtf),
                    target: "inet_sock_set_state",
                    ..hook("")
                },
                HookReport { name: "bpf_sk_storage_map", kind: Some(HookKind::Iter), target: "tcp", ..hook("") },
                HookReport { name: "page_cache_sync_ra", kind: Some(HookKind::Kprobe), forced: true, ..hook("") },
                HookReport { name: "tcp", ..hook("no iterator tcp") },
            ],
            programs: vec![],
            maps: vec![],
        }
    }

    fn host() -> Kernel {
        Kernel {
            release: "6.1.0".to_owned(),
            btf: Some(true),
            lockdown: Some(Lockdown::None),
            cgroup: Some(Cgroup::V2),
            tracefs: Some(false),
            fentry: Some(false),
            enums: helpers(&["BPF_FUNC_ringbuf_output", "BPF_FUNC_check_mtu"]),
            ..Kernel::default()
        }
    }

    fn helpers(names: &[&str]) -> BTreeMap<String, Vec<(u32, String)>> {
        [(HELPERS.to_owned(), names.iter().map(|&name| (0, name.to_owned())).collect())].into()
    }

    fn report<'a>(kernel: &'a Kernel, modules: &'a [ModuleReport]) -> Report<'a> {
        let held = [Capability::CAP_BPF, Capability::CAP_PERFMON, Capability::CAP_SYS_PTRACE];
        Report::new(kernel, &held.into_iter().collect(), "everything".to_owned(), modules, &[])
    }

    #[test]
    fn the_verdict_is_what_the_worst_obstacle_leaves() {
        let host = host();
        assert_eq!(verdict(&report(&host, &[of(Status::Running), of(Status::Disabled)])), 0);
        assert_eq!(verdict(&report(&host, &[of(Status::Running), of(Status::Unsupported)])), 1);
        assert_eq!(verdict(&report(&host, &[of(Status::Degraded)])), 1);
        assert_eq!(verdict(&report(&host, &[of(Status::Unsupported)])), 2);
        assert_eq!(verdict(&report(&host, &[])), 2);

        let without_btf = Kernel { btf: Some(false), ..host.clone() };
        assert_eq!(verdict(&report(&without_btf, &[of(Status::Running)])), 2);
        let unreadable = Kernel { btf_error: Some("it is empty".to_owned()), ..host.clone() };
        assert_eq!(verdict(&report(&unreadable, &[of(Status::Running)])), 2);
        assert_eq!(report(&unreadable, &[]).to_json()["host"]["btf"], false);
        let too_old = Kernel { enums: helpers(&["BPF_FUNC_probe_read_kernel"]), ..host.clone() };
        let (report_of_it, modules) = (|modules| report(&too_old, modules), [of(Status::Running)]);
        assert_eq!(verdict(&report_of_it(&modules)), 2);
        assert!(conclusion(&report_of_it(&modules)).starts_with("it cannot run: this kernel is older than Linux 5.8"));

        assert_eq!(verdict(&Report::new(&host, &CapsHashSet::new(), String::new(), &[of(Status::Running)], &[])), 2);
    }

    #[test]
    fn no_module_runs_where_nothing_can() {
        let (host, nobody) = (host(), CapsHashSet::new());
        let (modules, helpers) = ([of(Status::Running), of(Status::Disabled)], [of(Status::Degraded)]);
        let json = Report::new(&host, &nobody, String::new(), &modules, &helpers).to_json();
        for report in [&json["modules"][0], &json["helpers"][0]] {
            assert_eq!((&report["status"], &report["hooks"]), (&json!("unsupported"), &json!([])));
            assert_eq!(json["conclusion"], format!("it cannot run: {}", report["reason"].as_str().unwrap()));
        }
        assert_eq!(json["modules"][1]["status"], "disabled");
    }

    #[test]
    fn people_read_a_table() {
        let expected = "\
kernel        6.1.0
btf           yes
lockdown      none
cgroup        v2
tracefs       no
kprobes       unknown
fentry        no
capabilities  sufficient
watching      everything

tcp           degraded: no iterator tcp
  tp_btf      inet_sock_set_state
  iter        bpf_sk_storage_map, by tcp
  kprobe      page_cache_sync_ra (forced)
  absent      tcp: no iterator tcp

it runs, with less than everything
";
        assert_eq!(report(&host(), &[of(Status::Degraded)]).to_string(), expected);
    }

    #[test]
    fn machines_are_told_what_is_not_known() {
        let (host, modules) = (host(), [of(Status::Degraded)]);
        let json = report(&host, &modules).to_json();
        assert_eq!(json["verdict"], "degraded");
        assert_eq!(json["host"]["kprobes"], Value::Null);
        assert_eq!(json["modules"][0]["hooks"][0]["kind"], "tp_btf");
        assert_eq!(json["modules"][0]["hooks"][1]["target"], "tcp");
        assert_eq!(json["modules"][0]["hooks"][2]["forced"], true);
        assert_eq!(json["modules"][0]["hooks"][3]["kind"], Value::Null);
    }
}
