//! The tcp collector against what the workload itself knows and what the kernel counts.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use ebpf_sidecar::collectors::tcp::Label;
use ebpf_sidecar::connections::Query;
use ebpf_sidecar::kernel::{HELPERS, Kernel, LINUX_WITH_FETCH};
use ebpf_sidecar::status::Status;
use libbpf_rs::query::MapInfoIter;
use libbpf_rs::{MapCore, MapHandle};
use nix::libc;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl::set_name;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::Linger;
use nix::sys::wait::waitpid;

use crate::fixture::{
    B4, B6, MISSED_RUNS, Metrics, Network, Sidecar, Wish, drain, exchange, in_process, kernel_counter, listen, ports,
    run, seen, serve, serve_here, tcp_info,
};

const SENT: &str = "sidecar_connection_bytes_sent_total";
const RECEIVED: &str = "sidecar_connection_bytes_received_total";
const OPENED: &str = "sidecar_connections_opened_total";
const CLOSED: &str = "sidecar_connections_closed_total";
const ACTIVE: &str = "sidecar_active_connections";
const RETRANSMITS: &str = "sidecar_connection_retransmits_total";
const FAILURES: &str = "sidecar_connect_failures_total";

/// What one side of the connections to a port did.
#[derive(Debug, PartialEq, Eq)]
struct Account {
    sent: u64,
    received: u64,
    opened: u64,
    closed: u64,
    active: u64,
}

fn account(metrics: &Metrics, role: &str, port: u16) -> Account {
    let port = port.to_string();
    let labels = [("role", role), ("dst_port", &port)];
    let sum = |family| metrics.sum(family, &labels);
    Account { sent: sum(SENT), received: sum(RECEIVED), opened: sum(OPENED), closed: sum(CLOSED), active: sum(ACTIVE) }
}

fn finished(sent: u64, received: u64, connections: u64) -> Account {
    Account { sent, received, opened: connections, closed: connections, active: 0 }
}

fn port_of(listener: &TcpListener) -> u16 {
    listener.local_addr().expect("it is bound").port()
}

fn all_closed(port: u16, connections: u64) -> impl Fn(&Metrics) -> bool {
    move |metrics| ["client", "server"].iter().all(|role| account(metrics, role, port).closed == connections)
}

#[test]
fn bytes_and_connections_are_exact_on_loopback() {
    let sidecar = Sidecar::start(Wish::of(&["tcp"]));
    for ip in ["127.0.0.1", "::1"] {
        let listener = listen(ip);
        let (port, to) = (port_of(&listener), listener.local_addr().unwrap());
        let server = serve(listener, 100, 4321, 987_654);
        (0..100).for_each(|_| exchange(to, 4321, 987_654));
        server.join().unwrap();
        let metrics = sidecar.until(all_closed(port, 100));
        assert_eq!(account(&metrics, "client", port), finished(432_100, 98_765_400, 100), "client, {ip}");
        assert_eq!(account(&metrics, "server", port), finished(98_765_400, 432_100, 100), "server, {ip}");
        assert_eq!(metrics.count(SENT, &[("dst_ip", ip), ("dst_port", &port.to_string())]), 2);
    }
}

#[test]
fn bytes_and_connections_are_exact_across_namespaces() {
    let network = Network::new();
    let sidecar = Sidecar::start(Wish::of(&["tcp"]));
    let [port4, port6] = ports();
    for (ip, port) in [(B4, port4), (B6, port6)] {
        let ready = Arc::new(Barrier::new(2));
        let started = Arc::clone(&ready);
        let server = network.within(&network.b, move || {
            let listener = TcpListener::bind((ip, port)).unwrap();
            started.wait();
            serve_here(&listener, 20, 100_000, 3);
        });
        ready.wait();
        let to: SocketAddr = (ip.parse::<std::net::IpAddr>().unwrap(), port).into();
        network.within(&network.a, move || (0..20).for_each(|_| exchange(to, 100_000, 3))).join().unwrap();
        server.join().unwrap();
        let metrics = sidecar.until(all_closed(port, 20));
        assert_eq!(account(&metrics, "client", port), finished(2_000_000, 60, 20), "client, {ip}");
        assert_eq!(account(&metrics, "server", port), finished(60, 2_000_000, 20), "server, {ip}");
    }
}

/// Connections that the server and the client abort: packets against what nft counts.
fn aborted_connections(network: &Network, sidecar: &Sidecar) {
    let [unread, lingering] = ports();
    network.filter_at(&network.a, "prerouting", &[&format!("tcp sport {unread} counter")]);
    network.filter_at(&network.a, "postrouting", &[&format!("tcp dport {lingering} counter")]);
    let (mut client, server) = network.pair(B4, unread);
    client.write_all(b"unread").unwrap();
    server.peek(&mut [0]).unwrap();
    drop(server);
    assert!(client.read(&mut [0]).is_err());
    drop(client);
    let (client, mut server) = network.pair(B6, lingering);
    setsockopt(&client, Linger, &libc::linger { l_onoff: 1, l_linger: 0 }).unwrap();
    drop(client);
    assert!(server.read(&mut [0]).is_err());
    drop(server);

    let metrics = sidecar.until(|metrics| [unread, lingering].iter().all(|&port| all_closed(port, 1)(metrics)));
    let packets = |role, port: u16| {
        metrics.sum("sidecar_connection_packets_sent_total", &[("role", role), ("dst_port", &port.to_string())])
    };
    let ours = [packets("server", unread), packets("client", lingering)];
    let counted = network.filtered(&network.a);
    ["prerouting", "postrouting"].iter().for_each(|table| network.unfilter(&network.a, table));
    // The SYN-ACK is sent before the server has a socket.
    let left_out = u64::from(!sidecar.has("tcp", "tcp_send_reset"));
    assert_eq!(ours.to_vec(), [counted[0] - 1 - left_out, counted[1] - left_out]);
}

