//! What is known of cgroups: their paths, and what runtimes have told of the containers in them. Nothing here asks anybody.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::Workload;
use super::paths::{self, Container};

/// Cgroups that exist; what comes beyond is refused, and counted.
const LIVING: usize = 1 << 16;

/// Cgroups that are gone; the oldest are forgotten first.
const DEAD: usize = 1 << 14;

/// Pods beyond which those without cgroups are forgotten.
const PODS: usize = 1 << 12;

/// A runtime that does not know a container by then hardly ever will.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a runtime tells of a container. What it does not tell is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Details {
    /// As in the path of its cgroup.
    pub id: Box<str>,
    /// The namespace of containerd, if it is a container whose path is `/<namespace>/<id>`.
    pub task_of: Box<str>,
    pub name: Box<str>,
    pub pod: Box<str>,
    pub namespace: Box<str>,
    pub image: Box<str>,
}

/// Names of a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pod {
    pub name: Box<str>,
    pub namespace: Box<str>,
}

/// What a runtime tells when it is asked.
#[derive(Debug, Default)]
pub struct Answer {
    pub containers: Vec<Details>,
    /// With their uids.
    pub pods: Vec<(Box<str>, Pod)>,
}

/// Of whom nobody has told yet.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Unnamed {
    /// Ids of containers.
    pub ids: Vec<Box<str>>,
    /// What may be namespaces and ids of containerd.
    pub tasks: Vec<(Box<str>, Box<str>)>,
    /// Whether one of them is so new that the runtime may be about to learn of it.
    pub new: bool,
}

/// What was told of a container, and the rank of who told it: lower ones know better.
type Told = (u8, Arc<Details>);

/// Everything that is known.
#[derive(Debug, Default)]
pub struct Store {
    cgroups: HashMap<u64, Known>,
    /// By uid.
    pods: HashMap<Box<str>, Pod>,
    /// What was told of containers, by their ids.
    told: HashMap<Box<str>, Told>,
    /// Those of whose containers nobody has told yet, if they are in one.
    unnamed: HashSet<u64>,
    /// In the order in which they went.
    dead: VecDeque<u64>,
    /// How many were refused for want of room.
    pub refused: u64,
}

#[derive(Debug)]
struct Known {
    path: Arc<str>,
    workload: Option<Arc<Workload>>,
    details: Option<Told>,
    dead: bool,
    since: Instant,
    /// Whether somebody has been shown what was known.
    asked: AtomicBool,
}

impl Store {
    /// Makes a cgroup known. A path that is known already stands, unless it is another: the number is then that of a new
    /// cgroup, or of one that was renamed. Whether there may be a container in it that nobody has told of.
    pub fn insert(&mut self, number: u64, path: &str, now: Instant) -> bool {
        if let Some(known) = self.cgroups.get(&number)
            && *known.path == *path
        {
            return false;
        }
        if self.cgroups.len() - self.dead.len() >= LIVING && !self.cgroups.contains_key(&number) {
            self.refused += 1;
            return false;
        }
        // A container may have several cgroups, and this may be one that it has made for itself.
        let details = paths::parse(path).container.and_then(|container| self.told.get(container.as_str()).cloned());
        let (path, asked) = (Arc::from(path), AtomicBool::new(false));
        let mut known = Known { path, workload: None, details, dead: false, since: now, asked };
        known.workload = known.resolve(&self.pods);
        let unnamed = known.details.is_none() && known.keys().next().is_some();
        if unnamed {
            self.unnamed.insert(number);
        } else {
            self.unnamed.remove(&number);
        }
        if self.cgroups.insert(number, known).is_some_and(|before| before.dead) {
            self.dead.retain(|dead| *dead != number);
        }
        unnamed
    }

