//! The drops collector against nft's counters and the kernel's own.

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use ebpf_sidecar::bpf::enums::module_enumeration;
use ebpf_sidecar::kernel::{HELPERS, Kernel, LINUX_5_13, tracepoint};
use ebpf_sidecar::snapshot::Labels;
use ebpf_sidecar::status::Status;
use nix::libc;

use crate::fixture::{
    B4, B6, Metrics, Network, Sidecar, Wish, exchange, kernel_counter, listen, ports, run, seen, serve,
};

const DROPS: &str = "sidecar_drops_total";

pub fn start() -> Sidecar {
    start_as(Wish::of(&["drops"]))
}

/// The tcp module, which drops needs, would also run without it, and nothing seem to be dropped.
fn start_as(wish: Wish) -> Sidecar {
    let sidecar = Sidecar::start(wish);
    let status = status(&sidecar.snapshot());
    assert!(matches!(status, Status::Running | Status::Degraded), "{status}");
    sidecar
}

fn status(metrics: &Metrics) -> Status {
    metrics.0.modules.iter().find(|module| module.name == "drops").unwrap().status
}

/// Does something that makes the kernel count at least `least` drops, and holds ours to them. The tracepoint tells no
/// namespace, so that other drops of the machine with the same labels may fall between: then it is done once more.
///
/// Where the kernel tells no reasons or functions, which the module says, drops of all kinds are in one series: then ours
/// are no fewer.
#[track_caller]
pub fn agree(sidecar: &Sidecar, labels: &[(&str, &str)], least: u64, kernel: impl Fn() -> u64, act: impl Fn()) {
    let mut found = Vec::new();
    let wanted = labels.len();
    let labels = &told(&sidecar.snapshot(), labels);
    let kinds_are_told = labels.len() == wanted;
    for _ in 0..5 {
        let before = (kernel(), sidecar.snapshot().sum(DROPS, labels));
        act();
        // What was sent may wait in a queue of the receiver; the kernel counts a moment before it drops.
        let settled = |metrics: &Metrics| {
            let gain = kernel() - before.0;
            gain >= least && metrics.sum(DROPS, labels) - before.1 >= gain
        };
        let ours = sidecar.until(settled).sum(DROPS, labels) - before.1;
        let theirs = kernel() - before.0;
        if (ours == theirs || !kinds_are_told && ours > theirs) && theirs >= least {
            return println!("{labels:?}: {ours} = {theirs}");
        }
        found.push((theirs, ours));
    }
    panic!("{labels:?}: at least {least}; the kernel's and ours: {found:?}");
}

/// Those of the labels that this kernel tells; of the others the module says that it does not.
fn told<'a>(metrics: &Metrics, labels: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let report = metrics.0.modules.iter().find(|module| module.name == "drops").unwrap();
    let names_functions = Kernel::probe([HELPERS]).is_since(LINUX_5_13);
    let unknown = |label: &str| match label {
        "reason" => report.reason.contains("drop reasons are not known before Linux 5.17"),
        "location" => !names_functions && report.reason.contains("nor functions before 5.13"),
        _ => false,
    };
    labels.iter().filter(|(label, _)| !unknown(label)).copied().collect()
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Lets both ends learn where the other one is, so that nothing waits for that.
fn warm(network: &Network) {
    let connect = || [B4, B6].map(|to| TcpStream::connect((ip(to), 9)).expect_err("nobody listens there"));
    network.within(&network.a, connect).join().unwrap();
}

fn send_udp(network: &Network, to: &str, port: u16, packets: usize, bytes: usize) {
    let to = SocketAddr::from((ip(to), port));
    let send = move || {
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any).unwrap();
        (0..packets).for_each(|_| assert_eq!(socket.send_to(&vec![1; bytes], to).unwrap(), bytes));
    };
    network.within(&network.a, send).join().unwrap();
}

/// Sends the same payload in so many IP packets.
fn send_raw(network: &Network, to: &str, protocol: i32, packets: usize, payload: &[u8]) {
    send_each(network, to, protocol, vec![payload.to_vec(); packets]);
}