#[test]
fn resets_of_aborted_connections_are_among_their_packets() {
    aborted_connections(&Network::new(), &Sidecar::start(Wish::of(&["tcp"])));
}

/// New connections, one from before, aborted ones, and one that never comes to be, as far as there are hooks for them.
pub fn what_is_seen_is_exact(network: &Network, start: &dyn Fn() -> Sidecar) {
    let (older, newer) = (listen("127.0.0.1"), listen("127.0.0.1"));
    let mut client = TcpStream::connect(older.local_addr().unwrap()).unwrap();
    let mut server = older.accept().unwrap().0;
    let [silent] = ports();
    let _listener = network.within(&network.b, move || TcpListener::bind((B4, silent)).unwrap()).join().unwrap();
    network.filter(&network.a, &[&format!("tcp sport {silent} drop")]);
    let sidecar = start();
    let seen = |hook| u64::from(sidecar.has("tcp", hook));

    let (port, to) = (port_of(&newer), newer.local_addr().unwrap());
    let serving = serve(newer, 10, 4321, 98_765);
    (0..10).for_each(|_| exchange(to, 4321, 98_765));
    serving.join().unwrap();
    let metrics = sidecar.until(all_closed(port, 10));
    assert_eq!(account(&metrics, "client", port), finished(43_210, 987_650, 10));
    assert_eq!(account(&metrics, "server", port), finished(987_650, 43_210, 10));

    let port = port_of(&older);
    client.write_all(&[1; 1234]).unwrap();
    server.read_exact(&mut [0; 1234]).unwrap();
    let metrics = sidecar.snapshot();
    let known = seen("task_file");
    let open = |sent, received| Account {
        sent: known * sent,
        received: known * received,
        opened: 0,
        closed: 0,
        active: known,
    };
    assert_eq!(account(&metrics, "client", port), open(1234, 0));
    assert_eq!(account(&metrics, "server", port), open(0, 1234));
    let query = Query::parse([("dst_port", port.to_string())]).unwrap();
    match sidecar.connections(query) {
        Ok(listing) => assert_eq!((seen("bpf_sk_storage_map (list)"), listing.total), (1, 2 * known)),
        Err(error) => assert_eq!(seen("bpf_sk_storage_map (list)"), 0, "{error}"),
    }

    aborted_connections(network, &sidecar);

    let to = SocketAddr::new(B4.parse().unwrap(), silent);
    let connect = move || TcpStream::connect_timeout(&to, Duration::from_millis(1500)).is_err();
    let before = network.kernel_counter(&network.b, "Tcp", "RetransSegs");
    assert!(network.within(&network.a, connect).join().unwrap());
    let (metrics, [_, after]) = network.retransmits_at_rest(&sidecar);
    network.unfilter(&network.a, "input");
    assert!(after > before, "its SYN came again");
    let labels = [("role", "server"), ("dst_port", &*silent.to_string())];
    assert_eq!(metrics.sum(RETRANSMITS, &labels), seen("tcp_retransmit_synack") * (after - before));
}

/// Sockets may outlive everybody in their network namespace, which need not have a name. Nothing leads there while
/// they are open where namespaces have to be entered, as the module says.
#[test]
fn where_nobody_lives_connections_count_when_they_close_if_not_before() {
    let sidecar = Sidecar::start(Wish::of(&["tcp"]));
    let [port] = ports();
    let ends = thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        run("ip link set lo up");
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(&[1; 1000]).unwrap();
        server.read_exact(&mut [0; 1000]).unwrap();
        (client, server)
    });
    let ends = ends.join().unwrap();
    let metrics = sidecar.snapshot();
    let report = metrics.0.modules.iter().find(|report| report.name == "tcp").unwrap();
    if !report.enters() {
        let open = Account { sent: 1000, received: 0, opened: 1, closed: 0, active: 1 };
        assert_eq!(account(&metrics, "client", port), open, "{}", report.reason);
    } else {
        assert_eq!(report.status, Status::Degraded);
        assert!(report.reason.contains("without a name in which nobody with a TCP socket lives"), "{}", report.reason);
        let unseen = Account { sent: 0, received: 0, opened: 0, closed: 0, active: 0 };
        assert_eq!(account(&metrics, "client", port), unseen);
    }
    drop(ends);
    let metrics = sidecar.until(all_closed(port, 1));
    assert_eq!(account(&metrics, "client", port), finished(1000, 0, 1));
    assert_eq!(account(&metrics, "server", port), finished(0, 1000, 1));
}

