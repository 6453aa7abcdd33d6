//! Cgroups and who works in them, against what the file systems of cgroups show.

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use ebpf_sidecar::app;
use ebpf_sidecar::identity::{CGROUP_V1, Config, Identity};
use ebpf_sidecar::kernel::{HELPERS, Kernel, LINUX_5_17};
use ebpf_sidecar::status::Status;
use nix::sched::{CloneFlags, unshare};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::wait::{WaitStatus, waitpid};

use crate::fixture::{Sidecar, Wish, in_process, listen, run, serve};

const ID: &str = "3f4b0a6f9f7d0c1b2a3e4d5c6b7a89900112233445566778899aabbccddeeff0";
const UID: &str = "6c0d4c3e-9f1b-4f5e-8a7c-2b1a0f9e8d7c";

fn nobody() -> Config {
    let off = || "off".to_owned();
    Config { cri_socket: off(), docker_socket: off(), podman_storage: off(), ..Config::default() }
}

fn start(host: impl Fn(&mut Kernel)) -> Identity {
    let mut kernel = Kernel::probe(app::btf_names());
    host(&mut kernel);
    let identity = Identity::start(&nobody(), &kernel, || ());
    identity.settle(Duration::from_secs(60));
    identity
}

/// Asks until the answer is as wanted; the last one either way.
fn until<T: PartialEq>(wanted: &T, ask: impl Fn() -> T) -> T {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let answer = ask();
        if answer == *wanted || Instant::now() > deadline {
            return answer;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Where the hierarchy is mounted that processes are known by: of version 1 if the memory controller is in one.
fn hierarchy() -> (PathBuf, u64) {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let find = |kind: &str, option: &str| {
        let (mount, _) = mounts.lines().filter_map(|line| line.split_once(" - ")).find(|(_, system)| {
            system.split(' ').next() == Some(kind) && system.rsplit([' ', ',']).any(|found| found == option)
        })?;
        mount.split(' ').nth(4).map(PathBuf::from)
    };
    let v1 = find("cgroup", "memory").map(|root| (root, CGROUP_V1));
    v1.unwrap_or_else(|| (find("cgroup2", "rw").expect("cgroups are mounted"), 0))
}

/// A folder of a hierarchy that undoes itself.
struct Group {
    path: String,
    folder: PathBuf,
    number: u64,
}

impl Group {
    fn new(path: &str) -> Group {
        let (root, version) = hierarchy();
        let path = format!("/sidecar-{}{path}", std::process::id());
        let folder = root.join(&path[1..]);
        fs::create_dir_all(&folder).unwrap();
        let number = fs::metadata(&folder).unwrap().ino() | version;
        Group { path, folder, number }
    }

    fn enter(&self) {
        fs::write(self.folder.join("cgroup.procs"), "0").unwrap();
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let mut folder = self.folder.as_path();
        // Its parents too, up to the one that is named after us.
        while folder.to_string_lossy().contains("/sidecar-") && fs::remove_dir(folder).is_ok() {
            folder = folder.parent().unwrap();
        }
    }
}

fn of(identity: &Identity, number: u64) -> (Option<String>, Option<String>) {
    let workload = identity.workload(number).map(|workload| workload.container.to_string());
    (identity.path(number).map(|path| path.to_string()), workload)
}

/// Numbers and paths of a folder and all below it.
fn folders(folder: &Path, path: &str, found: &mut BTreeMap<u64, String>) {
    let (_, version) = hierarchy();
    let shown = if path.is_empty() { "/" } else { path };
    found.insert(fs::metadata(folder).unwrap().ino() | version, shown.to_owned());
    for inner in fs::read_dir(folder).unwrap().flatten().filter(|inner| inner.file_type().unwrap().is_dir()) {
        folders(&inner.path(), &format!("{path}/{}", inner.file_name().display()), found);
    }
}

#[test]
fn a_container_that_lasts_for_an_instant_is_known() {
    let sidecar = Sidecar::start(Wish { modules: vec!["tcp"], ..Wish::default() });
    let listener = listen("127.0.0.1");
    let to: SocketAddr = listener.local_addr().unwrap();
    let server = serve(listener, 1, 1, 1);
    let group = Group::new(&format!("/kubepods/pod{UID}/{ID}"));
    let child = in_process("short", || {
        group.enter();
        let mut stream = TcpStream::connect(to).unwrap();
        std::io::Write::write_all(&mut stream, b"x").unwrap();
        crate::fixture::drain(&stream);
    });
    assert!(matches!(waitpid(child, None), Ok(WaitStatus::Exited(_, 0))));
    drop(group);
    server.join().unwrap();
    let port = to.port().to_string();
    let labels = [("comm", "short"), ("container", ID), ("dst_port", port.as_str())];
    let shown = |metrics: &crate::fixture::Metrics| metrics.sum("sidecar_connections_closed_total", &labels);
    assert_eq!(shown(&sidecar.until(|metrics| shown(metrics) == 1)), 1);
    assert_eq!(sidecar.snapshot().sum("sidecar_connection_bytes_sent_total", &labels), 1);
}

#[test]
fn every_cgroup_is_known_that_is_mounted_by_number_and_path() {
    // More than the buffer holds at once.
    let groups: Vec<_> = (0..1500).map(|n| Group::new(&format!("/{n}-{ID}"))).collect();
    let identity = start(|_| ());
    let mut wanted = BTreeMap::new();
    folders(&hierarchy().0, "", &mut wanted);
    let known: BTreeMap<_, _> = identity.known().into_iter().map(|(n, path, _)| (n, path.to_string())).collect();
    assert!(wanted.len() > groups.len());
    let missing: Vec<_> = wanted.iter().filter(|(number, path)| known.get(number) != Some(path)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// Whether the kernel tells which cgroups there are, wherever they are mounted; if not, it is said why.
fn kernel_tells(identity: &Identity) -> bool {
    let task = identity.report().hooks.into_iter().find(|hook| hook.name == "task").expect("it is reported");
    let old = !Kernel::probe([HELPERS]).is_since(LINUX_5_17);
    let why = if old { "this kernel is older than Linux 5.17" } else { "" };
    assert_eq!((task.kind.is_none(), &*task.reason), (old, why));
    !old
}

#[test]
fn what_is_made_later_is_known_at_once_and_stays_so() {
    let identity = start(|_| ());
    let [planned] = &app::helpers(&Kernel::probe(app::btf_names()))[..] else { panic!("there is one helper") };
    assert_eq!((identity.report().status, &identity.report().reason), (planned.status, &planned.reason));
    assert_eq!(planned.status == Status::Running, kernel_tells(&identity), "{}", planned.reason);
    let generation = identity.generation();
    let (path, number) = {
        let group = Group::new(&format!("/docker/{ID}"));
        let wanted = (Some(group.path.clone()), Some(ID.to_owned()));
        assert_eq!(until(&wanted, || of(&identity, group.number)), wanted);
        (group.path.clone(), group.number)
    };
    thread::sleep(Duration::from_millis(50));
    assert_eq!(of(&identity, number), (Some(path), Some(ID.to_owned())));
    // Nobody was shown anything else before, unless the first question came before the kernel's word.
    assert!(identity.generation() <= generation + 1);
}

/// It does not matter that we are in a namespace of cgroups; nor what is mounted, if the kernel tells.
#[test]
fn paths_are_those_of_the_host() {
    let (group, other) = (Group::new("/own"), Group::new(&format!("/other/{ID}")));
    let child = in_process("inside", || {
        group.enter();
        let (root, _) = hierarchy();
        unshare(CloneFlags::CLONE_NEWCGROUP | CloneFlags::CLONE_NEWNS).unwrap();
        let is_known = || {
            let identity = start(|_| ());
            let own = of(&identity, group.number) == (Some(group.path.clone()), None);
            let others = of(&identity, other.number) == (Some(other.path.clone()), Some(ID.to_owned()));
            (own, others, kernel_tells(&identity))
        };
        let (own, others, tells) = is_known();
        assert!(own && others, "while {} is mounted", root.display());
        run("mount --make-rprivate /");
        run(&format!("umount -l {}", root.display()));
        assert_eq!(is_known(), (tells, tells, tells));
    });
    assert!(matches!(waitpid(child, None), Ok(WaitStatus::Exited(_, 0))));
}

#[test]
fn without_programs_folders_are_looked_at_when_somebody_asks() {
    let identity = start(|kernel| kernel.names.clear());
    let report = identity.report();
    assert_eq!(report.status, Status::Degraded, "{}", report.reason);
    let group = Group::new(&format!("/docker/{ID}"));
    let generation = identity.generation();
    assert_eq!(of(&identity, group.number), (None, None));
    let wanted = (Some(group.path.clone()), Some(ID.to_owned()));
    assert_eq!(until(&wanted, || of(&identity, group.number)), wanted);
    // It says so a moment after it is known.
    let told = until(&(generation + 1), || identity.generation());
    assert_eq!(told, generation + 1, "what was shown is to be made anew");
}

#[test]
fn a_number_that_nobody_has_is_looked_for_once() {
    // Whoever looks at folders reads this one, which nobody else knows.
    let group = Group::new("/watched");
    let identity = start(|_| ());
    let readers = Inotify::init(InitFlags::IN_NONBLOCK).unwrap();
    readers.add_watch(&group.folder, AddWatchFlags::IN_OPEN).unwrap();
    let mut opened = 0;
    let programs = || identity.report().programs;
    let runs = || programs().iter().find(|program| program.name == "identity_look").map_or(0, |look| look.runs);
    let before = runs();
    for _ in 0..100 {
        assert_eq!(of(&identity, u64::MAX >> 2), (None, None));
        thread::sleep(Duration::from_millis(15));
        opened += readers.read_events().map_or(0, |events| events.len() as u64);
    }
    let by_program = kernel_tells(&identity);
    assert_eq!((runs() - before, opened), if by_program { (1, 0) } else { (0, 1) });
}

#[test]
fn the_keeper_ends_when_nobody_is_left() {
    let threads = || {
        let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
        let names = tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
        names.filter(|name| name.trim() == "identity").count()
    };
    let before = threads();
    let identity = start(|_| ());
    let another = identity.clone();
    drop(identity);
    assert_eq!(until(&(before + 1), threads), before + 1);
    drop(another);
    assert_eq!(until(&before, threads), before);
}