/// Sends IP packets with payloads of our own making.
fn send_each(network: &Network, to: &str, protocol: i32, payloads: Vec<Vec<u8>>) {
    let to = ip(to);
    let send = move || {
        let family = if to.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        // SAFETY: makes a descriptor, which is ours.
        let socket = unsafe { OwnedFd::from_raw_fd(libc::socket(family, libc::SOCK_RAW, protocol)) };
        // SAFETY: a socket like any other. Its address is that of an IP socket, the port 0.
        let socket = UdpSocket::from(socket);
        payloads.iter().for_each(|bytes| assert_eq!(socket.send_to(bytes, (to, 0)).unwrap(), bytes.len()));
    };
    network.within(&network.a, send).join().unwrap();
}

#[test]
fn nft_drops_as_many_as_we_count() {
    let network = Network::new();
    // Nobody else uses the protocol for experiments; UDP shares its series with what others may drop.
    network.filter(
        &network.b,
        &[
            "meta nfproto ipv4 meta l4proto 253 counter drop",
            "meta nfproto ipv6 meta l4proto 253 counter drop",
            "meta l4proto udp counter drop",
        ],
    );
    warm(&network);
    let sidecar = start();
    for (rule, to, protocol) in [(0, B4, "ipv4:253"), (1, B6, "ipv6:253")] {
        let labels = [("reason", "netfilter_drop"), ("protocol", protocol)];
        let kernel = || network.filtered(&network.b)[rule];
        agree(&sidecar, &labels, 500, kernel, || send_raw(&network, to, 253, 500, b"experiment"));
    }
    for to in [B4, B6] {
        let labels = [("reason", "netfilter_drop"), ("protocol", "udp")];
        let kernel = || network.filtered(&network.b)[2];
        agree(&sidecar, &labels, 5000, kernel, || send_udp(&network, to, 4242, 5000, 100));
    }
    let metrics = sidecar.snapshot();
    for labels in with_label(&metrics, ("reason", "netfilter_drop")) {
        let location = labels.iter().find(|(name, _)| *name == "location").map(|(_, value)| &**value);
        assert!(location.is_some_and(|name| name.starts_with("nf")), "{labels:?}");
    }
}

/// The label sets of the drops that carry this one.
fn with_label(metrics: &Metrics, (name, value): (&str, &str)) -> Vec<Labels> {
    let families = metrics.0.families.iter().filter(|family| family.descriptor.name == DROPS);
    let labels = families.flat_map(|family| &family.samples).map(|sample| Labels::clone(&sample.labels));
    labels.filter(|labels| labels.iter().any(|(known, found)| *known == name && **found == *value)).collect()
}

#[test]
fn udp_drops_are_those_of_the_kernel() {
    let network = Network::new();
    warm(&network);
    let sidecar = start();
    let [full4, full6] = ports();
    for (to, counters, port) in [(B4, "Udp", full4), (B6, "Udp6", full6)] {
        let kernel = |name| network.kernel_counter(&network.b, counters, name);
        let labels = |reason| [("reason", reason), ("protocol", "udp")];
        agree(&sidecar, &labels("no_socket"), 1000, || kernel("NoPorts"), || send_udp(&network, to, 9, 1000, 100));
        // Ports 9 and 9, a length of 8 and a wrong checksum.
        let wrong = || send_raw(&network, to, libc::IPPROTO_UDP, 100, &[0, 9, 0, 9, 0, 8, 0xbe, 0xef]);
        agree(&sidecar, &labels("udp_csum"), 100, || kernel("InCsumErrors"), wrong);

        let (ready, bound) = mpsc::channel();
        let (done, finished) = mpsc::channel::<()>();
        let receiver = network.within(&network.b, move || {
            let socket = UdpSocket::bind((ip(to), port)).unwrap();
            ready.send(()).unwrap();
            finished.recv().unwrap_err(); // it never reads
            drop(socket);
        });
        bound.recv().unwrap();
        let full = || send_udp(&network, to, port, 1000, 1400);
        agree(&sidecar, &labels("socket_rcvbuff"), 500, || kernel("RcvbufErrors"), full);
        // Whose queue it was the tracepoint tells since 6.11; before, the module says that it does not know.
        let metrics = sidecar.snapshot();
        let known = with_label(&metrics, ("dst_port", &port.to_string())).len();
        assert_eq!(known > 0, status(&metrics) == Status::Running, "{known}");
        drop(done);
        receiver.join().unwrap();
    }
}

