//! Whose an event is. A container that has just been started is known to the kernel before anybody knows what it is
//! called: its first events wait a little.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::identity::{Identity, Workload};

/// How long events of a cgroup wait for its name, counted from the first.
const PATIENCE: Duration = Duration::from_secs(1);

/// Cgroups that are remembered; when there are more, it begins anew.
const MOST: usize = 4096;

#[derive(Debug)]
pub struct Names {
    identity: Identity,
    /// Of `identity`, when `known` was looked up.
    generation: u64,
    known: HashMap<u64, Known>,
}

#[derive(Debug)]
struct Known {
    since: Instant,
    settled: bool,
    workload: Option<Arc<Workload>>,
}

impl Names {
    pub fn new(identity: Identity) -> Names {
        Names { generation: identity.generation(), identity, known: HashMap::new() }
    }

    /// Who works in a cgroup, once that is known or will not be waited for any longer.
    pub fn settled(&mut self, cgroup: u64, now: Instant) -> Option<Option<Arc<Workload>>> {
        if cgroup == 0 {
            return Some(None);
        }
        let generation = self.identity.generation();
        if generation != self.generation {
            self.generation = generation;
            self.known.values_mut().for_each(|known| known.settled = false);
        }
        if self.known.len() >= MOST && !self.known.contains_key(&cgroup) {
            self.known.clear();
        }
        let known = self.known.entry(cgroup).or_insert(Known { since: now, settled: false, workload: None });
        if !known.settled {
            known.workload = self.identity.workload(cgroup);
            known.settled = now.duration_since(known.since) >= PATIENCE
                || is_named(&self.identity, cgroup, known.workload.as_deref());
        }
        known.settled.then(|| known.workload.clone())
    }

    /// Who works there as far as that is known.
    pub fn so_far(&self, cgroup: u64) -> Option<Arc<Workload>> {
        self.known.get(&cgroup).and_then(|known| known.workload.clone())
    }
}

/// A container without a name is called by its id, as long as nobody knows better; of the host's own cgroups the path is
/// all there is to know.
fn is_named(identity: &Identity, cgroup: u64, workload: Option<&Workload>) -> bool {
    match workload {
        Some(workload) => workload.container_id.is_empty() || workload.container_id != workload.container,
        None => identity.path(cgroup).is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_knows_waits_once() {
        let mut names = Names::new(Identity::default());
        let begun = Instant::now();
        assert_eq!(names.settled(0, begun), Some(None));
        assert_eq!(names.settled(7, begun), None);
        assert_eq!(names.settled(7, begun + PATIENCE / 2), None);
        assert_eq!(names.settled(7, begun + PATIENCE), Some(None));
        assert_eq!(names.settled(7, begun + PATIENCE), Some(None));
        assert_eq!(names.settled(8, begun + PATIENCE), None, "another one is new");
    }

    #[test]
    fn a_container_is_not_named_by_its_id() {
        let workload = |container: &str| Workload {
            container_id: "a1b2".into(),
            container: container.into(),
            ..Workload::default()
        };
        let named = |workload: Option<&Workload>| is_named(&Identity::default(), 7, workload);
        assert!(!named(Some(&workload("a1b2"))) && named(Some(&workload("web"))));
        assert!(named(Some(&Workload { service: "nginx.service".into(), ..Workload::default() })));
        assert!(!named(None), "not even its path is known");
    }
}