/// Before 5.12 records are kept in a map, and have to be taken out of it; since then the kernel sees to that.
#[test]
fn records_go_with_their_sockets() {
    const MOST: usize = 10;
    let sidecar = Sidecar::start(Wish::of(&["tcp"]));
    let listener = listen("127.0.0.1");
    let (port, to) = (port_of(&listener), listener.local_addr().unwrap());
    let server = serve(listener, 300, 10, 20);
    (0..300).for_each(|_| exchange(to, 10, 20));
    server.join().unwrap();
    sidecar.until(all_closed(port, 300));
    let named = MapInfoIter::default().filter(|map| map.name == *"sockets_by_addr");
    let maps: Vec<_> = named.map(|map| MapHandle::from_map_id(map.id).unwrap()).collect();
    if Kernel::probe([HELPERS]).is_since(LINUX_WITH_FETCH) {
        assert_eq!(maps.len(), 0);
        return;
    }
    let [map] = maps.as_slice() else { panic!("{} maps", maps.len()) };
    let deadline = Instant::now() + Duration::from_secs(20);
    while map.keys().count() > MOST {
        assert!(Instant::now() < deadline, "{} records are left", map.keys().count());
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_dual_stack_socket_counts_as_ipv4() {
    let sidecar = Sidecar::start(Wish::of(&["tcp"]));
    let listener = listen("::");
    let port = port_of(&listener);
    let server = serve(listener, 1, 10, 20);
    exchange(([127, 0, 0, 1], port).into(), 10, 20);
    server.join().unwrap();
    let metrics = sidecar.until(all_closed(port, 1));
    let port = port.to_string();
    for role in ["client", "server"] {
        let labels = [("role", role), ("dst_ip", "127.0.0.1"), ("dst_port", port.as_str())];
        assert_eq!(metrics.sum(OPENED, &labels), 1, "{role}");
    }
}

/// Every byte once, while passes and closes race: the counters never go down, and end at what was sent, but for connections
/// of which the kernel says that it left out a run (docs/details.md).
#[test]
fn totals_survive_a_storm_of_passes_and_closes() {
    const CLIENTS: usize = 4;
    const EACH: usize = 1500;
    let sidecar = Sidecar::start(Wish::of(&["tcp"]));
    let listener = listen("127.0.0.1");
    let (port, to) = (port_of(&listener), listener.local_addr().unwrap());
    let servers: Vec<_> = (0..CLIENTS).map(|_| serve(listener.try_clone().unwrap(), EACH, 64, 512)).collect();
    let clients: Vec<_> =
        (0..CLIENTS).map(|_| thread::spawn(move || (0..EACH).for_each(|_| exchange(to, 64, 512)))).collect();
    let mut before = sidecar.snapshot().counters();
    let mut passes = 0;
    while clients.iter().any(|client| !client.is_finished()) {
        let now = sidecar.snapshot().counters();
        for (name, value) in &before {
            assert!(now.get(name).is_none_or(|now| now >= value), "{name} fell from {value} to {:?}", now.get(name));
        }
        before = now;
        passes += 1;
    }
    clients.into_iter().for_each(|client| client.join().unwrap());
    servers.into_iter().for_each(|server| server.join().unwrap());
    let n = (CLIENTS * EACH) as u64;
    let metrics = sidecar.until(all_closed(port, n));
    let left_out = metrics.sum(MISSED_RUNS, &[("program", "tcp_state")]);
    for (role, sent, received) in [("client", 64, 512), ("server", 512, 64)] {
        let found = account(&metrics, role, port);
        let of = |n| finished(sent * n, received * n, n);
        let (least, most) = (of(n.saturating_sub(left_out)), of(n));
        let within = |field: fn(&Account) -> u64| (field(&least)..=field(&most)).contains(&field(&found));
        let fields: [fn(&Account) -> u64; 5] = [|a| a.sent, |a| a.received, |a| a.opened, |a| a.closed, |a| a.active];
        assert!(fields.into_iter().all(within), "{role}, {passes} passes, {left_out} left out: {found:?} of {most:?}");
    }
}

#[test]
fn live_connections_are_as_exact_as_closed_ones() {
    let sidecar = Sidecar::start(Wish::of(&["tcp"]));
    let listener = listen("127.0.0.1");
    let port = port_of(&listener);
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    client.write_all(&[1; 5000]).unwrap();
    server.read_exact(&mut [0; 5000]).unwrap();
    server.write_all(&[1; 70]).unwrap();
    client.read_exact(&mut [0; 70]).unwrap();
    let metrics = sidecar.snapshot();
    let open = |sent, received| Account { sent, received, opened: 1, closed: 0, active: 1 };
    assert_eq!(account(&metrics, "client", port), open(5000, 70));
    assert_eq!(account(&metrics, "server", port), open(70, 5000));
    // What this process knows of its own socket from the kernel: segments and round-trip time. Acknowledgements wait for
    // a while before they are sent.
    let port_label = port.to_string();
    let labels = [("role", "client"), ("dst_port", port_label.as_str())];
    let mut moments = (0..100).map(|_| (tcp_info(&client), sidecar.snapshot(), tcp_info(&client)));
    let quiet = moments.find(|(before, _, after)| before == after);
    let (info, metrics, _) = quiet.expect("a moment in which nothing is sent");
    let ours = |metrics: &Metrics, role| {
        let labels = [("role", role), ("dst_port", port_label.as_str())];
        ["sent", "received"].map(|way| metrics.sum(&format!("sidecar_connection_packets_{way}_total"), &labels))
    };
    assert_eq!(ours(&metrics, "client"), [info.segs_out, info.segs_in]);
    let rtt = metrics.histogram("sidecar_connection_rtt_seconds", &labels).expect("round trips are sampled");
    let median = rtt.quantile(0.5).unwrap() * 1e6;
    assert!((median - info.rtt_us).abs() <= info.rtt_us * 0.1 + 1.0, "{median} us sampled, {} us", info.rtt_us);
    let setup = metrics.histogram("sidecar_connection_setup_seconds", &labels).expect("setup is measured");
    assert_eq!(setup.count(), 1);
    let age = metrics.number("sidecar_connection_duration_seconds", &labels).unwrap();
    thread::sleep(Duration::from_millis(100));
    let later = sidecar.snapshot().number("sidecar_connection_duration_seconds", &labels).unwrap();
    assert!(later - age >= 0.1 && later - age < 5.0, "{age} s, then {later} s");

    // After half of the end has come and gone, each side sends and receives one more segment: a FIN and its acknowledgement.
    server.shutdown(Shutdown::Write).unwrap();
    drain(&client);
    let both = || [tcp_info(&client), tcp_info(&server)];
    let mut pauses = (0..100).map(|_| (both(), thread::sleep(Duration::from_millis(50)), both()));
    let (last, (), _) = pauses.find(|(before, (), after)| before == after).expect("nothing is sent any more");
    drop(client);
    let metrics = sidecar.until(all_closed(port, 1));
    drop(server);
    assert_eq!(account(&metrics, "client", port), finished(5000, 70, 1));
    assert_eq!(metrics.count("sidecar_connection_duration_seconds", &labels), 0);
    for (role, info) in ["client", "server"].into_iter().zip(last) {
        assert_eq!(ours(&metrics, role), [info.segs_out + 1, info.segs_in + 1], "{role}");
    }
}

#[test]
fn what_is_older_than_the_daemon_is_taken_over_without_a_burst() {
    let listener = listen("127.0.0.1");
    let port = port_of(&listener);
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    client.write_all(&[1; 100_000]).unwrap();
    server.read_exact(&mut [0; 100_000]).unwrap();
    server.write_all(&[1; 321]).unwrap();
    client.read_exact(&mut [0; 321]).unwrap();

    let sidecar = Sidecar::start(Wish::of(&["tcp"]));
    let open = |sent, received| Account { sent, received, opened: 0, closed: 0, active: 1 };
    let metrics = sidecar.snapshot();
    assert_eq!(account(&metrics, "client", port), open(0, 0));
    assert_eq!(account(&metrics, "server", port), open(0, 0));
    client.write_all(&[1; 1234]).unwrap();
    server.read_exact(&mut [0; 1234]).unwrap();
    let metrics = sidecar.snapshot();
    assert_eq!(account(&metrics, "client", port), open(1234, 0));
    assert_eq!(account(&metrics, "server", port), open(0, 1234));
    drop((client, server));
    let metrics = sidecar.until(all_closed(port, 1));
    let closed = |sent, received| Account { sent, received, opened: 0, closed: 1, active: 0 };
    assert_eq!(account(&metrics, "client", port), closed(1234, 0));
    assert_eq!(account(&metrics, "server", port), closed(0, 1234));
}

#[test]
fn a_forking_server_is_known_by_the_child_that_serves() {
    let sidecar = Sidecar::start(Wish::of(&["tcp"]));
    let listener = listen("127.0.0.1");
    let (port, to) = (port_of(&listener), listener.local_addr().unwrap());
    let parent = in_process("fork-parent", || {
        for _ in 0..5 {
            let (mut stream, _) = listener.accept().unwrap();
            let (told, tell) = nix::unistd::pipe().unwrap();
            let child = in_process("fork-child", || {
                // A server works for a while: its parent has let go of the connection by then.
                nix::unistd::read(&told, &mut [0]).unwrap();
                stream.read_exact(&mut [0; 100]).unwrap();
                stream.write_all(&[1; 200]).unwrap();
            });
            drop(stream);
            nix::unistd::write(&tell, b"x").unwrap();
            waitpid(child, None).unwrap();
        }
    });
    (0..5).for_each(|_| exchange(to, 100, 200));
    waitpid(parent, None).unwrap();
    let metrics = sidecar.until(all_closed(port, 5));
    let port = port.to_string();
    let labels = [("role", "server"), ("dst_port", port.as_str()), ("comm", "fork-child")];
    assert_eq!(metrics.sum(SENT, &labels), 1000);
    assert_eq!(metrics.sum(RECEIVED, &labels), 500);
    assert_eq!(metrics.sum(CLOSED, &labels), 5);
    assert_eq!(metrics.sum(OPENED, &labels), 5);
}

#[test]
fn prefork_workers_and_threads_are_known_by_their_process() {
    let sidecar = Sidecar::start(Wish::of(&["tcp"]));
    let listener = listen("127.0.0.1");
    let (port, to) = (port_of(&listener), listener.local_addr().unwrap());
    let worker = in_process("pre-worker", || serve_here(&listener, 3, 10, 20));
    (0..3).for_each(|_| exchange(to, 10, 20));
    waitpid(worker, None).unwrap();
    // A server whose threads have names of their own.
    let threaded = in_process("thr-process", || {
        let accepting = listener.try_clone().unwrap();
        let thread = thread::spawn(move || {
            set_name(c"thr-thread").unwrap();
            serve_here(&accepting, 2, 10, 20);
        });
        thread.join().unwrap();
    });
    (0..2).for_each(|_| exchange(to, 10, 20));
    waitpid(threaded, None).unwrap();
    let metrics = sidecar.until(all_closed(port, 5));
    let port = port.to_string();
    let served = |comm| {
        let labels = [("role", "server"), ("dst_port", port.as_str()), ("comm", comm)];
        (metrics.sum(CLOSED, &labels), metrics.sum(SENT, &labels))
    };
    assert_eq!(served("pre-worker"), (3, 60));
    assert_eq!(served("thr-process"), (2, 40));
}

/// While the connection is still open: the walk over open files finds who holds it.
#[test]
fn an_open_connection_belongs_to_who_holds_it() {
    let sidecar = Sidecar::start(Wish::of(&["tcp"]));
    let listener = listen("127.0.0.1");
    let port = port_of(&listener);
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let worker = in_process("holder", || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_exact(&mut [0; 50]).unwrap();
        stream.write_all(&[1; 60]).unwrap();
        stream.read_exact(&mut [0]).unwrap();
    });
    client.write_all(&[1; 50]).unwrap();
    client.read_exact(&mut [0; 60]).unwrap();
    let port = port.to_string();
    let labels = [("role", "server"), ("dst_port", port.as_str()), ("comm", "holder")];
    // At once on most machines; where there are very many open files, walks have to be saved up for.
    let metrics = sidecar.until(|metrics| metrics.sum(ACTIVE, &labels) == 1);
    assert_eq!((metrics.sum(SENT, &labels), metrics.sum(RECEIVED, &labels)), (60, 50));
    assert_eq!(metrics.sum(ACTIVE, &labels), 1);
    client.write_all(&[1]).unwrap();
    waitpid(worker, None).unwrap();
}

#[test]
fn failed_connects_say_why() {
    seen(failed_connects);
}

fn failed_connects() {
    let network = Network::new();
    let ports @ [refused, dropped, rejected] = ports();
    let rules =
        [format!("tcp dport {dropped} drop"), format!("tcp dport {rejected} reject with icmpx type host-unreachable")];
    network.filter(&network.b, &rules.each_ref().map(String::as_str));
    let sidecar = Sidecar::start(Wish::of(&["tcp"]));
    let connects = network.within(&network.a, move || {
        // The SYN once more after a second, then two seconds of waiting.
        std::fs::write("/proc/sys/net/ipv4/tcp_syn_retries", "1").unwrap();
        for ip in [B4, B6] {
            for port in ports {
                assert!(TcpStream::connect((ip, port)).is_err(), "{ip} {port}");
            }
        }
        // Nobody has this address: the neighbour does not answer.
        std::fs::write("/proc/sys/net/ipv4/tcp_syn_retries", "4").unwrap();
        let error = TcpStream::connect(("10.199.0.99", refused)).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::HostUnreachable, "{error}");
    });
    connects.join().unwrap();
    let metrics = sidecar.snapshot();
    let shown = ports.map(|port| port.to_string());
    let nobody = [("dst_ip", "10.199.0.99"), ("dst_port", shown[0].as_str())];
    assert_eq!(metrics.sum(FAILURES, &[nobody[0], nobody[1], ("reason", "unreachable")]), 1);
    for ip in [B4, B6] {
        for (port, reason) in shown.iter().zip(["refused", "timeout", "unreachable"]) {
            let labels = [("dst_ip", ip), ("dst_port", port.as_str())];
            assert_eq!(metrics.count(FAILURES, &labels), 1, "{ip} {port}");
            assert_eq!(metrics.sum(FAILURES, &[labels[0], labels[1], ("reason", reason)]), 1, "{ip} {port} {reason}");
            assert_eq!(metrics.sum(OPENED, &labels), 0);
        }
    }
    // The SYNs that were sent again, though no connection came of them.
    let of = |ip| shown.iter().map(|port| metrics.sum(RETRANSMITS, &[("dst_ip", ip), ("dst_port", port)])).sum::<u64>();
    let retransmits = [B4, B6, "10.199.0.99"].map(of);
    assert!(retransmits[..2].iter().all(|count| *count > 0));
    assert_eq!(retransmits.iter().sum::<u64>(), network.kernel_counter(&network.a, "Tcp", "RetransSegs"));
}

