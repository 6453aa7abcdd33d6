//! Filters: what is watched is counted as if everything was, and nothing else is.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::path::PathBuf;

use ebpf_sidecar::target::Config;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::libc;
use nix::sched::{CloneFlags, setns};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, pipe, read, write};

use crate::cgroup::mount;
use crate::fixture::{B4, Metrics, Network, Sidecar, Wish, exchange, in_process, listen, serve, serve_here};
use crate::reader::{PAGE, Sparse, done};

const SENT: &str = "sidecar_connection_bytes_sent_total";
const RECEIVED: &str = "sidecar_connection_bytes_received_total";
const OPENED: &str = "sidecar_connections_opened_total";
const CLOSED: &str = "sidecar_connections_closed_total";
const ACTIVE: &str = "sidecar_active_connections";

fn texts(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

fn comms(names: &[&str]) -> Config {
    Config { comms: texts(names), ..Config::default() }
}

fn ports(ports: &[u16]) -> Config {
    Config { ports: ports.to_vec(), ..Config::default() }
}

fn watching(target: Config) -> Sidecar {
    Sidecar::start(Wish { target, ..Wish::default() })
}

/// Sent, received, opened and closed under these labels.
fn account(metrics: &Metrics, labels: &[(&str, &str)]) -> [u64; 4] {
    [SENT, RECEIVED, OPENED, CLOSED].map(|family| metrics.sum(family, labels))
}

/// What clients of that name have come to, on that port; any of it counts if it is not the name that is watched.
fn client(metrics: &Metrics, comm: &str, to: SocketAddr) -> [u64; 4] {
    account(metrics, &[("role", "client"), ("comm", comm), ("dst_port", &to.port().to_string())])
}

/// Everything that is shown of a port, on both sides.
fn of_port(metrics: &Metrics, to: SocketAddr) -> [u64; 4] {
    account(metrics, &[("dst_port", &to.port().to_string())])
}

#[track_caller]
fn ends_well(child: Pid) {
    assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 0));
}

/// A server for `connections` of 10 bytes and 30 back, in a process of its own.
fn server(name: &str, connections: usize) -> (SocketAddr, Pid) {
    let listener = listen("127.0.0.1");
    let to = listener.local_addr().unwrap();
    (to, in_process(name, move || serve_here(&listener, connections, 10, 30)))
}

/// A process of that name connects so often, and ends.
fn visit(name: &str, to: SocketAddr, times: usize) {
    ends_well(in_process(name, || (0..times).for_each(|_| exchange(to, 10, 30))));
}

/// A process that waits for a word before it does something.
struct Waiting {
    pid: Pid,
    go: OwnedFd,
}

fn waiting(name: &str, action: impl FnOnce()) -> Waiting {
    let (told, go) = pipe().unwrap();
    let pid = in_process(name, || {
        read(&told, &mut [0]).unwrap();
        action();
    });
    Waiting { pid, go }
}

impl Waiting {
    fn go(self) {
        write(&self.go, b"x").unwrap();
        ends_well(self.pid);
    }
}

/// A cgroup that undoes itself.
struct Folder(PathBuf);

/// Where the hierarchy of version 2 is, or that of the memory controller where there is none.
fn root() -> PathBuf {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap();
    mount(&mountinfo, "cgroup2", "rw").unwrap_or_else(memory_root)
}

/// Where the hierarchy is by which workloads are known: that of the memory controller.
fn memory_root() -> PathBuf {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let version_1 = mount(&mountinfo, "cgroup", "memory");
    version_1.or_else(|| mount(&mountinfo, "cgroup2", "rw")).expect("control groups are mounted")
}

impl Folder {
    /// As Docker makes one, for a container whose id begins with these digits.
    fn container(begin: &str) -> Folder {
        let folder = Folder(memory_root().join(format!("docker-{begin:0<56}{:08x}.scope", std::process::id())));
        fs::create_dir(&folder.0).unwrap();
        folder
    }

    fn new(name: &str) -> Folder {
        let folder = Folder(root().join(format!("sidecar-{}-{name}", std::process::id())));
        fs::create_dir(&folder.0).unwrap();
        folder
    }

    fn below(&self, name: &str) -> Folder {
        let folder = Folder(self.0.join(name));
        fs::create_dir(&folder.0).unwrap();
        folder
    }

