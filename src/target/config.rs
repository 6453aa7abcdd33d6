//! `target`: what the operator wants to watch.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::location::Location;

/// PID_MAX_LIMIT of include/linux/threads.h.
const MOST_PID: u32 = 1 << 22;

/// Most values of a kind.
const MOST_VALUES: usize = 1024;

/// What the kernel keeps of a name (TASK_COMM_LEN of include/linux/sched.h, and a zero).
const COMM_BYTES: usize = 15;

/// `target`. A kind without values is not asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Processes, as the first pid namespace numbers them.
    pub pids: Vec<u32>,
    /// Whether the processes count that those of `pids` have started, and so on.
    pub descendants: bool,
    /// Names of processes.
    pub comms: Vec<String>,
    /// Ports of the side that listens.
    pub ports: Vec<u16>,
    /// A cgroup, with those below it.
    pub cgroup: String,
    /// Containers, by their name, id, or the begin of that.
    pub containers: Vec<String>,
    /// Namespaces of Kubernetes.
    pub namespaces: Vec<String>,
}

/// A value that is not allowed.
#[derive(Debug, PartialEq, Eq)]
pub struct Invalid {
    /// Such as `target.pids`.
    pub key: &'static str,
    /// What would be.
    pub allowed: String,
}

impl Config {
    /// One that has an item in each list: they are empty by default, and do not show what they are made of.
    pub fn sample() -> Config {
        let text = || vec![String::new()];
        let (pids, ports) = (vec![1], vec![1]);
        Config { pids, ports, comms: text(), containers: text(), namespaces: text(), ..Config::default() }
    }

    /// # Errors
    /// [`Invalid`] for the first value that is not allowed. Whether there is such a cgroup is asked of this host.
    pub fn validate(&self) -> Result<(), Invalid> {
        let sizes = [self.pids.len(), self.comms.len(), self.ports.len(), self.containers.len(), self.namespaces.len()];
        for (key, size) in LISTS.into_iter().zip(sizes) {
            check(key, size <= MOST_VALUES, || format!("expected at most {MOST_VALUES} values, found {size}"))?;
        }
        let pids = self.pids.iter().all(|pid| (1..=MOST_PID).contains(pid));
        check("target.pids", pids, || format!("expected whole numbers from 1 to {MOST_PID}"))?;
        check("target.ports", self.ports.iter().all(|port| *port > 0), || {
            "expected whole numbers from 1 to 65535".to_owned()
        })?;
        for (key, names) in
            [LISTS[1], LISTS[3], LISTS[4]].into_iter().zip([&self.comms, &self.containers, &self.namespaces])
        {
            check(key, names.iter().all(|name| !name.is_empty()), || "a name cannot be empty".to_owned())?;
        }
        if !self.cgroup.is_empty() {
            Location::find(&self.cgroup)
                .map_err(|error| Invalid { key: "target.cgroup", allowed: error.to_string() })?;
        }
        Ok(())
    }

    /// Whether it takes a process to be watched.
    pub fn by_process(&self) -> bool {
        !self.pids.is_empty() || !self.comms.is_empty() || !self.cgroup.is_empty() || self.by_workload()
    }

    /// Whether it takes a container to be watched.
    pub fn by_workload(&self) -> bool {
        !self.containers.is_empty() || !self.namespaces.is_empty()
    }

    /// Whether nothing is named.
    pub fn is_empty(&self) -> bool {
        !self.by_process() && self.ports.is_empty()
    }
}

/// The lists, in the order of [`Config`].
const LISTS: [&str; 5] = ["target.pids", "target.comms", "target.ports", "target.containers", "target.namespaces"];

fn check(key: &'static str, allowed: bool, otherwise: impl FnOnce() -> String) -> Result<(), Invalid> {
    if allowed { Ok(()) } else { Err(Invalid { key, allowed: otherwise() }) }
}

/// A name as the kernel compares it: the end of a long one is not kept.
pub fn comm(name: &str) -> [u8; 16] {
    let mut comm = [0; 16];
    let kept = name.len().min(COMM_BYTES);
    comm[..kept].copy_from_slice(&name.as_bytes()[..kept]);
    comm
}

/// In the words of the configuration, such as `comms curl, wget and ports 80`.
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers = |numbers: &mut dyn Iterator<Item = String>| numbers.collect::<Vec<_>>().join(", ");
        let cgroup = if self.cgroup.is_empty() { String::new() } else { format!("{} and below", self.cgroup) };
        let kinds = [
            ("pids", numbers(&mut self.pids.iter().map(u32::to_string))),
            ("comms", self.comms.join(", ")),
            ("ports", numbers(&mut self.ports.iter().map(u16::to_string))),
            ("cgroup", cgroup),
            ("containers", self.containers.join(", ")),
            ("namespaces", self.namespaces.join(", ")),
        ];
        let named = kinds.iter().filter(|(_, values)| !values.is_empty()).map(|(kind, values)| match *kind {
            "pids" if self.descendants => format!("{kind} {values} and their descendants"),
            _ => format!("{kind} {values}"),
        });
        let words = named.collect::<Vec<_>>().join("; ");
        f.write_str(if words.is_empty() { "everything" } else { &words })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(config: &Config) -> Option<(&'static str, String)> {
        config.validate().err().map(|invalid| (invalid.key, invalid.allowed))
    }

    #[test]
    fn what_cannot_be_watched_is_refused() {
        let text = |text: &str| vec![text.to_owned()];
        let of = |key, config: Config| {
            let (found, _) = allowed(&config).unwrap_or_else(|| panic!("{config:?}"));
            assert_eq!(found, key);
        };
        of("target.pids", Config { pids: vec![1, 0], ..Config::default() });
        of("target.pids", Config { pids: vec![MOST_PID + 1], ..Config::default() });
        of("target.ports", Config { ports: vec![0], ..Config::default() });
        of("target.comms", Config { comms: text(""), ..Config::default() });
        of("target.containers", Config { containers: text(""), ..Config::default() });
        of("target.namespaces", Config { namespaces: vec!["n".to_owned(); MOST_VALUES + 1], ..Config::default() });
        assert_eq!(allowed(&Config { comms: text("a name that is far too long"), ..Config::default() }), None);
        assert_eq!(allowed(&Config::default()), None);
    }

    #[test]
    fn names_are_compared_as_far_as_the_kernel_keeps_them() {
        assert_eq!(comm("curl"), *b"curl\0\0\0\0\0\0\0\0\0\0\0\0");
        assert_eq!(comm("0123456789abcdef"), *b"0123456789abcde\0");
    }

    #[test]
    fn people_read_what_is_watched() {
        assert_eq!(Config::default().to_string(), "everything");
        let config = Config {
            pids: vec![7, 8],
            descendants: true,
            ports: vec![80],
            cgroup: "/a".to_owned(),
            ..Config::default()
        };
        assert_eq!(config.to_string(), "pids 7, 8 and their descendants; ports 80; cgroup /a and below");
    }
}