#[test]
fn retransmissions_equal_retrans_segs() {
    seen(lossy_exchanges);
}

fn lossy_exchanges() {
    let network = Network::new();
    let lossy = ["meta l4proto tcp numgen random mod 100 < 3 counter drop"];
    network.filter(&network.a, &lossy);
    network.filter(&network.b, &lossy);
    let sidecar = Sidecar::start(Wish::of(&["tcp"]));
    let ports @ [port4, port6] = ports();
    for (ip, port) in [(B4, port4), (B6, port6)] {
        let ready = Arc::new(Barrier::new(2));
        let started = Arc::clone(&ready);
        let server = network.within(&network.b, move || {
            let listener = TcpListener::bind((ip, port)).unwrap();
            started.wait();
            serve_here(&listener, 10, 1_000_000, 100);
        });
        ready.wait();
        let to: SocketAddr = (ip.parse::<std::net::IpAddr>().unwrap(), port).into();
        network.within(&network.a, move || (0..10).for_each(|_| exchange(to, 1_000_000, 100))).join().unwrap();
        server.join().unwrap();
        let metrics = sidecar.until(all_closed(port, 10));
        assert_eq!(account(&metrics, "client", port), finished(10_000_000, 1000, 10), "{ip}");
        assert_eq!(account(&metrics, "server", port), finished(1000, 10_000_000, 10), "{ip}");
    }
    let (metrics, mut kernel) = network.retransmits_at_rest(&sidecar);
    let mut counted: [u64; 2] = ["client", "server"].map(|role| {
        let of = |port: u16| metrics.sum(RETRANSMITS, &[("role", role), ("dst_port", &port.to_string())]);
        ports.map(of).iter().sum()
    });
    kernel.sort();
    counted.sort();
    assert!(kernel[1] > 50, "the link is not lossy: {kernel:?}");
    assert_eq!(kernel, counted);
}

