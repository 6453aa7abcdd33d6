//! Our totals beside the kernel's own, namespace by namespace: `/proc/<pid>/net/snmp` of a process that lives there.

use std::collections::HashMap;
use std::fs;

use super::namespaces::is_inhabited;
use super::skel::types::tcp_namespace;
use crate::collectors::Audit;

/// The counters that are audited: our name and the kernel's.
const COUNTERS: [(&str, &str); 3] =
    [("retransmits", "RetransSegs"), ("connects", "ActiveOpens"), ("accepts", "PassiveOpens")];

type Totals = [u64; COUNTERS.len()];

/// What was counted in each namespace since it was first looked at.
#[derive(Debug, Default)]
pub struct Auditor {
    known: HashMap<u64, Account>,
    /// The sums over namespaces that are no more.
    ended: Option<Pair>,
}

#[derive(Debug)]
struct Account {
    first: Pair,
    last: Pair,
}

#[derive(Debug, Clone, Copy, Default)]
struct Pair {
    kernel: Totals,
    counted: Totals,
}

impl Auditor {
    /// Takes the present state of the namespaces. One that no process lives in any more keeps its last state.
    pub fn update(&mut self, namespaces: impl Iterator<Item = (u64, tcp_namespace)>) {
        for (id, ns) in namespaces.filter(|(_, ns)| is_inhabited(ns)) {
            let Ok(snmp) = fs::read_to_string(format!("/proc/{}/net/snmp", ns.pid)) else { continue };
            let Some(kernel) = tcp_counters(&snmp) else { continue };
            let now = Pair { kernel, counted: [ns.retrans, ns.connects, ns.accepts] };
            self.known.entry(id).or_insert(Account { first: now, last: now }).last = now;
        }
    }

    /// Closes the account of a namespace. Should it come back, it gets a new one.
    pub fn end(&mut self, id: u64) {
        if let Some(account) = self.known.remove(&id) {
            let ended = self.ended.get_or_insert_default();
            ended.kernel = plus(ended.kernel, account.gain().kernel);
            ended.counted = plus(ended.counted, account.gain().counted);
        }
    }

    /// The sums over all namespaces; nothing as long as the counters of none could be read.
    pub fn totals(&self) -> Vec<Audit> {
        if self.known.is_empty() && self.ended.is_none() {
            return Vec::new();
        }
        let accounts = self.known.values().map(Account::gain).chain(self.ended);
        let sum = accounts.fold(Pair::default(), |sum, pair| Pair {
            kernel: plus(sum.kernel, pair.kernel),
            counted: plus(sum.counted, pair.counted),
        });
        let rows = COUNTERS.iter().zip(sum.kernel).zip(sum.counted);
        rows.map(|(((counter, _), kernel), counted)| Audit { counter, kernel, counted }).collect()
    }
}

impl Account {
    fn gain(&self) -> Pair {
        let minus = |last: Totals, first: Totals| std::array::from_fn(|index| last[index].saturating_sub(first[index]));
        Pair {
            kernel: minus(self.last.kernel, self.first.kernel),
            counted: minus(self.last.counted, self.first.counted),
        }
    }
}

fn plus(a: Totals, b: Totals) -> Totals {
    std::array::from_fn(|index| a[index] + b[index])
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

    #[test]
    fn nothing_is_compared_where_nothing_can_be_read() {
        let mut auditor = Auditor::default();
        auditor.end(7);
        assert_eq!(auditor.totals(), []);
    }

    #[test]
    fn a_namespace_that_ends_keeps_what_it_had() {
        let pair = |n| Pair { kernel: [n; 3], counted: [n; 3] };
        let mut auditor = Auditor::default();
        auditor.known.insert(7, Account { first: pair(10), last: pair(15) });
        auditor.known.insert(8, Account { first: pair(0), last: pair(1) });
        let before = auditor.totals();
        auditor.end(7);
        auditor.end(7);
        assert_eq!(auditor.totals(), before);
        assert_eq!(before[0], Audit { counter: "retransmits", kernel: 6, counted: 6 });
    }
}
