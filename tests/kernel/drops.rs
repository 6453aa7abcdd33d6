//! The drops collector against nft's counters and the kernel's own.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::mpsc;

use nix::libc;

use crate::fixture::{B4, B6, Metrics, Network, Sidecar, Wish, exchange, listen, run, serve};

const DROPS: &str = "sidecar_drops_total";

fn start() -> Sidecar {
    Sidecar::start(Wish { modules: vec!["drops"], ..Wish::default() })
}

/// Does something that makes the kernel count at least `least` drops, and holds ours to them. The tracepoint tells no
/// namespace, so that other drops of the machine with the same labels may fall between: then it is done once more.
#[track_caller]
fn agree(sidecar: &Sidecar, labels: &[(&str, &str)], least: u64, kernel: impl Fn() -> u64, act: impl Fn()) {
    let mut found = Vec::new();
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
        if ours == theirs && theirs >= least {
            return println!("{labels:?}: {ours} = {theirs}");
        }
        found.push((theirs, ours));
    }
    panic!("{labels:?}: at least {least}; the kernel's and ours: {found:?}");
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

/// Sends IP packets with a payload of our own making.
fn send_raw(network: &Network, to: &str, protocol: i32, packets: usize, payload: &'static [u8]) {
    let to = ip(to);
    let send = move || {
        let family = if to.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        // SAFETY: makes a descriptor, which is ours.
        let socket = unsafe { OwnedFd::from_raw_fd(libc::socket(family, libc::SOCK_RAW, protocol)) };
        // SAFETY: a socket like any other. Its address is that of an IP socket, the port 0.
        let socket = UdpSocket::from(socket);
        (0..packets).for_each(|_| assert_eq!(socket.send_to(payload, (to, 0)).unwrap(), payload.len()));
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
    let located = sidecar.snapshot();
    for family in located.0.families.iter().filter(|family| family.descriptor.name == DROPS) {
        for sample in &family.samples {
            let location = sample.labels.iter().find(|(name, _)| *name == "location").map(|(_, value)| &**value);
            assert!(location.is_some_and(|name| !name.contains([' ', '[']) && name != "other"), "{:?}", sample.labels);
        }
    }
}

#[test]
fn udp_drops_are_those_of_the_kernel() {
    let network = Network::new();
    warm(&network);
    let sidecar = start();
    for (to, counters) in [(B4, "Udp"), (B6, "Udp6")] {
        let kernel = |name| network.kernel_counter(&network.b, counters, name);
        let labels = |reason| [("reason", reason), ("protocol", "udp")];
        agree(&sidecar, &labels("no_socket"), 1000, || kernel("NoPorts"), || send_udp(&network, to, 9, 1000, 100));
        // Ports 9 and 9, a length of 8 and a wrong checksum.
        let wrong = || send_raw(&network, to, libc::IPPROTO_UDP, 100, &[0, 9, 0, 9, 0, 8, 0xbe, 0xef]);
        agree(&sidecar, &labels("udp_csum"), 100, || kernel("InCsumErrors"), wrong);

        let (ready, bound) = mpsc::channel();
        let (done, finished) = mpsc::channel::<()>();
        let receiver = network.within(&network.b, move || {
            let socket = UdpSocket::bind((ip(to), 7201)).unwrap();
            ready.send(()).unwrap();
            finished.recv().unwrap_err(); // it never reads
            drop(socket);
        });
        bound.recv().unwrap();
        let full = || send_udp(&network, to, 7201, 1000, 1400);
        agree(&sidecar, &labels("socket_rcvbuff"), 500, || kernel("RcvbufErrors"), full);
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
    let network = Network::new();
    let sidecar = start();
    let comm = std::fs::read_to_string("/proc/self/comm").unwrap();
    for (to, port, ns, hook) in [
        (B4, 7101, &network.b, "input"),
        (B6, 7102, &network.b, "input"),
        (B4, 7103, &network.a, "output"),
        (B6, 7104, &network.a, "output"),
    ] {
        let listener = network.within(&network.b, move || TcpListener::bind((ip(to), port)).unwrap()).join().unwrap();
        let mut client =
            network.within(&network.a, move || TcpStream::connect((ip(to), port)).unwrap()).join().unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(b"ping").unwrap();
        server.read_exact(&mut [0; 4]).unwrap();
        let rule = format!("tcp dport {port} counter drop");
        network.filter_at(hook, ns, &[&rule]);
        client.write_all(&[1; 1000]).unwrap();
        // It is sent again and again: 200 ms, 400 ms...
        let port = port.to_string();
        let labels =
            [("reason", "netfilter_drop"), ("protocol", "tcp"), ("comm", comm.trim_end()), ("dst_port", port.as_str())];
        let kernel = || network.filtered(ns).last().copied().unwrap();
        let metrics = sidecar.until(|metrics| kernel() >= 3 && metrics.sum(DROPS, &labels) == kernel());
        let ours = metrics.sum(DROPS, &labels);
        assert!(ours >= 3 && ours == kernel(), "{hook}, {to}: {ours}, nft {}", kernel());
        println!("{labels:?}: {ours} = {}", kernel());
        run(&format!("ip netns exec {ns} nft flush ruleset"));
    }
}

/// What arrives is not dropped: consume_skb is another tracepoint. One exception is the kernel's own: if the peer's FIN
/// comes together with the acknowledgement of ours, it is put into the receive queue of a socket that nobody reads any
/// more, and purged with it.
#[test]
fn traffic_that_arrives_is_no_drop() {
    const STORM: usize = 2000;
    let sidecar = start();
    for ip in ["127.0.0.1", "::1"] {
        for (connections, reply) in [(1, 200 << 20), (STORM, 512)] {
            let listener = listen(ip);
            let to = listener.local_addr().unwrap();
            let server = serve(listener, connections, 64, reply);
            (0..connections).for_each(|_| exchange(to, 64, reply));
            server.join().unwrap();
            let metrics = sidecar.snapshot();
            let port = to.port().to_string();
            let (all, purged) = (("dst_port", port.as_str()), ("location", "sk_stream_kill_queues"));
            let fins = metrics.sum(DROPS, &[all, purged]);
            assert_eq!(metrics.sum(DROPS, &[all]), fins, "{ip}");
            assert!(fins <= connections as u64, "{fins} of {connections}");
            println!("{ip}: {connections} connections, {reply} bytes, {fins} FINs purged");
        }
    }
}

/// With room for three label sets: two collectors in the same window, and what nft dropped is among it.
#[test]
fn sums_are_exact_when_the_family_is_full() {
    let network = Network::new();
    network.filter(&network.b, &["meta l4proto 200-220 counter drop"]);
    warm(&network);
    let small = Sidecar::start(Wish { modules: vec!["drops"], max_series: 3, ..Wish::default() });
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
