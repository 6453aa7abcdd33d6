//! Where a cgroup is that was named by a path.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use procfs::process::{MountInfo, Process};
use thiserror::Error;

/// TARGET_PATH_SIZE of `bpf/include/target.h`, without the zero.
const LONGEST: usize = 511;

/// A cgroup that there is or was: another one may be made at the same place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// Its folder.
    pub folder: PathBuf,
    /// Its path within its hierarchy, as the kernel has it.
    pub path: String,
    /// Of the memory controller's hierarchy of version 1.
    pub v1: bool,
}

/// Why there is no such cgroup.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum Nowhere {
    /// It has to be there when the daemon starts.
    #[error(
        "there is no such cgroup; expected a path within the hierarchy of version 2, or a folder below its mount or that of the memory controller"
    )]
    Absent,
    /// It does not name a cgroup.
    #[error("expected a path without . and ..")]
    Odd,
    /// The programs compare no more.
    #[error("expected a path of at most {LONGEST} bytes within its hierarchy")]
    Long,
}

impl Location {
    /// Looks at this host. `/foo` and `foo` are paths within the hierarchy of version 2 or, if there is none of the kind,
    /// in that of the memory controller; what begins with the mount of one of them is a folder.
    ///
    /// # Errors
    /// If there is no such cgroup.
    pub fn find(path: &str) -> Result<Location, Nowhere> {
        let mounts = Process::myself().and_then(|process| process.mountinfo()).map_or(Vec::new(), |mounts| mounts.0);
        Location::among(&mounts, path, |folder| folder.is_dir())
    }

    fn among(mounts: &[MountInfo], path: &str, exists: impl Fn(&Path) -> bool) -> Result<Location, Nowhere> {
        let parts = Path::new(path).components().collect::<Vec<_>>();
        if parts.iter().any(|part| matches!(part, Component::ParentDir | Component::CurDir)) {
            return Err(Nowhere::Odd);
        }
        let whole: PathBuf = [Component::RootDir].into_iter().chain(parts).collect();
        let v2 = mounts.iter().filter(|mount| mount.fs_type == "cgroup2");
        let memory =
            mounts.iter().filter(|mount| mount.fs_type == "cgroup" && mount.super_options.contains_key("memory"));
        let mounts: Vec<_> = v2.chain(memory).collect();
        let below = |mount: &&MountInfo| whole.strip_prefix(&mount.mount_point).ok().map(Path::to_owned);
        let named = mounts.iter().filter_map(|mount| Some((*mount, below(mount)?)));
        let inside = || {
            let within = whole.strip_prefix("/").unwrap_or(&whole).to_owned();
            mounts.iter().map(move |mount| (*mount, within.clone()))
        };
        let found = named.chain(inside()).map(|(mount, within)| Location {
            folder: mount.mount_point.join(&within),
            path: Path::new(&mount.root).join(&within).to_string_lossy().trim_end_matches('/').to_owned(),
            v1: mount.fs_type == "cgroup",
        });
        let location = found.into_iter().find(|location| exists(&location.folder)).ok_or(Nowhere::Absent)?;
        if location.path.len() > LONGEST { Err(Nowhere::Long) } else { Ok(location) }
    }

    /// The number of the cgroup that is there now, without the bit of version 1; `None` if there is none.
    pub fn id(&self) -> Option<u64> {
        fs::metadata(&self.folder).ok().map(|folder| folder.ino())
    }
}

#[cfg(test)]
mod tests {
    use procfs::FromRead;
    use procfs::process::MountInfos;

    use super::*;

    const HYBRID: &str = "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
                          33 31 0:30 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                          35 31 0:32 /docker /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";

    fn found(path: &str, folders: &[&str]) -> Result<(String, String, bool), Nowhere> {
        let mounts = MountInfos::from_read(HYBRID.as_bytes()).unwrap().0;
        let exists = |folder: &Path| folders.iter().any(|known| Path::new(known) == folder);
        let location = Location::among(&mounts, path, exists)?;
        Ok((location.folder.display().to_string(), location.path, location.v1))
    }

    #[test]
    fn a_path_is_within_version_2_or_a_folder_below_a_mount() {
        let v2 = Ok(("/sys/fs/cgroup/unified/a/b".to_owned(), "/a/b".to_owned(), false));
        for path in ["/a/b", "a/b", "/a/b/", "/sys/fs/cgroup/unified/a/b"] {
            assert_eq!(found(path, &["/sys/fs/cgroup/unified/a/b", "/sys/fs/cgroup/memory/a/b"]), v2, "{path}");
        }
        let v1 = Ok(("/sys/fs/cgroup/memory/a".to_owned(), "/docker/a".to_owned(), true));
        for path in ["/a", "/sys/fs/cgroup/memory/a"] {
            assert_eq!(found(path, &["/sys/fs/cgroup/memory/a"]), v1, "{path}");
        }
    }

    #[test]
    fn what_is_nowhere_is_refused() {
        assert_eq!(found("/a", &[]), Err(Nowhere::Absent));
        assert_eq!(found("/sys/fs/cgroup/cpu/a", &["/sys/fs/cgroup/cpu/a"]), Err(Nowhere::Absent));
        assert_eq!(found("/a/../b", &["/sys/fs/cgroup/unified/b"]), Err(Nowhere::Odd));
        let long = format!("/sys/fs/cgroup/unified/{}", "a".repeat(511));
        assert_eq!(found(&long, &[&long]), Err(Nowhere::Long));
    }
}