/// SYN-ACKs are sent again though the client never answers: no connection comes to be, and RetransSegs counts them.
#[test]
fn retransmitted_syn_acks_of_half_open_connections_count() {
    seen(half_open_connections);
}

fn half_open_connections() {
    let network = Network::new();
    // The client's kernel never sees the SYN-ACK, and so sends its SYN again too.
    let [port] = ports();
    network.filter(&network.a, &[&format!("tcp sport {port} drop")]);
    let sidecar = Sidecar::start(Wish::of(&["tcp"]));
    let server = network.within(&network.b, move || TcpListener::bind((B4, port)).unwrap());
    let listener = server.join().unwrap();
    let connect = network.within(&network.a, move || {
        std::fs::write("/proc/sys/net/ipv4/tcp_syn_retries", "2").unwrap();
        TcpStream::connect((B4, port)).is_err()
    });
    assert!(connect.join().unwrap());
    // The server goes on.
    let (metrics, [client, server]) = network.retransmits_at_rest(&sidecar);
    let sum = |role| metrics.sum(RETRANSMITS, &[("role", role), ("dst_port", &port.to_string())]);
    assert!(server >= 2, "SYN-ACKs were sent again");
    assert_eq!((sum("client"), sum("server")), (client, server));
    drop(listener);
}

