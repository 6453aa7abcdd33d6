//! A memory cgroup that undoes itself.

use std::fs;
use std::path::PathBuf;

use crate::fixture::number;

/// A memory cgroup, of the version that is at work here.
pub struct Cgroup {
    path: PathBuf,
    /// The files of version 1 have other names, and fewer numbers in them.
    pub v2: bool,
}

impl Cgroup {
    pub fn with_limit(bytes: u64) -> Cgroup {
        let mountinfo = fs::read_to_string("/proc/self/mountinfo").expect("procfs is mounted");
        let v1 = mount(&mountinfo, "cgroup", "memory");
        let v2 = v1.is_none();
        let root = v1.or_else(|| mount(&mountinfo, "cgroup2", "rw")).expect("cgroups are mounted");
        if v2 {
            fs::write(root.join("cgroup.subtree_control"), "+memory").expect("the kernel has memory cgroups");
        }
        let path = root.join(format!("sidecar-{}", std::process::id()));
        fs::create_dir(&path).expect("there is no such cgroup yet");
        let cgroup = Cgroup { path, v2 };
        let limit = if v2 { "memory.max" } else { "memory.limit_in_bytes" };
        fs::write(cgroup.path.join(limit), bytes.to_string()).expect("a limit that the kernel takes");
        cgroup
    }

    /// Takes the calling process in.
    pub fn join(&self) {
        fs::write(self.path.join("cgroup.procs"), "0").expect("a process may move");
    }

    /// What one of its files says.
    pub fn read(&self, file: &str) -> String {
        fs::read_to_string(self.path.join(file)).expect("the file is there")
    }

    /// A number of one of its files that have lines of a name and a number.
    pub fn number(&self, file: &str, name: &str) -> u64 {
        number(&self.read(file), name)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.path);
    }
}

/// Where a file system of that kind is mounted with that option.
pub fn mount(mountinfo: &str, kind: &str, option: &str) -> Option<PathBuf> {
    let mounts = mountinfo.lines().filter_map(|line| line.split_once(" - "));
    let mut found = mounts.filter(|(_, system)| {
        let (found, options) = (system.split(' ').next(), system.rsplit([' ', ',']));
        found == Some(kind) && options.into_iter().any(|found| found == option)
    });
    found.next()?.0.split(' ').nth(4).map(PathBuf::from)
}