#[test]
fn tcp_drops_are_those_of_the_kernel() {
    let network = Network::new();
    warm(&network);
    let sidecar = start();
    let kernel = |name| network.kernel_counter(&network.b, "Tcp", name);
    let labels = |reason| [("reason", reason), ("protocol", "tcp")];
    for to in [B4, B6] {
        let connect = move || (0..200).for_each(|_| drop(TcpStream::connect((ip(to), 9)).unwrap_err()));
        let refused = || network.within(&network.a, connect).join().unwrap();
        agree(&sidecar, &labels("no_socket"), 200, || kernel("OutRsts"), refused);
        // A SYN from port 9 to port 9 with a wrong checksum.
        const SYN: [u8; 20] = [0, 9, 0, 9, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0xde, 0xad, 0, 0];
        let wrong = || send_raw(&network, to, libc::IPPROTO_TCP, 100, &SYN);
        agree(&sidecar, &labels("tcp_csum"), 100, || kernel("InCsumErrors"), wrong);
    }
}

/// The namespace `b` forwards: to where there is no way, and what has come too far.
#[test]
fn forwarding_drops_are_those_of_the_kernel() {
    let network = Network::new();
    warm(&network);
    let forward = || {
        for file in ["ipv4/conf/all/forwarding", "ipv6/conf/all/forwarding"] {
            std::fs::write(format!("/proc/sys/net/{file}"), "1").unwrap();
        }
    };
    network.within(&network.b, forward).join().unwrap();
    for (lost, endless, through, back) in
        [("10.201.0.0/24", "10.202.0.0/24", B4, "10.199.0.1"), ("fd97::/64", "fd98::/64", B6, "fd99::1")]
    {
        run(&format!("ip -n {} route add {lost} via {through}", network.a));
        run(&format!("ip -n {} route add {endless} via {through}", network.a));
        run(&format!("ip -n {} route add {endless} via {back}", network.b));
    }
    let sidecar = start();
    let labels = |reason| [("reason", reason), ("protocol", "udp")];
    for (counters, lost, endless) in [("Ip", "10.201.0.1", "10.202.0.1"), ("Ip6", "fd97::1", "fd98::1")] {
        let kernel = |counters, name| network.kernel_counter(&network.b, counters, name);
        let no_routes = if counters == "Ip" { "IpExt" } else { "Ip6" };
        let send = || send_udp(&network, lost, 9, 300, 10);
        agree(&sidecar, &labels("ip_innoroutes"), 300, || kernel(no_routes, "InNoRoutes"), send);
        // It goes back and forth between the two until its time is up: `a` forwards nothing.
        let send = || send_udp_near(&network, endless, 300);
        agree(&sidecar, &labels("ip_inhdr"), 300, || kernel(counters, "InHdrErrors"), send);
    }
}

/// With so little time to live that the first router drops it.
fn send_udp_near(network: &Network, to: &str, packets: usize) {
    let to = ip(to);
    let send = move || {
        let socket = UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).unwrap();
        let (level, option) =
            if to.is_ipv4() { (libc::IPPROTO_IP, libc::IP_TTL) } else { (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS) };
        let one: libc::c_int = 1;
        // SAFETY: the kernel reads an int.
        let set = unsafe {
            libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const one).cast(), size_of_val(&one) as u32)
        };
        assert_eq!(set, 0);
        (0..packets).for_each(|_| assert_eq!(socket.send_to(b"short", (to, 9)).unwrap(), 5));
    };
    network.within(&network.a, send).join().unwrap();
}