#[test]
fn a_full_accept_queue_shows_backlog_and_overflows() {
    let network = Network::new();
    let sidecar = Sidecar::start(Wish::of(&["tcp"]));
    let [port] = ports();
    let waiting = network.within(&network.b, move || {
        let listener = TcpListener::bind((B4, port)).unwrap();
        // SAFETY: a valid descriptor; shrinks the queue.
        assert_eq!(unsafe { nix::libc::listen(listener.as_raw_fd(), 3) }, 0);
        listener
    });
    let listener = waiting.join().unwrap();
    let clients = network.within(&network.a, move || {
        let connect = || {
            TcpStream::connect_timeout(
                &(B4.parse::<std::net::IpAddr>().unwrap(), port).into(),
                Duration::from_millis(500),
            )
        };
        (0..8).map(|_| connect()).collect::<Vec<_>>()
    });
    let clients = clients.join().unwrap();
    let port = port.to_string();
    let labels = [("dst_port", port.as_str())];
    let metrics = sidecar.snapshot();
    assert_eq!(metrics.sum("sidecar_listen_backlog", &labels), 4, "a queue of 3 takes 4");
    drop(listener);
    let metrics = sidecar.snapshot();
    let drops = network.kernel_counter(&network.b, "TcpExt", "ListenDrops");
    assert!(drops > 0);
    assert_eq!(metrics.sum("sidecar_listen_overflows_total", &labels), drops);
    drop(clients);
}

#[test]
fn connects_are_counted_by_process_until_it_ends() {
    let sidecar = Sidecar::start(Wish { interval: Duration::from_millis(200), ..Wish::of(&["tcp"]) });
    let listener = listen("127.0.0.1");
    let to = listener.local_addr().unwrap();
    let server = serve(listener, 7, 1, 1);
    let (done, go_on) = (nix::unistd::pipe().unwrap(), nix::unistd::pipe().unwrap());
    let child = in_process("connector", || {
        (0..7).for_each(|_| exchange(to, 1, 1));
        nix::unistd::write(&done.1, b"x").unwrap();
        nix::unistd::read(&go_on.0, &mut [0]).unwrap();
    });
    nix::unistd::read(&done.0, &mut [0]).unwrap();
    let pid = child.to_string();
    let labels = [("pid", pid.as_str()), ("comm", "connector")];
    assert_eq!(sidecar.snapshot().sum("tcp_connects_by_pid", &labels), 7);
    nix::unistd::write(&go_on.1, b"x").unwrap();
    waitpid(child, None).unwrap();
    server.join().unwrap();
    let metrics = sidecar.until(|metrics| metrics.count("tcp_connects_by_pid", &labels) == 0);
    assert_eq!(metrics.count("tcp_connects_by_pid", &labels), 0);
}

#[test]
fn a_full_family_folds_into_other_and_sums_stay_exact() {
    let sidecar = Sidecar::start(Wish { max_series: 50, ..Wish::of(&["tcp"]) });
    let listener = listen("0.0.0.0");
    let port = port_of(&listener);
    let visit = |first: u16, count: u16| {
        let server = serve(listener.try_clone().unwrap(), count.into(), 10, 30);
        for n in first..first + count {
            exchange(([127, 7, (n / 250) as u8, (n % 250) as u8 + 1], port).into(), 10, 30);
        }
        server.join().unwrap();
    };
    visit(0, 500);
    let metrics = sidecar.until(|metrics| metrics.sum(CLOSED, &[]) >= 1000);
    for family in metrics.0.families.iter().filter(|family| family.descriptor.module == "tcp") {
        let name = family.descriptor.name;
        let others = family.samples.iter().filter(|sample| sample.labels.iter().all(|(_, value)| &**value == "other"));
        let others = others.filter(|sample| !sample.labels.is_empty()).count();
        assert!(others <= 1, "{name} has {others} series `other`");
        assert!(family.samples.len() - others <= 50, "{name} has {} series", family.samples.len());
    }
    assert!(metrics.sum("sidecar_series_folded_total", &[("family", SENT)]) >= 900);
    // The table is full: all of this goes to `other`, to the byte. Other programs of this machine may add to it at the
    // same time, but not in every moment.
    let other = [("comm", "other"), ("role", "other"), ("dst_ip", "other"), ("dst_port", "other")];
    let of = |metrics: &Metrics| [SENT, RECEIVED, OPENED, CLOSED].map(|family| metrics.sum(family, &other));
    let ours = [100 * 40, 100 * 40, 200, 200];
    let exact = (0..20).any(|window| {
        let before = of(&sidecar.snapshot());
        visit(1000 + window * 100, 100);
        let after = of(&sidecar.until(|metrics| metrics.sum(CLOSED, &other) >= before[3] + ours[3]));
        let gained: [u64; 4] = std::array::from_fn(|index| after[index] - before[index]);
        assert!(gained.iter().zip(ours).all(|(gained, ours)| *gained >= ours), "{gained:?} of {ours:?}");
        gained == ours
    });
    assert!(exact);
}