    fn join(&self) {
        fs::write(self.0.join("cgroup.procs"), "0").unwrap();
    }

    /// Within the hierarchy.
    fn path(&self) -> String {
        format!("/{}", self.0.strip_prefix(root()).unwrap().display())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// Whose connections to count, by either of two names; a long one is cut off as the kernel does it.
#[test]
fn names() {
    let sidecar = watching(comms(&["tgt-one", "tgt-long-name-of-somebody"]));
    let (to, server) = server("tgt-server", 9);
    visit("tgt-one", to, 2);
    visit("tgt-long-name-o", to, 3);
    visit("tgt-other", to, 4);
    ends_well(server);
    let metrics = sidecar.until(|metrics| of_port(metrics, to)[3] == 5);
    assert_eq!(client(&metrics, "tgt-one", to), [20, 60, 2, 2]);
    assert_eq!(client(&metrics, "tgt-long-name-o", to), [30, 90, 3, 3]);
    assert_eq!(of_port(&metrics, to), [50, 150, 5, 5], "and of the other and the server nothing");
    for family in ["sidecar_connection_setup_seconds", "sidecar_connection_rtt_seconds"] {
        let labels = [("dst_port", &*to.port().to_string())];
        assert_eq!(metrics.histograms(family, &labels).map(|found| found.count()).sum::<u64>(), 5, "{family}");
    }
}

/// Failed connects, listeners and the connects by process are filtered as connections are.
#[test]
fn what_belongs_to_connections() {
    let sidecar = watching(comms(&["tgt-in"]));
    let dead = listen("127.0.0.1").local_addr().unwrap();
    let fail = |name| {
        done(name, move || {
            assert!(TcpStream::connect(dead).is_err());
            std::mem::forget(listen("127.0.0.1"));
        })
    };
    let (_inside, _outside) = (fail("tgt-in"), fail("tgt-out"));
    let metrics = sidecar.snapshot();
    let port = dead.port().to_string();
    assert_eq!(metrics.sum("sidecar_connect_failures_total", &[("dst_port", &port)]), 1);
    for (comm, expected) in [("tgt-in", 1), ("tgt-out", 0)] {
        assert_eq!(metrics.sum("sidecar_connect_failures_total", &[("comm", comm), ("reason", "refused")]), expected);
        assert_eq!(metrics.sum("tcp_connects_by_pid", &[("comm", comm)]), expected);
        assert_eq!(metrics.count("sidecar_listen_backlog", &[("comm", comm)]) as u64, expected);
    }
    // What is held against the kernel's counters of whole namespaces, and what lacks a record for no other reason.
    for family in ["sidecar_audit_kernel_total", "sidecar_audit_counted_total", "sidecar_connections_untracked_total"] {
        assert_eq!(metrics.count(family, &[]), 0, "{family}");
    }
}

#[test]
fn processes_with_and_without_their_descendants() {
    for descendants in [false, true] {
        let (to, server) = server("tgt-server", 6);
        let act = || {
            exchange(to, 10, 30);
            visit("tgt-child", to, 2);
        };
        let (inside, outside) = (waiting("tgt-parent", act), waiting("tgt-stranger", act));
        let pids = vec![inside.pid.as_raw() as u32];
        let sidecar = watching(Config { pids, descendants, ..Config::default() });
        inside.go();
        outside.go();
        ends_well(server);
        let count = if descendants { 3 } else { 1 };
        let metrics = sidecar.until(|metrics| of_port(metrics, to)[3] == count);
        assert_eq!(client(&metrics, "tgt-parent", to), [10, 30, 1, 1]);
        assert_eq!(client(&metrics, "tgt-child", to), if descendants { [20, 60, 2, 2] } else { [0; 4] });
        assert_eq!(of_port(&metrics, to), [10 * count, 30 * count, count, count]);
    }
}

/// Both ends of the connections to a port; nothing of those to another.
#[test]
fn ports_of_the_side_that_listens() {
    let ((one, first), (two, second), (other, third)) =
        (server("tgt-server", 2), server("tgt-server", 3), server("tgt-server", 4));
    let sidecar = watching(ports(&[one.port(), two.port()]));
    visit("tgt-client", one, 2);
    visit("tgt-client", two, 3);
    visit("tgt-client", other, 4);
    [first, second, third].into_iter().for_each(ends_well);
    let metrics = sidecar.until(|metrics| (of_port(metrics, one)[3], of_port(metrics, two)[3]) == (4, 6));
    assert_eq!(of_port(&metrics, one), [80, 80, 4, 4]);
    assert_eq!(of_port(&metrics, two), [120, 120, 6, 6]);
    assert_eq!(of_port(&metrics, other), [0; 4]);
}

/// A listener that is not bound gets its port from listen().
#[test]
fn ports_that_are_known_late() {
    let (watched, third) = server("tgt-server", 1);
    let sidecar = watching(ports(&[watched.port()]));
    // SAFETY: plain system calls; the listener owns the descriptor.
    let listener = unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0);
        assert_eq!(libc::listen(socket, 8), 0);
        TcpListener::from_raw_fd(socket)
    };
    let to: SocketAddr = ([127, 0, 0, 1], listener.local_addr().unwrap().port()).into();
    let late = serve(listener.try_clone().unwrap(), 3, 10, 30);
    visit("tgt-client", to, 3);
    late.join().unwrap();
    visit("tgt-client", watched, 1);
    ends_well(third);
    let metrics = sidecar.until(|metrics| of_port(metrics, watched)[3] == 2);
    assert_eq!(of_port(&metrics, watched), [40, 40, 2, 2]);
    assert_eq!(of_port(&metrics, to), [0; 4]);
    assert_eq!(metrics.count("sidecar_listen_backlog", &[("dst_port", &to.port().to_string())]), 0);
}