    /// A cgroup is gone. It stays known as long as there is room.
    pub fn end(&mut self, number: u64) {
        let Some(known) = self.cgroups.get_mut(&number).filter(|known| !known.dead) else { return };
        known.dead = true;
        self.dead.push_back(number);
        if self.dead.len() > DEAD
            && let Some(oldest) = self.dead.pop_front()
        {
            self.cgroups.remove(&oldest);
            self.unnamed.remove(&oldest);
        }
    }

    /// Whether it is known.
    pub fn contains(&self, number: u64) -> bool {
        self.cgroups.contains_key(&number)
    }

    /// Path, and who works there; `None` if the cgroup is not known.
    pub fn get(&self, number: u64) -> Option<(&Arc<str>, &Option<Arc<Workload>>)> {
        let known = self.cgroups.get(&number)?;
        known.asked.store(true, Ordering::Relaxed);
        Some((&known.path, &known.workload))
    }

    /// Everything, in no order.
    pub fn all(&self) -> impl Iterator<Item = (u64, &Arc<str>, &Option<Arc<Workload>>)> {
        self.cgroups.iter().map(|(number, known)| (*number, &known.path, &known.workload))
    }

    /// Takes in what a source tells; of two that know a container, the one of the lower rank counts. Whether anything is
    /// different now from what somebody has been shown.
    pub fn tell(&mut self, rank: u8, answer: Answer) -> bool {
        let containers: HashMap<(Box<str>, Box<str>), Arc<Details>> =
            answer.containers.into_iter().map(keyed).collect();
        let uids: HashSet<_> =
            self.cgroups.values().filter_map(|known| Some(paths::parse(&known.path).pod_uid?.into_owned())).collect();
        if self.pods.len() > PODS {
            self.pods.retain(|uid, _| uids.contains(&**uid));
        }
        self.pods.extend(answer.pods.into_iter().filter(|(uid, _)| uids.contains(&**uid)));
        if self.told.len() > self.cgroups.len() {
            self.told.retain(|_, (_, details)| Arc::strong_count(details) > 1);
        }
        let mut changed = false;
        for (number, known) in &mut self.cgroups {
            let told = known.keys().find_map(|(of, id)| containers.get(&(of.into(), id.into())));
            if let Some(details) = told
                && known.details.as_ref().is_none_or(|(before, _)| rank <= *before)
            {
                known.details = Some((rank, Arc::clone(details)));
                self.unnamed.remove(number);
                if details.task_of.is_empty() {
                    self.told.insert(details.id.clone(), (rank, Arc::clone(details)));
                }
            }
            let workload = known.resolve(&self.pods);
            if workload != known.workload {
                known.workload = workload;
                changed |= known.asked.load(Ordering::Relaxed);
            }
        }
        changed
    }

    /// Names the pod of a uid, if no runtime has done so. Whether that is news.
    pub fn name_pod(&mut self, uid: &str, pod: &Pod) -> bool {
        if self.pods.contains_key(uid) {
            return false;
        }
        self.pods.insert(uid.into(), pod.clone());
        // As if a runtime had come that knows no containers.
        self.tell(u8::MAX, Answer::default())
    }

    /// Who is still to be asked about, at most so many of each kind.
    pub fn unnamed(&self, most: usize, now: Instant) -> Unnamed {
        let mut unnamed = Unnamed::default();
        let (mut ids, mut tasks) = (HashSet::new(), HashSet::new());
        for known in self.unnamed.iter().filter_map(|number| self.cgroups.get(number)) {
            let new = now.duration_since(known.since) < PATIENCE;
            if known.dead && !new {
                continue;
            }
            unnamed.new |= new;
            match known.keys().next() {
                Some(("", id)) if ids.len() < most => _ = ids.insert(id),
                Some((of, id)) if !of.is_empty() && tasks.len() < most => _ = tasks.insert((of, id)),
                _ => (),
            }
        }
        unnamed.ids = ids.into_iter().map(Box::from).collect();
        unnamed.tasks = tasks.into_iter().map(|(of, id)| (of.into(), id.into())).collect();
        unnamed
    }
}

