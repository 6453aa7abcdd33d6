//! What the kernel counts itself: `/proc/vmstat`.
//!
//! `pgscan_<cause>` and `pgsteal_<cause>` (kswapd, direct, khugepaged, proactive) leave out what was reclaimed for a
//! cgroup; `pgscan_anon`, `pgscan_file`, `pgsteal_anon` and `pgsteal_file` have it all. The difference is what was
//! reclaimed for cgroups, under either version of them and whichever way the kernel ages pages (`lru_gen` or not).

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read, Seek};

/// Which family a number belongs to, and its label there.
pub type Key = (What, String);

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// Pages looked at, by cause.
    Scanned,
    /// Pages taken back, by cause.
    Reclaimed,
    /// Pages that came back soon, by type.
    Refaults,
}

/// The enumeration of the kernel that tells in which way it counts.
pub const NODE_STATS: &str = "node_stat_item";

/// Whether the counters by cause leave out what was reclaimed for cgroups. They no longer do where they are statistics of
/// the nodes (after 7.0, "mm: move pgscan, pgsteal, pgrefill to node stats"): what is a cgroup's cannot be told there.
pub fn tells_cgroups(node_stats: &[(u32, String)]) -> bool {
    !node_stats.iter().any(|(_, name)| name == "PGSCAN_DIRECT")
}

/// Counters of the kernel, each from the moment it was first read.
#[derive(Debug)]
pub struct Vmstat {
    file: File,
    tells_cgroups: bool,
    first: BTreeMap<Key, u64>,
    gained: BTreeMap<Key, u64>,
}

impl Vmstat {
    /// Begins to count.
    ///
    /// # Errors
    /// If there is no procfs.
    pub fn new(tells_cgroups: bool) -> io::Result<Vmstat> {
        let file = File::open("/proc/vmstat")?;
        let mut vmstat = Vmstat { file, tells_cgroups, first: BTreeMap::new(), gained: BTreeMap::new() };
        vmstat.first = vmstat.read()?;
        Ok(vmstat)
    }

    /// What was counted since.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub fn gained(&mut self) -> io::Result<&BTreeMap<Key, u64>> {
        let now = self.read()?;
        gain(&mut self.gained, &self.first, &now);
        Ok(&self.gained)
    }

    fn read(&mut self) -> io::Result<BTreeMap<Key, u64>> {
        let earlier = self.text()?;
        let later = self.text()?;
        Ok(counts(&earlier, &later, self.tells_cgroups))
    }

    fn text(&mut self) -> io::Result<String> {
        let mut text = String::new();
        self.file.rewind()?;
        self.file.read_to_string(&mut text)?;
        Ok(text)
    }
}

/// A counter never goes down, also where a difference of two seems to.
fn gain(gained: &mut BTreeMap<Key, u64>, first: &BTreeMap<Key, u64>, now: &BTreeMap<Key, u64>) {
    for (key, value) in now {
        let gain = value.saturating_sub(first.get(key).copied().unwrap_or(0));
        let known = gained.entry(key.clone()).or_default();
        *known = gain.max(*known);
    }
}

/// From two readings. The kernel counts a cause before the type, and is read in the same order; so that what kswapd does
/// meanwhile never looks like a cgroup's, the types of the earlier reading are set against the causes of the later one.
/// When nobody reclaims, they are the same.
fn counts(earlier: &str, later: &str, tells_cgroups: bool) -> BTreeMap<Key, u64> {
    let (earlier, later) = (numbers(earlier), numbers(later));
    let mut counts = BTreeMap::new();
    for (what, prefix) in [(What::Scanned, "pgscan_"), (What::Reclaimed, "pgsteal_")] {
        let mut caused = 0;
        for cause in causes(&later) {
            let pages = later[&*format!("{prefix}{cause}")];
            caused += pages;
            counts.insert((what, cause.to_owned()), pages);
        }
        let of_type = |kind| earlier.get(&*format!("{prefix}{kind}"));
        if let (true, Some(anon), Some(file)) = (tells_cgroups, of_type("anon"), of_type("file")) {
            counts.insert((what, "memcg".to_owned()), (anon + file).saturating_sub(caused));
        }
    }
    for kind in ["anon", "file"] {
        if let Some(&pages) = later.get(&*format!("workingset_refault_{kind}")) {
            counts.insert((What::Refaults, kind.to_owned()), pages);
        }
    }
    counts
}

/// The causes that this kernel tells apart: what pages are both scanned and reclaimed for, and is no type of them.
fn causes<'a>(numbers: &'a HashMap<&'a str, u64>) -> impl Iterator<Item = &'a str> {
    let scanned = numbers.keys().filter_map(|name| name.strip_prefix("pgscan_"));
    scanned.filter(|name| !["anon", "file"].contains(name) && numbers.contains_key(&*format!("pgsteal_{name}")))
}

fn numbers(text: &str) -> HashMap<&str, u64> {
    text.lines().filter_map(|line| line.split_once(' ')).filter_map(|(name, n)| Some((name, n.parse().ok()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "workingset_refault_anon 1\nworkingset_refault_file 2\npgsteal_kswapd 10\npgsteal_direct 20\n\
                        pgsteal_khugepaged 0\npgscan_kswapd 100\npgscan_direct 200\npgscan_khugepaged 3\n\
                        pgscan_direct_throttle 7\npgscan_anon 13\npgscan_file 300\npgsteal_anon 0\npgsteal_file 35\n";

    fn shown(counts: &BTreeMap<Key, u64>) -> Vec<String> {
        counts.iter().map(|((what, label), pages)| format!("{what:?} {label} {pages}")).collect()
    }

    #[test]
    fn what_no_cause_accounts_for_was_reclaimed_for_cgroups() {
        let expected = [
            "Scanned direct 200",
            "Scanned khugepaged 3",
            "Scanned kswapd 100",
            "Scanned memcg 10",
            "Reclaimed direct 20",
            "Reclaimed khugepaged 0",
            "Reclaimed kswapd 10",
            "Reclaimed memcg 5",
            "Refaults anon 1",
            "Refaults file 2",
        ];
        assert_eq!(shown(&counts(TEXT, TEXT, true)), expected);
    }

    #[test]
    fn where_the_kernel_does_not_tell_there_is_no_such_series() {
        assert!(!shown(&counts(TEXT, TEXT, false)).concat().contains("memcg"));
        let old = TEXT.replace("pgscan_anon", "x").replace("pgsteal_file", "x");
        assert!(!shown(&counts(&old, &old, true)).concat().contains("memcg"));
        assert!(counts("", "", true).is_empty());
        let of_nodes = [(0, "NR_INACTIVE_ANON".to_owned()), (1, "PGSCAN_DIRECT".to_owned())];
        assert!(!tells_cgroups(&of_nodes));
        assert!(tells_cgroups(&of_nodes[..1]));
    }

    #[test]
    fn what_happens_between_two_readings_is_nobodys_yet_and_counters_never_go_down() {
        let later =
            TEXT.replace("pgscan_kswapd 100", "pgscan_kswapd 132").replace("pgscan_file 300", "pgscan_file 332");
        let scanned = |counts: &BTreeMap<Key, u64>| counts[&(What::Scanned, "memcg".to_owned())];
        let (first, between) = (BTreeMap::new(), counts(TEXT, &later, true));
        assert_eq!(scanned(&between), 0);
        let mut gained = BTreeMap::new();
        for now in [counts(TEXT, TEXT, true), between, counts(&later, &later, true)] {
            gain(&mut gained, &first, &now);
            assert_eq!(scanned(&gained), 10);
        }
    }
}