/// All kinds have to fit.
#[test]
fn kinds_are_combined() {
    let ((wanted, first), (other, second)) = (server("tgt-server", 3), server("tgt-server", 3));
    let sidecar = watching(Config { ports: vec![wanted.port()], ..comms(&["tgt-in", "tgt-too"]) });
    for to in [wanted, other] {
        ["tgt-in", "tgt-too", "tgt-out"].into_iter().for_each(|name| visit(name, to, 1));
    }
    [first, second].into_iter().for_each(ends_well);
    let metrics = sidecar.until(|metrics| of_port(metrics, wanted)[3] == 2);
    assert_eq!(client(&metrics, "tgt-in", wanted), [10, 30, 1, 1]);
    assert_eq!(client(&metrics, "tgt-too", wanted), [10, 30, 1, 1]);
    assert_eq!(of_port(&metrics, wanted), [20, 60, 2, 2]);
    assert_eq!(of_port(&metrics, other), [0; 4]);
}

/// A cgroup with those below it, and another one that is made under the same path: its first process is in it.
#[test]
fn cgroups_and_those_that_take_their_place() {
    let cgroup = Folder::new("in");
    let outside = Folder::new("in-name-only");
    let sidecar = watching(Config { cgroup: cgroup.path(), ..Config::default() });
    let (to, server) = server("tgt-server", 8);
    let visit_in = |folder: &Folder, name, times| {
        ends_well(in_process(name, || {
            folder.join();
            (0..times).for_each(|_| exchange(to, 10, 30));
        }));
    };
    visit_in(&cgroup, "tgt-first", 1);
    let below = cgroup.below("below");
    visit_in(&below, "tgt-below", 2);
    visit_in(&outside, "tgt-outside", 2);
    let path = cgroup.0.clone();
    drop((below, cgroup));
    assert!(!path.exists());
    fs::create_dir(&path).unwrap();
    let again = Folder(path);
    visit_in(&again, "tgt-again", 3);
    ends_well(server);
    let metrics = sidecar.until(|metrics| of_port(metrics, to)[3] == 6);
    assert_eq!(client(&metrics, "tgt-first", to), [10, 30, 1, 1]);
    assert_eq!(client(&metrics, "tgt-below", to), [20, 60, 2, 2]);
    assert_eq!(client(&metrics, "tgt-again", to), [30, 90, 3, 3]);
    assert_eq!(of_port(&metrics, to), [60, 180, 6, 6]);
}

