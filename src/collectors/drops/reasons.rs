//! Names of drop reasons, as the running kernel tells them: numbers move from one version to the next. Pure.

use std::collections::HashMap;

/// The reasons of the kernel's core.
pub const CORE: &str = "skb_drop_reason";

/// Who else has reasons: what the upper half of a reason means.
pub const SUBSYSTEMS: &str = "skb_drop_reason_subsys";

/// Where the reasons of a subsystem are named.
#[derive(Debug, PartialEq, Eq)]
pub struct Module {
    subsystem: &'static str,
    /// The kernel module.
    pub module: &'static str,
    /// Its enumeration.
    pub enumeration: &'static str,
    prefix: &'static str,
}

const MODULES: &[Module] = &[
    Module { subsystem: "openvswitch", module: "openvswitch", enumeration: "ovs_drop_reason", prefix: "OVS_DROP_" },
    Module {
        subsystem: "mac80211_unusable",
        module: "mac80211",
        enumeration: "mac80211_drop_reason",
        prefix: "RX_DROP_",
    },
    Module {
        subsystem: "mac80211_monitor",
        module: "mac80211",
        enumeration: "mac80211_drop_reason",
        prefix: "RX_DROP_",
    },
];

/// What is known of the running kernel's reasons.
#[derive(Debug, Default)]
pub struct Reasons {
    core: HashMap<u32, String>,
    subsystems: HashMap<u32, String>,
}

impl Reasons {
    /// From [`CORE`] and [`SUBSYSTEMS`].
    pub fn new(core: &[(u32, String)], subsystems: &[(u32, String)]) -> Reasons {
        let plain = |(number, name): &(u32, String)| {
            let name = ["SKB_DROP_REASON_SUBSYS_", "SKB_DROP_REASON_", "SKB_"]
                .iter()
                .find_map(|prefix| name.strip_prefix(prefix))
                .unwrap_or(name);
            (*number, name.to_lowercase())
        };
        Reasons { core: core.iter().map(plain).collect(), subsystems: subsystems.iter().map(plain).collect() }
    }

    /// `no_socket` for SKB_DROP_REASON_NO_SOCKET, `openvswitch:last_action` for a subsystem's. `members` names the
    /// values of an enumeration of a module. What has no name is shown as its number; empty before Linux 5.17, which
    /// has no reasons.
    pub fn name(&self, reason: u32, members: impl Fn(&Module) -> Vec<(u32, String)>) -> String {
        let named = |names: &HashMap<u32, String>, number| {
            names.get(&number).cloned().unwrap_or_else(|| format!("0x{number:x}"))
        };
        let (subsystem, within) = (reason >> 16, reason & 0xffff);
        if self.core.is_empty() {
            return String::new();
        }
        if subsystem == 0 {
            return named(&self.core, reason);
        }
        let subsystem = named(&self.subsystems, subsystem);
        let member = MODULES.iter().find(|module| module.subsystem == subsystem).and_then(|module| {
            let (_, name) = members(module).into_iter().find(|(number, _)| *number == reason)?;
            Some(name.strip_prefix(module.prefix).unwrap_or(&name).to_lowercase())
        });
        format!("{subsystem}:{}", member.unwrap_or_else(|| format!("0x{within:x}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reasons() -> Reasons {
        let named = |pairs: &[(u32, &str)]| pairs.iter().map(|&(n, name)| (n, name.to_owned())).collect::<Vec<_>>();
        Reasons::new(
            &named(&[(0, "SKB_NOT_DROPPED_YET"), (3, "SKB_DROP_REASON_NO_SOCKET")]),
            &named(&[(1, "SKB_DROP_REASON_SUBSYS_MAC80211_UNUSABLE"), (3, "SKB_DROP_REASON_SUBSYS_OPENVSWITCH")]),
        )
    }

    #[test]
    fn reasons_have_the_names_of_the_kernel() {
        let members = |module: &Module| match module.module {
            "openvswitch" => {
                vec![(0x3_0000, "__OVS_DROP_REASON".to_owned()), (0x3_0001, "OVS_DROP_LAST_ACTION".into())]
            }
            _ => Vec::new(),
        };
        let name = |reason| reasons().name(reason, members);
        assert_eq!(name(3), "no_socket");
        assert_eq!(name(0), "not_dropped_yet");
        assert_eq!(name(77), "0x4d");
        assert_eq!(name(0x3_0001), "openvswitch:last_action");
        assert_eq!(name(0x3_0009), "openvswitch:0x9");
        assert_eq!(name(0x1_0005), "mac80211_unusable:0x5");
        assert_eq!(name(0x9_0005), "0x9:0x5");
    }

    #[test]
    fn a_kernel_without_reasons_has_no_names() {
        assert_eq!(Reasons::default().name(0, |_| Vec::new()), "");
    }
}