#[test]
fn idle_series_disappear_and_may_come_back() {
    let wish = Wish { idle_ttl: Duration::from_secs(1), interval: Duration::from_millis(100), ..Wish::of(&["tcp"]) };
    let sidecar = Sidecar::start(wish);
    let listener = listen("127.0.0.1");
    let (port, to) = (port_of(&listener), listener.local_addr().unwrap());
    let keeper = serve(listener.try_clone().unwrap(), 1, 10, 10);
    exchange(to, 10, 10);
    keeper.join().unwrap();
    let port_label = port.to_string();
    let labels = [("dst_port", port_label.as_str())];
    assert_eq!(sidecar.snapshot().count(SENT, &labels), 2);
    let gone = sidecar.until(|metrics| metrics.count(SENT, &labels) == 0);
    assert_eq!(gone.count(SENT, &labels), 0);
    let again = serve(listener, 1, 10, 10);
    exchange(to, 10, 10);
    again.join().unwrap();
    let metrics = sidecar.until(all_closed(port, 1));
    assert_eq!(account(&metrics, "client", port), finished(10, 10, 1));
}

/// The time of series that have no samples of their own is in `other` at every moment, also while they are given back.
#[test]
fn what_was_counted_in_other_stays_when_its_series_goes() {
    let wish = Wish {
        max_series: 12,
        idle_ttl: Duration::from_millis(200),
        interval: Duration::from_millis(100),
        ..Wish::of(&["tcp"])
    };
    let sidecar = Sidecar::start(wish);
    for _ in 0..6 {
        let listener = listen("127.0.0.1");
        let to = listener.local_addr().unwrap();
        let server = serve(listener, 3, 1, 4_000_000);
        (0..3).for_each(|_| exchange(to, 1, 4_000_000));
        server.join().unwrap();
    }
    let other = || sidecar.snapshot().number("sidecar_connection_limited_seconds_total", &[("by", "other")]);
    let (mut before, mut seen) = (None, 0);
    for _ in 0..100 {
        let now = other();
        assert!(now >= before, "{now:?} after {before:?}");
        seen += u32::from(now.is_some());
        before = now;
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(seen, 100, "nothing was counted in other");
}

/// An idle but open connection keeps its series, whatever the ttl.
#[test]
fn open_connections_never_expire() {
    let wish =
        Wish { idle_ttl: Duration::from_millis(200), interval: Duration::from_millis(100), ..Wish::of(&["tcp"]) };
    let sidecar = Sidecar::start(wish);
    let listener = listen("127.0.0.1");
    let port = port_of(&listener);
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    client.write_all(&[1; 1000]).unwrap();
    server.read_exact(&mut [0; 1000]).unwrap();
    sidecar.snapshot();
    thread::sleep(Duration::from_millis(1500));
    let open = Account { sent: 1000, received: 0, opened: 1, closed: 0, active: 1 };
    assert_eq!(account(&sidecar.snapshot(), "client", port), open);
}

#[test]
fn labels_can_be_asked_for() {
    seen(labels_of_three_connections);
}

fn labels_of_three_connections() {
    let mut wish = Wish::of(&["tcp"]);
    wish.config.tcp.own.labels = vec![Label::SrcIp, Label::SrcPort, Label::Pid];
    let sidecar = Sidecar::start(wish);
    let listener = listen("127.0.0.1");
    let port = port_of(&listener).to_string();
    let clients = [0; 3].map(|_| TcpStream::connect(listener.local_addr().unwrap()).unwrap());
    let servers = [0; 3].map(|_| listener.accept().unwrap());
    let metrics = sidecar.snapshot();
    let pid = std::process::id().to_string();
    for (client, role) in clients.iter().flat_map(|client| [(client, "client"), (client, "server")]) {
        let src_port = client.local_addr().unwrap().port().to_string();
        let labels = [("src_port", src_port.as_str()), ("role", role), ("pid", &pid), ("src_ip", "127.0.0.1")];
        assert_eq!(metrics.count("sidecar_connection_duration_seconds", &labels), 1);
        assert_eq!(metrics.sum(ACTIVE, &[labels[0], labels[1], ("dst_port", &port)]), 1);
    }
    drop(servers);
}

#[test]
fn the_audit_agrees_with_the_kernel() {
    seen(audit_of_25_connections);
}

fn audit_of_25_connections() {
    let sidecar = Sidecar::start(Wish::of(&["tcp"]));
    let before = ["ActiveOpens", "PassiveOpens"].map(|name| kernel_counter("Tcp", name));
    let listener = listen("127.0.0.1");
    let to = listener.local_addr().unwrap();
    let server = serve(listener, 25, 1, 1);
    (0..25).for_each(|_| exchange(to, 1, 1));
    server.join().unwrap();
    let after = ["ActiveOpens", "PassiveOpens"].map(|name| kernel_counter("Tcp", name));
    let metrics = sidecar.snapshot();
    for (counter, (before, after)) in ["connects", "accepts"].iter().zip(before.iter().zip(after)) {
        let labels = [("counter", *counter)];
        let counted = metrics.sum("sidecar_audit_counted_total", &labels);
        assert!(after - before >= 25, "{counter}");
        assert_eq!(counted, metrics.sum("sidecar_audit_kernel_total", &labels), "{counter}");
    }
}

/// The programs in the kernel, by id.
fn programs() -> BTreeSet<u32> {
    libbpf_rs::query::ProgInfoIter::default().map(|program| program.id).collect()
}

/// Programs go with the daemon, under load as well.
#[test]
fn nothing_is_left_behind() {
    let listener = listen("127.0.0.1");
    let to = listener.local_addr().unwrap();
    let server = serve(listener, 2000, 1, 1);
    let load = thread::spawn(move || (0..2000).for_each(|_| exchange(to, 1, 1)));
    let before = programs();
    let sidecar = Sidecar::start(Wish::default());
    let ours: BTreeSet<_> = programs().difference(&before).copied().collect();
    assert!(ours.len() >= 4, "{ours:?}");
    sidecar.snapshot();
    drop(sidecar);
    // The kernel frees them after a grace period.
    let deadline = Instant::now() + Duration::from_secs(10);
    while !programs().is_disjoint(&ours) && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(50));
    }
    assert!(programs().is_disjoint(&ours), "of {ours:?} are left: {:?}", programs().intersection(&ours));
    load.join().unwrap();
    server.join().unwrap();
}