/// Containers by the begin of their ids. One that lives for a moment, and is gone before anybody looks; one that is started
/// again, under the same id; and others, of which nothing is shown, though nothing was known of them when they began.
#[test]
fn containers_from_their_first_process_on() {
    let wanted = "c0ffee0123456789";
    let containers = texts(&[&wanted[..12], "0123456789ab"]);
    let sidecar = watching(Config { containers, ..Config::default() });
    let (to, server) = server("tgt-server", 11);
    let visit_in = |folder: &Folder, name, times| {
        ends_well(in_process(name, || {
            folder.join();
            (0..times).for_each(|_| exchange(to, 10, 30));
        }));
    };
    let container = Folder::container(wanted);
    visit_in(&container, "tgt-first", 2);
    let other = Folder::container("c0ffee0123aa");
    visit_in(&other, "tgt-other", 3);
    visit("tgt-host", to, 2);
    let path = container.0.clone();
    drop(container);
    fs::create_dir(&path).unwrap();
    let again = Folder(path);
    let nested = again.below("init.scope");
    visit_in(&nested, "tgt-again", 4);
    drop((nested, again));
    ends_well(server);
    let metrics = sidecar.until(|metrics| of_port(metrics, to)[3] == 6);
    assert_eq!(client(&metrics, "tgt-first", to), [20, 60, 2, 2]);
    assert_eq!(client(&metrics, "tgt-again", to), [40, 120, 4, 4]);
    assert_eq!(of_port(&metrics, to), [60, 180, 6, 6]);
    // By now it is known whom the others belong to, and the kernel counts them no more: no slot is taken for them.
    let slots = |metrics: &Metrics| metrics.sum("sidecar_bpf_map_entries", &[("map", "series")]);
    let before = slots(&metrics);
    let (to, server) = self::server("tgt-server", 2);
    ends_well(in_process("tgt-other-name", || {
        other.join();
        exchange(to, 10, 30);
    }));
    visit("tgt-host-name", to, 1);
    ends_well(server);
    let metrics = sidecar.snapshot();
    assert_eq!((slots(&metrics), of_port(&metrics, to)), (before, [0; 4]));
}

/// A process that is started again: the same name, another pid.
#[test]
fn a_process_that_is_started_again() {
    let sidecar = watching(comms(&["tgt-again"]));
    let (to, server) = server("tgt-server", 4);
    (0..4).for_each(|_| visit("tgt-again", to, 1));
    ends_well(server);
    let metrics = sidecar.until(|metrics| of_port(metrics, to)[3] == 4);
    assert_eq!(of_port(&metrics, to), [40, 120, 4, 4]);
}

/// The process that listens is not watched, the one that serves is: everything since the connection opened counts.
#[test]
fn servers_that_hand_connections_on() {
    let sidecar = watching(comms(&["tgt-worker"]));
    // Forked for each connection.
    let forking = listen("127.0.0.1");
    let forked = forking.local_addr().unwrap();
    let parent = in_process("tgt-master", || {
        for _ in 0..3 {
            let (stream, _) = forking.accept().unwrap();
            let (told, tell) = pipe().unwrap();
            let child = in_process("tgt-worker", || {
                read(&told, &mut [0]).unwrap();
                (&stream).read_exact(&mut [0; 10]).unwrap();
                (&stream).write_all(&[1; 30]).unwrap();
            });
            drop(stream);
            write(&tell, b"x").unwrap();
            waitpid(child, None).unwrap();
        }
    });
    visit("tgt-client", forked, 3);
    ends_well(parent);
    // Forked before, with the listener of this process.
    let prefork = listen("127.0.0.1");
    let to = prefork.local_addr().unwrap();
    let worker = in_process("tgt-worker", || serve_here(&prefork, 4, 10, 30));
    visit("tgt-client", to, 4);
    ends_well(worker);
    let metrics = sidecar.until(|metrics| (of_port(metrics, forked)[3], of_port(metrics, to)[3]) == (3, 4));
    assert_eq!(of_port(&metrics, forked), [90, 30, 3, 3]);
    assert_eq!(of_port(&metrics, to), [120, 40, 4, 4]);
}

