//! Ways into network namespaces, whose sockets some kernels show only from within.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::skel::types::tcp_namespace;

/// Where `ip netns` and container runtimes give names to namespaces.
const NAMED: &str = "/run/netns";

/// Opens namespaces to be entered, all but our own. One is left out if nobody lives there and it has no name. They are not
/// to be kept open: a namespace lasts as long as somebody has it open.
pub fn others(namespaces: impl Iterator<Item = tcp_namespace>) -> Vec<File> {
    let ours = fs::metadata("/proc/self/ns/net").map(|link| link.ino()).ok();
    let mut named = None;
    let others = namespaces.filter(|ns| Some(ns.inum.into()) != ours);
    let open = |ns: tcp_namespace| {
        let inhabited = (ns.pid != 0).then(|| open(&door(&ns), &ns)).flatten();
        inhabited.or_else(|| open(named.get_or_insert_with(names).get(&u64::from(ns.inum))?, &ns))
    };
    others.filter_map(open).collect()
}

/// Whether the process that was seen in the namespace still lives there.
pub fn is_inhabited(ns: &tcp_namespace) -> bool {
    ns.pid != 0 && fs::metadata(door(ns)).is_ok_and(|link| link.ino() == u64::from(ns.inum))
}

/// Whether [`others`] finds a namespace. The names are read once for all that are asked about.
pub fn known() -> impl FnMut(&tcp_namespace) -> bool {
    let mut named = None;
    move |ns| is_inhabited(ns) || named.get_or_insert_with(names).contains_key(&u64::from(ns.inum))
}

fn door(ns: &tcp_namespace) -> PathBuf {
    format!("/proc/{}/ns/net", ns.pid).into()
}

/// Process ids and names may by now lead elsewhere.
fn open(path: &Path, ns: &tcp_namespace) -> Option<File> {
    let file = File::open(path).ok()?;
    file.metadata().is_ok_and(|found| found.ino() == u64::from(ns.inum)).then_some(file)
}

/// By inode number.
fn names() -> HashMap<u64, PathBuf> {
    let entries = fs::read_dir(NAMED).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some((fs::metadata(entry.path()).ok()?.ino(), entry.path()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_where_its_process_lives_and_nowhere_else() {
        let inum = fs::metadata("/proc/self/ns/net").unwrap().ino() as u32;
        let here = tcp_namespace { pid: std::process::id(), inum, ..tcp_namespace::default() };
        assert!(is_inhabited(&here) && open(&door(&here), &here).is_some());
        let elsewhere = tcp_namespace { inum: inum - 1, ..here };
        assert!(!is_inhabited(&elsewhere) && open(&door(&elsewhere), &elsewhere).is_none());
        assert!(!is_inhabited(&tcp_namespace { pid: 0, ..here }));
        let mut is_known = known();
        assert!(is_known(&here) && !is_known(&tcp_namespace::default()));
        // Ours needs no entering.
        assert_eq!(others([here].into_iter()).len(), 0);
    }
}
