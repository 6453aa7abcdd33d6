//! Paths of cgroups.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};

use procfs::process::{MountInfo, Process};

/// When there are more than this, all of them are looked for again.
const KNOWN: usize = 1 << 16;

/// The cgroups of one hierarchy: that of the memory controller, which is of version 1 on some hosts and 2 on others. The
/// kernel knows a cgroup by the inode of its folder, which is not used again.
#[derive(Debug, Default)]
pub struct Cgroups {
    /// `None`: it was looked for, and there was no such folder.
    known: HashMap<u64, Option<Box<str>>>,
}

impl Cgroups {
    /// Makes sure that the cgroups are known, as far as they can be. The hierarchy is walked over at most once, and only
    /// if one of them is new. What is known stays so when the cgroup is gone.
    pub fn learn(&mut self, ids: impl IntoIterator<Item = u64>) {
        let new: Vec<_> = ids.into_iter().filter(|id| !self.known.contains_key(id)).collect();
        if new.is_empty() {
            return;
        }
        if self.known.len() >= KNOWN {
            self.known.clear();
        }
        if let Some(root) = hierarchy() {
            walk(&root, KNOWN, |id, path| _ = self.known.insert(id, Some(path)));
        }
        for id in new {
            self.known.entry(id).or_insert(None);
        }
    }

    /// The path within the hierarchy, as `/proc/<pid>/cgroup` has it; `/` for the root. `None`: not known, as of a cgroup
    /// that was gone before anybody asked, or is outside of our cgroup namespace.
    pub fn path(&self, id: u64) -> Option<&str> {
        self.known.get(&id)?.as_deref()
    }
}

/// Whether the memory controller is in a hierarchy of version 1.
pub fn memory_is_v1() -> bool {
    let mounts = Process::myself().and_then(|process| process.mountinfo());
    mounts.is_ok_and(|mounts| of_memory(&mounts.0).is_some_and(|mount| mount.fs_type == "cgroup"))
}

/// Where the hierarchy is mounted.
fn hierarchy() -> Option<PathBuf> {
    let mounts = Process::myself().and_then(|process| process.mountinfo()).ok()?.0;
    Some(of_memory(&mounts)?.mount_point.clone())
}

/// A controller of version 1 is not in the tree of version 2.
fn of_memory(mounts: &[MountInfo]) -> Option<&MountInfo> {
    let find = |wanted: &dyn Fn(&MountInfo) -> bool| mounts.iter().find(|mount| wanted(mount));
    find(&|mount| mount.fs_type == "cgroup" && mount.super_options.contains_key("memory"))
        .or_else(|| find(&|mount| mount.fs_type == "cgroup2"))
}

/// Tells `found` the inode and the path of at most so many folders.
fn walk(root: &Path, most: usize, mut found: impl FnMut(u64, Box<str>)) {
    let Ok(top) = fs::metadata(root) else { return };
    found(top.ino(), "/".into());
    let mut folders = vec![root.to_owned()];
    let mut left = most;
    while let Some(folder) = folders.pop() {
        // A folder may go away meanwhile.
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if left == 0 || !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            left -= 1;
            let path = entry.path();
            let inside = path.strip_prefix(root).expect("it is below the root").to_string_lossy();
            found(entry.ino(), format!("/{inside}").into_boxed_str());
            folders.push(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use procfs::FromRead;
    use procfs::process::MountInfos;

    use super::*;

    const V1: &str = "33 31 0:30 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                      35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
    const V2: &str = "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

    fn found(mountinfo: &str) -> Option<String> {
        let mounts = MountInfos::from_read(mountinfo.as_bytes()).unwrap().0;
        Some(of_memory(&mounts)?.mount_point.display().to_string())
    }

    #[test]
    fn the_hierarchy_is_that_of_the_memory_controller() {
        assert_eq!(found(&format!("{V2}{V1}")).as_deref(), Some("/sys/fs/cgroup/memory"));
        assert_eq!(found(V2).as_deref(), Some("/sys/fs/cgroup/unified"));
        assert_eq!(found(""), None);
    }

    #[test]
    fn a_walk_finds_every_folder_and_no_more_than_it_may() {
        let root = std::env::temp_dir().join(format!("ebpf-sidecar-{}-cgroups", std::process::id()));
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("a/cgroup.procs"), "").unwrap();
        let inode = |path: &str| fs::metadata(root.join(path)).unwrap().ino();
        let walked = |most| {
            let mut all = Vec::new();
            walk(&root, most, |id, path| all.push((id, path)));
            all
        };
        let expected = [(inode(""), "/".into()), (inode("a"), "/a".into()), (inode("a/b"), "/a/b".into())];
        assert_eq!(walked(10), expected);
        assert_eq!(walked(1), expected[..2]);
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(walked(10), []);
    }

    #[test]
    fn what_is_not_there_is_not_known_and_not_looked_for_again() {
        let mut cgroups = Cgroups::default();
        cgroups.learn([u64::MAX]);
        assert_eq!(cgroups.path(u64::MAX), None);
        assert!(cgroups.known.contains_key(&u64::MAX));
    }
}