/// While nobody is known to be watched nothing is counted, and nothing is lost when somebody is.
#[test]
fn an_open_connection_whose_owner_turns_out_to_be_watched() {
    let sidecar = watching(comms(&["tgt-heir"]));
    let listener = listen("127.0.0.1");
    let to = listener.local_addr().unwrap();
    let client = in_process("tgt-client", || {
        let mut client = TcpStream::connect(to).unwrap();
        client.write_all(&[1; 500]).unwrap();
        client.read_exact(&mut [0; 70]).unwrap();
    });
    let (mut accepted, _) = listener.accept().unwrap();
    accepted.read_exact(&mut [0; 500]).unwrap();
    assert_eq!(of_port(&sidecar.snapshot(), to), [0; 4]);
    let heir = waiting("tgt-heir", || accepted.write_all(&[1; 70]).unwrap());
    drop(accepted);
    let metrics = sidecar.until(|metrics| of_port(metrics, to)[2] == 1);
    assert_eq!(of_port(&metrics, to), [0, 500, 1, 0]);
    assert_eq!(metrics.sum(ACTIVE, &[("comm", "tgt-heir"), ("role", "server")]), 1);
    heir.go();
    ends_well(client);
    let metrics = sidecar.until(|metrics| of_port(metrics, to)[3] == 1);
    assert_eq!(of_port(&metrics, to), [70, 500, 1, 1]);
}

/// Connections from before the daemon.
#[test]
fn what_is_taken_over() {
    let hold = |name| {
        let listener = listen("127.0.0.1");
        let to = listener.local_addr().unwrap();
        let client = waiting(name, move || {
            let mut stream = TcpStream::connect(to).unwrap();
            stream.write_all(&[1; 100]).unwrap();
            stream.read_exact(&mut [0; 1]).unwrap();
            stream.write_all(&[1; 23]).unwrap();
            stream.read_exact(&mut [0; 1]).unwrap();
        });
        write(&client.go, b"x").unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_exact(&mut [0; 100]).unwrap();
        (to, client.pid, stream)
    };
    let mut held = ["tgt-in", "tgt-out"].map(hold);
    for by_port in [false, true] {
        let sidecar = watching(if by_port { ports(&[held[0].0.port()]) } else { comms(&["tgt-in"]) });
        let active = |metrics: &Metrics, to: SocketAddr| metrics.sum(ACTIVE, &[("dst_port", &to.port().to_string())]);
        let metrics = sidecar.snapshot();
        assert_eq!(active(&metrics, held[0].0), if by_port { 2 } else { 1 });
        assert_eq!(active(&metrics, held[1].0), 0);
        assert_eq!(of_port(&metrics, held[0].0), [0; 4]);
        if by_port {
            continue;
        }
        for (_, _, stream) in &mut held {
            stream.write_all(&[1]).unwrap();
            stream.read_exact(&mut [0; 23]).unwrap();
        }
        let metrics = sidecar.snapshot();
        assert_eq!(of_port(&metrics, held[0].0), [23, 1, 0, 0]);
        assert_eq!(of_port(&metrics, held[1].0), [0; 4]);
    }
    for (_, pid, mut stream) in held {
        stream.write_all(&[1]).unwrap();
        ends_well(pid);
    }
}

/// SYNs that nobody answers, sent again by two processes to two ports, and dropped.
#[test]
fn retransmissions_and_drops() {
    let network = Network::new();
    network.filter(&network.b, &["tcp dport { 81, 82 } counter drop"]);
    // How often the kernel says that it sent one again.
    let attempt = |name: &'static str, port: u16| {
        let sent_again = || network.kernel_counter(&network.a, "Tcp", "RetransSegs");
        let before = sent_again();
        let file = fs::File::open(format!("/run/netns/{}", network.a)).unwrap();
        ends_well(in_process(name, || {
            setns(file.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
            fs::write("/proc/sys/net/ipv4/tcp_syn_retries", "1").unwrap();
            assert!(TcpStream::connect((B4, port)).is_err());
        }));
        let again = sent_again() - before;
        assert!(again > 0, "{name}");
        again
    };
    let segments = |metrics: &Metrics, labels: &[(&str, &str)]| {
        ["sidecar_retransmit_segments_total", "sidecar_connection_retransmits_total"]
            .map(|family| metrics.sum(family, labels))
    };
    {
        let sidecar = watching(comms(&["tgt-in"]));
        let again = attempt("tgt-in", 81);
        attempt("tgt-out", 81);
        let metrics = sidecar.snapshot();
        assert_eq!(segments(&metrics, &[("comm", "tgt-in"), ("dst_port", "81")]), [again; 2]);
        assert_eq!(segments(&metrics, &[]), [again; 2], "and nothing else");
        // What comes in for no socket belongs to nobody.
        assert_eq!(metrics.sum("sidecar_drops_total", &[("reason", "netfilter_drop")]), 0);
    }
    let sidecar = watching(ports(&[82]));
    attempt("tgt-any", 81);
    let again = attempt("tgt-any", 82);
    let metrics = sidecar.snapshot();
    assert_eq!(segments(&metrics, &[("dst_port", "82")]), [again; 2]);
    assert_eq!(segments(&metrics, &[]), [again; 2], "and nothing else");
}

