//! The ways in which the hooks of a module can be attached, and hosts that lack some of them.

use std::io::{Write, stdout};

use ebpf_sidecar::bpf::hook::{Alternative, Hook, btf_name, kinds, unavailable};
use ebpf_sidecar::collectors::{AUTO, Config, Spec};
use ebpf_sidecar::kernel::Kernel;
use ebpf_sidecar::status::HookKind;

/// No tracepoint has this number.
const NOBODYS: u32 = 1 << 20;

/// One way to hang on a hook.
#[derive(Clone, Copy)]
pub struct Way {
    pub hook: &'static Hook,
    pub how: &'static Alternative,
}

impl Way {
    /// Its kind, with the program where several ways of a hook are of the same kind.
    pub fn label(&self) -> String {
        let kind = self.how.kind;
        let alike = self.hook.alternatives.iter().filter(|other| other.kind == kind).count();
        if alike == 1 { kind.as_str().to_owned() } else { format!("{} ({})", kind.as_str(), self.how.program) }
    }
}

/// Ways that one host, and one setting, make a module take all together if they are to be had.
pub struct Forced {
    pub setting: &'static str,
    pub kernel: Kernel,
    pub ways: Vec<Way>,
}

/// The programs of all ways.
pub fn programs(spec: &Spec) -> impl Iterator<Item = &'static str> + use<> {
    spec.hooks.iter().flat_map(|hook| hook.alternatives).map(|how| how.program)
}

/// Every way of every hook, each once.
pub fn forced(spec: &'static Spec, kernel: &Kernel) -> Vec<Forced> {
    // Iterators have no other way.
    let settings = kinds(spec.hooks).into_iter().chain([AUTO]);
    settings.flat_map(|setting| (0..).map_while(move |depth| at_depth(spec, kernel, setting, depth))).collect()
}

/// The hooks that have more than `depth` ways of a kind, on a host that lacks the first ones.
fn at_depth(spec: &'static Spec, kernel: &Kernel, setting: &'static str, depth: usize) -> Option<Forced> {
    let mut kernel = kernel.clone();
    let mut ways = Vec::new();
    for hook in spec.hooks {
        let alike = |how: &&Alternative| how.kind.asked_for_as().unwrap_or(AUTO) == setting;
        if let Some(how) = hook.alternatives.iter().filter(alike).nth(depth) {
            hook.alternatives.iter().filter(alike).take(depth).for_each(|better| take_away(&mut kernel, better));
            ways.push(Way { hook, how });
        }
    }
    (!ways.is_empty()).then_some(Forced { setting, kernel, ways })
}

/// Makes of a host one that does not offer a way, and all else that it can without that.
pub fn take_away(kernel: &mut Kernel, way: &Alternative) {
    if unavailable(way, kernel).is_some() {
        return;
    }
    match way.kind {
        HookKind::TpBtf if way.arguments > 0 => _ = kernel.names.insert(btf_name(way), way.arguments - 1),
        HookKind::TpBtf | HookKind::Iter => _ = kernel.names.remove(&btf_name(way)),
        HookKind::Fentry | HookKind::Fexit => kernel.fentry = Some(false),
        HookKind::Kprobe => kernel.kprobes = Some(false),
        HookKind::Tracepoint => _ = kernel.numbers.remove(way.target),
    }
}

/// Makes of a host one that is believed to offer a way.
pub fn pretend(kernel: &mut Kernel, way: &Alternative) {
    kernel.names.insert(btf_name(way), way.arguments);
    kernel.numbers.entry(way.target.to_owned()).or_insert(NOBODYS);
    (kernel.fentry, kernel.kprobes, kernel.perf_events, kernel.tracefs) = (None, None, None, None);
}

/// A configuration in which everything that can be counted is, and a module's hooks are attached in this way.
pub fn config(spec: &Spec, setting: &str) -> Config {
    let mut sections = serde_json::json!({ "page-cache": { "lookups": true } });
    sections[spec.name]["hook"] = setting.into();
    serde_json::from_value(sections).expect("these are settings of the collectors")
}

/// Prints a line of fields that whoever runs the tests may collect: past the harness, which keeps what tests print.
pub fn tell(fields: &[&str]) {
    writeln!(stdout(), "\n{}", fields.join("\t")).expect("somebody reads");
}