/// What nft drops on the way in has the receiving socket by then, on the way out that of the sender: both are of this process.
#[test]
fn a_dropped_segment_belongs_to_its_socket() {
    let sidecar = start();
    for to in [B4, B6] {
        for hook in ["input", "output"] {
            seen(|| segments_of_one_socket(&sidecar, to, hook));
        }
    }
}

fn segments_of_one_socket(sidecar: &Sidecar, to: &'static str, hook: &str) {
    let network = Network::new();
    let comm = std::fs::read_to_string("/proc/self/comm").unwrap();
    let ns = if hook == "input" { &network.b } else { &network.a };
    // A port of the kernel's choice, as these tests may run twice at a time.
    let listener = network.within(&network.b, move || TcpListener::bind((ip(to), 0)).unwrap()).join().unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut client = network.within(&network.a, move || TcpStream::connect((ip(to), port)).unwrap()).join().unwrap();
    let (mut server, _) = listener.accept().unwrap();
    client.write_all(b"ping").unwrap();
    server.read_exact(&mut [0; 4]).unwrap();
    network.filter_at(ns, hook, &[&format!("tcp dport {port} counter drop")]);
    client.write_all(&[1; 1000]).unwrap();
    // It is sent again and again: 200 ms, 400 ms...
    let port = port.to_string();
    let labels =
        [("reason", "netfilter_drop"), ("protocol", "tcp"), ("comm", comm.trim_end()), ("dst_port", port.as_str())];
    let labels = told(&sidecar.snapshot(), &labels);
    let kernel = Cell::new(0);
    let settled = |metrics: &Metrics| {
        kernel.set(network.filtered(ns).iter().sum());
        kernel.get() >= 3 && metrics.sum(DROPS, &labels) == kernel.get()
    };
    let metrics = sidecar.until(settled);
    let ours = metrics.sum(DROPS, &labels);
    let all = || with_label(&metrics, ("dst_port", &port));
    assert!(ours >= 3 && ours == kernel.get(), "{hook}, {to}: {ours}, nft {}; in {:?}", kernel.get(), all());
    println!("{labels:?}: {ours} = {}", kernel.get());
}

/// What arrives is not dropped: consume_skb is another tracepoint. There are two exceptions, and both are the kernel's
/// own. If the peer's FIN comes together with the acknowledgement of ours, it is put into the receive queue of a socket
/// that nobody reads any more, and purged with it. And where a machine is so slow that a segment is sent again though it
/// arrived, one of the two is dropped (tcp_old_data, tcp_rfc7323_paws), as is a segment that a later one has overtaken, which
/// the kernel counts (PAWSEstab).
#[test]
fn traffic_that_arrives_is_no_drop() {
    const STORM: usize = 2000;
    let sidecar = start_as(Wish::of(&["tcp", "drops"]));
    for ip in ["127.0.0.1", "::1"] {
        for (connections, reply) in [(1, 200 << 20), (STORM, 512)] {
            let listener = listen(ip);
            let to = listener.local_addr().unwrap();
            let server = serve(listener, connections, 64, reply);
            let overtaken = kernel_counter("TcpExt", "PAWSEstab");
            (0..connections).for_each(|_| exchange(to, 64, reply));
            server.join().unwrap();
            let metrics = sidecar.snapshot();
            let overtaken = kernel_counter("TcpExt", "PAWSEstab") - overtaken;
            let port = ("dst_port", &*to.port().to_string());
            let resent = metrics.sum("sidecar_connection_retransmits_total", &[port]);
            let fins = metrics.sum(DROPS, &[port, ("location", "sk_stream_kill_queues")]);
            let others = metrics.sum(DROPS, &[port]) - fins;
            println!("{ip}: {connections} connections, {reply} bytes: {fins} FINs, {others} others, {resent} resent");
            let own = resent + overtaken;
            assert!(fins <= connections as u64 && others <= own, "{own}: {:?}", with_label(&metrics, port));
        }
    }
}

