//! Cgroups as they are mounted here, for hosts whose kernel does not tell of them.

use std::fs;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};

use procfs::process::{MountInfo, Process};

use super::CGROUP_V1;

/// Most folders of a hierarchy that are looked at.
const MOST: usize = 1 << 16;

/// Tells `found` the number and the path of every cgroup that is mounted here. `known` has the path of a number: where
/// only part of a hierarchy can be seen, as in a cgroup namespace, that of its top says where that part is.
pub fn walk(known: impl Fn(u64) -> Option<String>, mut found: impl FnMut(u64, &str)) {
    for (root, version) in hierarchies() {
        let Ok(top) = fs::metadata(&root) else { continue };
        let above = known(top.ino() | version).unwrap_or_default();
        walk_one(&root, MOST, |number, path| {
            let path = format!("{}{path}", above.trim_end_matches('/'));
            found(number | version, if path.is_empty() { "/" } else { &path });
        });
    }
}

/// Whether the memory controller is in a hierarchy of version 1, as far as that is mounted.
pub fn memory_is_v1() -> bool {
    hierarchies().iter().any(|(_, version)| *version == CGROUP_V1)
}

/// The number of the cgroup that is the top of what can be seen here of version 2: in a namespace, our own.
pub fn top() -> Option<u64> {
    let (root, _) = hierarchies().into_iter().find(|(_, version)| *version == 0)?;
    fs::metadata(root).ok().map(|top| top.ino())
}

/// Where the hierarchies are mounted that tasks are known by: that of version 2, and that of the memory controller.
fn hierarchies() -> Vec<(PathBuf, u64)> {
    let mounts = Process::myself().and_then(|process| process.mountinfo());
    mounts.map_or_else(|_| Vec::new(), |mounts| of(&mounts.0))
}

fn of(mounts: &[MountInfo]) -> Vec<(PathBuf, u64)> {
    let find = |wanted: &dyn Fn(&MountInfo) -> bool| {
        mounts.iter().find(|mount| wanted(mount)).map(|mount| mount.mount_point.clone())
    };
    let v2 = find(&|mount| mount.fs_type == "cgroup2");
    let v1 = find(&|mount| mount.fs_type == "cgroup" && mount.super_options.contains_key("memory"));
    v2.map(|root| (root, 0)).into_iter().chain(v1.map(|root| (root, CGROUP_V1))).collect()
}

/// Tells `found` the inode and the path of at most so many folders; that of the top is empty.
fn walk_one(root: &Path, most: usize, mut found: impl FnMut(u64, &str)) {
    let Ok(top) = fs::metadata(root) else { return };
    found(top.ino(), "");
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
            found(entry.ino(), &format!("/{inside}"));
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

    fn hierarchies(mountinfo: &str) -> Vec<(PathBuf, u64)> {
        of(&MountInfos::from_read(mountinfo.as_bytes()).unwrap().0)
    }

    #[test]
    fn tasks_are_known_by_version_2_and_by_their_memory() {
        let (v1, v2) = (("/sys/fs/cgroup/memory".into(), CGROUP_V1), ("/sys/fs/cgroup/unified".into(), 0));
        assert_eq!(hierarchies(&format!("{V1}{V2}")), [v2.clone(), v1.clone()]);
        assert_eq!(hierarchies(V2), [v2]);
        assert_eq!(hierarchies(V1), [v1]);
        assert_eq!(hierarchies(""), []);
    }

    #[test]
    fn a_walk_finds_every_folder_and_no_more_than_it_may() {
        let root = std::env::temp_dir().join(format!("ebpf-sidecar-{}-cgroups", std::process::id()));
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("a/cgroup.procs"), "").unwrap();
        let inode = |path: &str| fs::metadata(root.join(path)).unwrap().ino();
        let walked = |most| {
            let mut all = Vec::new();
            walk_one(&root, most, |number, path| all.push((number, path.to_owned())));
            all
        };
        let expected = [(inode(""), String::new()), (inode("a"), "/a".into()), (inode("a/b"), "/a/b".into())];
        assert_eq!(walked(10), expected);
        assert_eq!(walked(1), expected[..2]);
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(walked(10), []);
    }

    #[test]
    fn what_is_below_a_part_that_is_known_has_its_whole_path() {
        let top = top().expect("there is a hierarchy of version 2");
        let mut found = Vec::new();
        walk(
            |number| (number == top).then(|| "/docker/a".to_owned()),
            |number, path| found.push((number, path.to_owned())),
        );
        assert!(found.contains(&(top, "/docker/a".to_owned())), "{found:?}");
        let below = |(number, path): &(u64, String)| number & CGROUP_V1 != 0 || path.starts_with("/docker/a");
        assert!(found.iter().all(below), "{found:?}");
    }
}