/// The other modules, by the process that does something.
#[test]
fn files_and_memory() {
    let sidecar = watching(comms(&["tgt-in"]));
    let file = Sparse::new(64 * PAGE);
    let work = |name| {
        drop(done(name, || {
            file.read();
            file.forget();
            posix_fadvise(fs::File::open("/dev/null").unwrap(), 0, 0, PosixFadviseAdvice::POSIX_FADV_RANDOM).unwrap();
        }));
    };
    work("tgt-in");
    work("tgt-out");
    let metrics = sidecar.snapshot();
    for comm in ["tgt-in", "tgt-out"] {
        let labels = [("comm", comm)];
        let times = u64::from(comm == "tgt-in");
        assert_eq!(metrics.sum("sidecar_page_cache_added_pages_total", &labels), 64 * times, "{comm}");
        assert_eq!(metrics.sum("sidecar_page_cache_evicted_pages_total", &labels), 64 * times, "{comm}");
        assert_eq!(metrics.sum("sidecar_fadvise_evicted_pages_total", &labels), 64 * times, "{comm}");
        assert_eq!(metrics.sum("sidecar_fadvise_calls_total", &labels), 2 * times, "{comm}");
        assert_eq!(metrics.count("sidecar_page_cache_readahead_misses_total", &labels) as u64, times, "{comm}");
    }
    assert_eq!(metrics.sum("sidecar_page_cache_added_pages_total", &[]), 64, "of nobody else");
    assert_eq!(metrics.sum("sidecar_page_cache_charged_added_pages_total", &[]), 64);
    // Of the whole node.
    for family in ["scanned_pages", "reclaimed_pages", "refaults"] {
        assert_eq!(metrics.count(&format!("sidecar_reclaim_{family}_total"), &[]), 0, "{family}");
    }
}

/// Ports say nothing of what is no connection.
#[test]
fn ports_leave_files_alone() {
    let sidecar = watching(ports(&[1]));
    drop(done("tgt-reader", || {
        posix_fadvise(fs::File::open("/dev/null").unwrap(), 0, 0, PosixFadviseAdvice::POSIX_FADV_RANDOM).unwrap();
    }));
    let metrics = sidecar.snapshot();
    assert_eq!(metrics.sum("sidecar_fadvise_calls_total", &[("comm", "tgt-reader")]), 1);
    assert!(metrics.count("sidecar_reclaim_refaults_total", &[]) > 0);
}

/// What a filter takes there is only with a filter.
#[test]
fn everything_is_watched_without_maps_for_it() {
    // The maps that this process has made, by their descriptors.
    let maps = || {
        let held = |entry: fs::DirEntry| {
            let info = fs::read_to_string(entry.path()).ok()?;
            info.lines().find_map(|line| line.strip_prefix("map_id:")?.trim().parse::<u32>().ok())
        };
        let ids: Vec<_> = fs::read_dir("/proc/self/fdinfo").unwrap().flatten().filter_map(held).collect();
        let all = libbpf_rs::query::MapInfoIter::default().filter(|map| ids.contains(&map.id));
        let mut names: Vec<_> = all.map(|map| map.name.to_string_lossy().into_owned()).collect();
        names.retain(|name| name.starts_with("target_") || name == "workloads");
        names.sort();
        names.dedup();
        names
    };
    let sidecar = Sidecar::start(Wish::default());
    assert_eq!(maps(), Vec::<String>::new());
    drop(sidecar);
    let _sidecar = watching(ports(&[1]));
    assert_eq!(maps(), ["target_cgroup", "target_values", "workloads"]);
}