fn keyed(details: Details) -> ((Box<str>, Box<str>), Arc<Details>) {
    ((details.task_of.clone(), details.id.clone()), Arc::new(details))
}

impl Known {
    /// How sources may call the container: by its id, or by containerd's namespace and id.
    fn keys(&self) -> impl Iterator<Item = (&str, &str)> {
        let parsed = paths::parse(&self.path);
        let id = match parsed.container {
            Some(Container::Id(id)) => Some(("", id)),
            _ => None,
        };
        let named = parsed.container.is_some() || parsed.service.is_some();
        let task = if named { None } else { paths::containerd_task(&self.path) };
        id.into_iter().chain(task)
    }

    /// Who works here; `None` if that is nobody in particular.
    fn resolve(&self, pods: &HashMap<Box<str>, Pod>) -> Option<Arc<Workload>> {
        let parsed = paths::parse(&self.path);
        let mut workload = Workload::default();
        match parsed.container {
            Some(Container::Id(id)) => (workload.container_id, workload.container) = (id.into(), id.into()),
            Some(Container::Name(name)) => {
                workload.container_id = name.into();
                workload.container = paths::unescape(name).into();
            }
            None => workload.service = parsed.service.unwrap_or_default().into(),
        }
        if let Some((_, details)) = &self.details {
            workload.container_id = details.id.clone();
            workload.container = if details.name.is_empty() { details.id.clone() } else { details.name.clone() };
            workload.pod = details.pod.clone();
            workload.namespace = details.namespace.clone();
            workload.image = details.image.clone();
        }
        let pod = parsed.pod_uid.and_then(|uid| pods.get(&*uid));
        if let (true, Some(pod)) = (workload.pod.is_empty(), pod) {
            workload.pod = pod.name.clone();
            workload.namespace = pod.namespace.clone();
        }
        if workload == Workload::default() {
            return None;
        }
        match &self.workload {
            Some(before) if **before == workload => Some(Arc::clone(before)),
            _ => Some(Arc::new(workload)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3f4b0a6f9f7d0c1b2a3e4d5c6b7a89900112233445566778899aabbccddeeff0";
    const UID: &str = "6c0d4c3e-9f1b-4f5e-8a7c-2b1a0f9e8d7c";

    fn details(id: &str, name: &str, pod: &str) -> Details {
        Details { id: id.into(), name: name.into(), pod: pod.into(), ..Details::default() }
    }

    fn answer(containers: &[Details]) -> Answer {
        Answer { containers: containers.to_vec(), pods: vec![] }
    }

    fn shown(store: &Store, number: u64) -> Option<(String, String)> {
        let workload = store.get(number)?.1.clone()?;
        Some((workload.container.to_string(), workload.pod.to_string()))
    }

    fn pair(a: &str, b: &str) -> Option<(String, String)> {
        Some((a.to_owned(), b.to_owned()))
    }

    #[test]
    fn a_container_has_its_id_until_somebody_tells_its_name() {
        let mut store = Store::default();
        let now = Instant::now();
        store.insert(7, &format!("/docker/{ID}"), now);
        assert_eq!(shown(&store, 7), pair(ID, ""));
        let unnamed = store.unnamed(10, now);
        assert_eq!(unnamed, Unnamed { ids: vec![ID.into()], tasks: vec![], new: true });
        assert!(!store.unnamed(10, now + PATIENCE).new);

        assert!(store.tell(1, answer(&[details(ID, "web", "")])));
        assert_eq!(shown(&store, 7), pair("web", ""));
        assert_eq!(store.unnamed(10, now), Unnamed::default());
        // What it makes for itself is of the same container.
        store.insert(8, &format!("/docker/{ID}/init.scope"), now);
        assert_eq!(shown(&store, 8), pair("web", ""));
        // Nothing new.
        assert!(!store.tell(1, answer(&[details(ID, "web", "")])));
    }

    #[test]
    fn who_knows_better_counts_whoever_comes_first() {
        let mut store = Store::default();
        store.insert(7, &format!("/kubepods/pod{UID}/{ID}"), Instant::now());
        store.tell(2, answer(&[details(ID, "k8s_web_shop", "")]));
        store.tell(1, answer(&[details(ID, "web", "shop")]));
        store.tell(2, answer(&[details(ID, "k8s_web_shop", "")]));
        assert_eq!(shown(&store, 7), pair("web", "shop"));
        // A runtime that no longer knows it, or answers no more, takes nothing back.
        store.tell(1, answer(&[]));
        assert_eq!(shown(&store, 7), pair("web", "shop"));
    }

    #[test]
    fn news_are_only_what_differs_from_what_was_shown() {
        let mut store = Store::default();
        store.insert(7, &format!("/docker/{ID}"), Instant::now());
        assert!(!store.tell(1, answer(&[details(ID, "web", "")])), "nobody has asked yet");
        assert_eq!(shown(&store, 7), pair("web", ""));
        assert!(store.tell(1, answer(&[details(ID, "web-2", "")])), "renamed");
    }

    #[test]
    fn a_pod_is_named_by_its_uid_where_its_container_is_not() {
        let mut store = Store::default();
        store.insert(7, &format!("/kubepods/pod{UID}/{ID}"), Instant::now());
        store.insert(8, &format!("/kubepods/pod{UID}"), Instant::now());
        assert_eq!(shown(&store, 8), None);
        let pod = Pod { name: "shop".into(), namespace: "prod".into() };
        assert!(store.name_pod(UID, &pod));
        assert_eq!(shown(&store, 7), pair(ID, "shop"));
        assert_eq!(shown(&store, 8), pair("", "shop"));
        // The runtime knows better.
        let told = vec![(UID.into(), Pod { name: "cart".into(), namespace: "prod".into() })];
        assert!(store.tell(0, Answer { containers: vec![], pods: told }));
        assert!(!store.name_pod(UID, &pod));
        assert_eq!(shown(&store, 8), pair("", "cart"));
    }

    #[test]
    fn a_task_of_containerd_is_a_container_once_containerd_says_so() {
        let mut store = Store::default();
        let now = Instant::now();
        store.insert(7, "/default/redis/inner", now);
        store.insert(8, "/system.slice/redis.service", now);
        assert_eq!((shown(&store, 7), store.unnamed(9, now).tasks), (None, vec![("default".into(), "redis".into())]));
        // Of another namespace.
        let mut told = details("redis", "", "");
        told.task_of = "other".into();
        assert!(!store.tell(1, answer(&[told.clone()])));
        told.task_of = "default".into();
        assert!(store.tell(1, answer(&[told])));
        assert_eq!(shown(&store, 7), pair("redis", ""));
        assert_eq!(&*store.get(8).unwrap().1.as_ref().unwrap().service, "redis.service");
    }

    #[test]
    fn the_dead_stay_known_as_long_as_there_is_room() {
        let mut store = Store::default();
        let now = Instant::now();
        for number in 0..=DEAD as u64 {
            store.insert(number, &format!("/{number}"), now);
            store.end(number);
            store.end(number);
        }
        assert_eq!((store.cgroups.len(), store.contains(0), store.contains(1)), (DEAD, false, true));
        // One that is new takes nobody else's place.
        store.insert(DEAD as u64 + 1, "/living", now);
        assert_eq!(store.cgroups.len(), DEAD + 1);
    }

    #[test]
    fn there_is_a_bound_on_the_living_too() {
        let mut store = Store::default();
        let now = Instant::now();
        for number in 0..LIVING as u64 + 2 {
            store.insert(number, "/a", now);
        }
        assert_eq!((store.cgroups.len(), store.refused), (LIVING, 2));
        store.end(0);
        store.insert(u64::MAX, "/b", now);
        assert_eq!((store.cgroups.len(), store.refused), (LIVING + 1, 2));
    }
}