/// The programs of this collector, as the kernel lists them, hang on rare events alone.
#[test]
fn no_program_is_on_a_send_receive_or_syscall_path() {
    let sidecar = Sidecar::start(Wish::of(&["tcp"]));
    let metrics = sidecar.snapshot();
    let hooks = [
        "inet_sock_set_state",
        "tcp_retransmit_synack",
        "tcp_send_reset",
        "bpf_sk_storage_map",
        "bpf_sk_storage_map (list)",
        "task_file",
    ];
    for hook in hooks {
        assert_eq!(metrics.count("sidecar_hook_info", &[("hook", hook)]), 1, "{hook}");
    }
    assert_eq!(metrics.count("sidecar_hook_info", &[("module", "tcp")]), hooks.len());
    // Ten thousand messages later, tcp_state has not run once more.
    let listener = listen("127.0.0.1");
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    let before = sidecar.snapshot().sum("sidecar_bpf_runs_total", &[("program", "tcp_state")]);
    for _ in 0..10_000 {
        client.write_all(&[1]).unwrap();
        server.read_exact(&mut [0]).unwrap();
    }
    let runs = sidecar.snapshot().sum("sidecar_bpf_runs_total", &[("program", "tcp_state")]) - before;
    assert!(runs < 100, "{runs} runs for 10000 messages (other processes may have connected)");
}

/// Names that are not text, or look like the escapes of such, are as many series as there are processes.
#[test]
fn names_of_any_bytes_stay_apart() {
    let sidecar = Sidecar::start(Wish::of(&["tcp"]));
    let listener = listen("127.0.0.1");
    let (port, to) = (port_of(&listener), listener.local_addr().unwrap());
    let names: [&[u8]; 4] = [b"\xff", b"\xfe", b"\\xff", b"qu\"ote\n"];
    let server = serve(listener, names.len(), 10, 10);
    for name in names {
        let child = in_process("renamed", || {
            set_name(&std::ffi::CString::new(name).unwrap()).unwrap();
            exchange(to, 10, 10);
        });
        waitpid(child, None).unwrap();
    }
    server.join().unwrap();
    let metrics = sidecar.until(all_closed(port, 4));
    let port = port.to_string();
    for shown in ["\\xff", "\\xfe", "\\x5cxff", "qu\"ote\n"] {
        let labels = [("role", "client"), ("dst_port", port.as_str()), ("comm", shown)];
        assert_eq!((metrics.count(SENT, &labels), metrics.sum(SENT, &labels)), (1, 10), "{shown}");
    }
}

/// The kernel gives a new namespace the inode number of an old one; its counters begin anew, and ours must not fall.
#[test]
fn the_audit_tells_namespaces_apart_that_share_a_number() {
    let sidecar = Sidecar::start(Wish { interval: Duration::from_millis(200), ..Wish::of(&["tcp"]) });
    let kernel = |metrics: &Metrics| metrics.sum("sidecar_audit_kernel_total", &[("counter", "connects")]);
    let mut before = 0;
    for _ in 0..3 {
        let network = Network::new();
        let namespace = std::fs::File::open(format!("/run/netns/{}", network.a)).unwrap();
        // What it did before a walk has found it living there is not known.
        let child = in_process("ns-load", || {
            setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
            let listener = listen("127.0.0.1");
            let to = listener.local_addr().unwrap();
            let _server = serve(listener, usize::MAX, 1, 1);
            loop {
                (0..20).for_each(|_| exchange(to, 1, 1));
                thread::sleep(Duration::from_millis(100));
            }
        });
        let shown = kernel(&sidecar.until(|metrics| kernel(metrics) >= before + 100));
        kill(child, Signal::SIGKILL).unwrap();
        waitpid(child, None).unwrap();
        assert!(shown >= before + 100, "from {before} to {shown}, with more than a hundred connects");
        let after = kernel(&sidecar.snapshot());
        assert!(after >= shown, "from {shown} to {after}");
        before = after;
    }
}
