//! Our totals beside the kernel's own, namespace by namespace: `/proc/<pid>/net/snmp` of a process that lives there.

use std::collections::HashMap;
use std::fs;

use super::skel::types::tcp_namespace;
use crate::collectors::Audit;

/// The counters that are audited: our name and the kernel's.
const COUNTERS: [(&str, &str); 3] =
    [("retransmits", "RetransSegs"), ("connects", "ActiveOpens"), ("accepts", "PassiveOpens")];

type Totals = [u64; COUNTERS.len()];

/// What was counted in each namespace since it was first looked at.
#[derive(Debug, Default)]
pub struct Auditor {
    known: HashMap<u32, Account>,
}

#[derive(Debug)]
struct Account {
    first: Pair,
    last: Pair,
}

#[derive(Debug, Clone, Copy)]
struct Pair {
    kernel: Totals,
    counted: Totals,
}

impl Auditor {
    /// Takes the present state of the namespaces. One that no process lives in any more keeps its last state.
    pub fn update(&mut self, namespaces: impl Iterator<Item = (u32, tcp_namespace)>) {
        for (inum, ns) in namespaces.filter(|(_, ns)| ns.pid != 0) {
            let Ok(snmp) = fs::read_to_string(format!("/proc/{}/net/snmp", ns.pid)) else { continue };
            let Some(kernel) = tcp_counters(&snmp) else { continue };
            let now = Pair { kernel, counted: [ns.retrans, ns.connects, ns.accepts] };
            self.known.entry(inum).or_insert(Account { first: now, last: now }).last = now;
        }
    }

    /// The sums over all namespaces.
    pub fn totals(&self) -> Vec<Audit> {
        let sum = |of: fn(&Pair) -> &Totals, index: usize| {
            self.known.values().map(|ns| of(&ns.last)[index].saturating_sub(of(&ns.first)[index])).sum()
        };
        let audit = |(index, (counter, _)): (usize, &(&'static str, _))| Audit {
            counter,
            kernel: sum(|pair| &pair.kernel, index),
            counted: sum(|pair| &pair.counted, index),
        };
        COUNTERS.iter().enumerate().map(audit).collect()
    }
}

/// The audited counters from the two `Tcp:` lines: one of names, one of values.
fn tcp_counters(snmp: &str) -> Option<Totals> {
    let mut lines = snmp.lines().filter_map(|line| line.strip_prefix("Tcp:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let values: HashMap<_, _> = names.split_whitespace().zip(values.split_whitespace()).collect();
    let mut totals = Totals::default();
    for (total, (_, name)) in totals.iter_mut().zip(COUNTERS) {
        *total = values.get(name)?.parse().ok()?;
    }
    Some(totals)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_by_name() {
        let snmp =
            "Ip: Forwarding\nIp: 1\nTcp: RtoMin MaxConn ActiveOpens PassiveOpens RetransSegs\nTcp: 200 -1 7 8 9\n";
        assert_eq!(tcp_counters(snmp), Some([9, 7, 8]));
        assert_eq!(tcp_counters("Tcp: ActiveOpens\nTcp: 1\n"), None);
        assert_eq!(tcp_counters(""), None);
    }
}