/// With room for three label sets: two collectors in the same window, and what nft dropped is among it.
#[test]
fn sums_are_exact_when_the_family_is_full() {
    let network = Network::new();
    network.filter(&network.b, &["meta l4proto 200-220 counter drop"]);
    warm(&network);
    let small = start_as(Wish { modules: vec!["drops"], max_series: 3, ..Wish::default() });
    let full = start();
    let sums = || [&small, &full].map(|sidecar| sidecar.snapshot().sum(DROPS, &[]));
    let mut windows = Vec::new();
    for _ in 0..5 {
        let (before, nft) = (sums(), network.filtered(&network.b)[0]);
        (200..=220).for_each(|protocol| send_raw(&network, B4, protocol, 10, b"experiment"));
        let all = |_: &Metrics| network.filtered(&network.b)[0] - nft >= 210;
        small.until(all);
        let after = sums();
        windows.push([after[0] - before[0], after[1] - before[1]]);
        if windows.last().is_some_and(|[small, full]| small == full && *full >= 210) {
            break;
        }
    }
    // Other programs of the machine may have had something dropped between the two readings, in some windows.
    assert!(windows.last().is_some_and(|[small, full]| small == full && *full >= 210), "{windows:?}");
    let metrics = small.snapshot();
    assert!(metrics.count(DROPS, &[]) <= 4);
    let others = ["reason", "protocol", "location", "comm", "dst_port"].map(|name| (name, "other"));
    assert!(metrics.sum(DROPS, &others) >= 180, "{}", metrics.sum(DROPS, &others));
    assert!(metrics.sum("sidecar_series_folded_total", &[("family", DROPS)]) >= 180);
}

/// A message that nobody reads any more is dropped with its socket.
#[test]
fn messages_between_processes_are_told_from_packets() {
    let sidecar = start();
    let lost = Cell::new(0);
    let lose = || {
        for _ in 0..100 {
            let (mut writer, reader) = UnixStream::pair().unwrap();
            writer.write_all(b"unread").unwrap();
            drop(reader);
            lost.set(lost.get() + 1);
        }
    };
    agree(&sidecar, &[("protocol", "unix")], 100, || lost.get(), lose);
}

#[test]
fn an_idle_series_disappears_and_starts_anew() {
    let network = Network::new();
    network.filter(&network.b, &["meta l4proto 252 counter drop"]);
    warm(&network);
    let (idle_ttl, interval) = (Duration::from_secs(1), Duration::from_millis(100));
    let sidecar = start_as(Wish { modules: vec!["drops"], idle_ttl, interval, ..Wish::default() });
    let labels = told(&sidecar.snapshot(), &[("reason", "netfilter_drop"), ("protocol", "ipv4:252")]);
    for round in 1..=3 {
        send_raw(&network, B4, 252, 10, b"experiment");
        let ours = sidecar.until(|metrics| metrics.sum(DROPS, &labels) >= 10).sum(DROPS, &labels);
        assert_eq!((ours, network.filtered(&network.b)[0]), (10, 10 * round));
        assert_eq!(sidecar.until(|metrics| metrics.count(DROPS, &labels) == 0).count(DROPS, &labels), 0);
    }
}

/// Open vSwitch counts its drops among the kernel's since 6.7, and its types are told apart from the kernel's.
#[test]
fn reasons_of_a_module_are_named_by_its_own_types() {
    let loaded = Command::new("modprobe").arg("openvswitch").status().is_ok_and(|status| status.success());
    let kernel = Kernel::probe(["skb_drop_reason_subsys"]);
    let subsystems = kernel.enumeration("skb_drop_reason_subsys");
    let subsystem = subsystems.iter().find(|(_, name)| name.ends_with("_OPENVSWITCH")).map(|(number, _)| *number);
    let named = module_enumeration("openvswitch", "ovs_drop_reason").into_iter();
    let last = named.filter(|(_, name)| name == "OVS_DROP_LAST_ACTION").map(|(number, _)| number >> 16).next();
    assert_eq!(last, subsystem.filter(|_| loaded));
    println!("openvswitch loaded: {loaded}; its number: {last:?}");
}

/// The last fragments of packets whose first ones never come. Kernels before 6.9 keep an offset where the socket would be.
#[test]
fn fragments_that_wait_in_vain_are_dropped() {
    let network = Network::new();
    warm(&network);
    let hurry = || {
        for file in ["ipv4/ipfrag_time", "ipv6/ip6frag_time"] {
            std::fs::write(format!("/proc/sys/net/{file}"), "1").unwrap();
        }
    };
    network.within(&network.b, hurry).join().unwrap();
    let sidecar = start();
    // Of UDP, 16 bytes at 1480; in IPv4 in a header of our own, where the kernel fills in what is 0.
    let v4 = |id: u8| [&[0x45, 0, 0, 0, 1, id, 0, 185, 64, 17, 0, 0, 0, 0, 0, 0, 10, 199, 0, 2][..], &[7; 16]].concat();
    let v6 = |id: u8| [&[17, 0, 5, 0xc8, 0, 0, 1, id][..], &[7; 16]].concat();
    for (counters, to, raw, protocol, each) in [
        ("Ip", B4, libc::IPPROTO_RAW, "udp", &v4 as &dyn Fn(u8) -> Vec<u8>),
        ("Ip6", B6, libc::IPPROTO_FRAGMENT, "ipv6", &v6),
    ] {
        let labels = [("protocol", protocol), ("location", "inet_frag_rbtree_purge")];
        let kernel = || network.kernel_counter(&network.b, counters, "ReasmFails");
        agree(&sidecar, &labels, 50, kernel, || send_each(&network, to, raw, (0..50).map(each).collect()));
    }
}

/// What older kernels leave out of the tracepoint is left out here, and the module says so.
#[test]
fn the_programs_for_older_kernels_do_without() {
    let network = dropping();
    let given = Kernel::probe([tracepoint("kfree_skb")]).tracepoint_arguments("kfree_skb");
    for (arguments, host, reason) in [
        (3, of_6_10 as fn(&mut Kernel), ("reason", "netfilter_drop")),
        (2, of_5_16 as fn(&mut Kernel), ("protocol", "ipv4:251")),
    ] {
        if arguments > given {
            continue; // this kernel is older itself
        }
        let sidecar = start_as(Wish { modules: vec!["drops"], host, ..Wish::default() });
        dropped_by_nft(&sidecar, &network, &[reason, PROTOCOL]);
        let metrics = sidecar.snapshot();
        assert_eq!(status(&metrics), Status::Degraded, "{arguments} arguments");
        let found = with_label(&metrics, PROTOCOL);
        assert_eq!(found[0].iter().any(|(name, _)| *name == "reason"), arguments == 3, "{found:?}");
    }
}

/// One that nobody else uses: it is for experiments.
pub const PROTOCOL: (&str, &str) = ("protocol", "ipv4:251");

/// A network that drops all of it.
pub fn dropping() -> Network {
    let network = Network::new();
    network.filter(&network.b, &["meta l4proto 251 counter drop"]);
    warm(&network);
    network
}

/// What nft has dropped there has these labels.
#[track_caller]
pub fn dropped_by_nft(sidecar: &Sidecar, network: &Network, labels: &[(&str, &str)]) {
    let kernel = || network.filtered(&network.b)[0];
    agree(sidecar, labels, 50, kernel, || send_raw(network, B4, 251, 50, b"experiment"));
}

/// With the reason, if there is a hook that tells it.
pub fn what_is_seen_is_exact(sidecar: &Sidecar, network: &Network) {
    let reasons = !sidecar.module("drops").reason.contains("drop reasons are not known");
    let labels = [PROTOCOL, ("reason", "netfilter_drop")];
    dropped_by_nft(sidecar, network, if reasons { &labels } else { &labels[..1] });
    let found = with_label(&sidecar.snapshot(), PROTOCOL);
    assert!(found.iter().all(|labels| labels.iter().any(|(name, _)| *name == "reason") == reasons), "{found:?}");
}

fn of_6_10(kernel: &mut Kernel) {
    kernel.names.insert(tracepoint("kfree_skb"), 3);
}

fn of_5_16(kernel: &mut Kernel) {
    kernel.names.insert(tracepoint("kfree_skb"), 2);
    kernel.enums.retain(|name, _| name == HELPERS);
}
