//! The retransmit collector against the kernel's counters in each network namespace, and those of nft. Sums are over ports of
//! their own, so that whatever else runs on the machine is not in them.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, SockaddrIn, sendto};
use nix::sys::wait::waitpid;

use crate::fixture::{B4, B6, Metrics, Network, Sidecar, Wish, drain, in_process, listen, ports, seen, tcp_info};

const SEGMENTS: &str = "sidecar_retransmit_segments_total";
const TIMEOUT: &str = "sidecar_retransmit_timeout_seconds_total";
const RESETS: &str = "sidecar_resets_total";
const RETRANSMITS: &str = "sidecar_connection_retransmits_total";
const SPURIOUS: &str = "sidecar_connection_spurious_retransmits_total";

/// What one side of the connections to some ports has sent again.
struct Side<'a> {
    metrics: &'a Metrics,
    role: &'static str,
    ports: &'a [u16],
}

impl Side<'_> {
    fn sum(&self, family: &str, more: &[(&str, &str)]) -> u64 {
        let of = |port: &u16| {
            let port = port.to_string();
            let labels: Vec<_> =
                [("role", self.role), ("dst_port", &port)].into_iter().chain(more.iter().copied()).collect();
            self.metrics.sum(family, &labels)
        };
        self.ports.iter().map(of).sum()
    }

    fn all(&self) -> u64 {
        self.sum(SEGMENTS, &[])
    }

    fn kind(&self, kind: &str) -> u64 {
        self.sum(SEGMENTS, &[("kind", kind)])
    }
}

/// The kernel's counters of a namespace.
struct Kernel<'a>(&'a Network, &'a str);

impl Kernel<'_> {
    fn tcp(&self, name: &'static str) -> u64 {
        self.0.kernel_counter(self.1, "Tcp", name)
    }

    fn ext(&self, name: &'static str) -> u64 {
        self.0.kernel_counter(self.1, "TcpExt", name)
    }
}

/// A server in `b` that reads `size` bytes and answers with as many, for each of `connections`; ready when this returns.
fn echo(network: &Network, ip: &'static str, port: u16, connections: usize, size: usize) -> JoinHandle<()> {
    let (ready, started) = mpsc::channel();
    let server = network.within(&network.b, move || {
        let listener = TcpListener::bind((ip, port)).unwrap();
        ready.send(()).unwrap();
        let mut request = vec![0; size];
        for _ in 0..connections {
            let (mut stream, _) = listener.accept().unwrap();
            stream.read_exact(&mut request).unwrap();
            stream.write_all(&request).unwrap();
        }
    });
    started.recv().unwrap();
    server
}

fn exchanges(network: &Network, ip: &str, port: u16, connections: usize, size: usize) {
    let to: SocketAddr = (ip.parse::<IpAddr>().unwrap(), port).into();
    let client = network.within(&network.a, move || {
        for _ in 0..connections {
            let mut stream = TcpStream::connect(to).unwrap();
            stream.write_all(&vec![1; size]).unwrap();
            assert_eq!(drain(&stream), size);
        }
    });
    client.join().unwrap();
}

fn all_closed(ports: &[u16], connections: u64) -> impl Fn(&Metrics) -> bool {
    move |metrics| {
        ["client", "server"]
            .into_iter()
            .all(|role| Side { metrics, role, ports }.sum("sidecar_connections_closed_total", &[]) == connections)
    }
}

/// Every kind against the counter of the kernel that means the same, on both sides of a link that loses packets both ways.
#[test]
fn kinds_equal_the_kernels_counters_on_a_lossy_link() {
    seen(lossy_link);
}

fn lossy_link() {
    let ports @ [large, large6, small, small6] = ports();
    let network = Network::new();
    let lossy = ["meta l4proto tcp numgen random mod 100 < 4 drop"];
    network.filter(&network.a, &lossy);
    network.filter(&network.b, &lossy);
    let sidecar = Sidecar::start(Wish::of(&["tcp", "retransmit"]));
    for (ip, port, connections, size) in
        [(B4, large, 4, 2_000_000), (B6, large6, 4, 2_000_000), (B4, small, 40, 5000), (B6, small6, 40, 5000)]
    {
        let server = echo(&network, ip, port, connections, size);
        exchanges(&network, ip, port, connections, size);
        server.join().unwrap();
    }
    let metrics = sidecar.until(all_closed(&ports, 88));
    for (role, ns) in [("client", &network.a), ("server", &network.b)] {
        let (side, kernel) = (Side { metrics: &metrics, role, ports: &ports }, Kernel(&network, ns));
        assert!(side.all() > 50, "the link is not lossy");
        let all = kernel.tcp("RetransSegs");
        assert_eq!((side.all(), side.sum(RETRANSMITS, &[])), (all, all), "{role}");
        assert_eq!(side.kind("other"), 0, "{role}");
        assert_eq!(side.kind("fast"), kernel.ext("TCPFastRetrans"), "{role}");
        assert_eq!(side.kind("syn") + side.kind("synack"), kernel.ext("TCPSynRetrans"), "{role}");
        assert!(side.kind("loss_probe") <= kernel.ext("TCPLossProbes"), "{role}: those with new data count there, too");
        assert_eq!(side.sum(SPURIOUS, &[]), kernel.ext("TCPDSACKRecvSegs"), "{role}");
    }
    // A timer that finds its segment still queued on this host fires for nothing. SYN-ACKs have timers, too.
    let (side, kernel) = (Side { metrics: &metrics, role: "client", ports: &ports }, Kernel(&network, &network.a));
    let released = kernel.ext("TCPTimeouts") + kernel.ext("TCPSlowStartRetrans");
    let sent = side.kind("timeout") + side.kind("syn");
    let idle = kernel.ext("TCPSpuriousRtxHostQueues");
    assert!((sent..=sent + idle).contains(&released), "{released} by timers, {sent} sent, at most {idle} for nothing");
}

/// The last segment of a message is lost: nothing comes after it that the peer could acknowledge.
#[test]
fn tail_losses_are_loss_probes() {
    seen(tail_losses);
}

fn tail_losses() {
    let network = Network::new();
    let ports @ [port4, port6] = ports();
    let lossy = format!("tcp dport {{ {port4}, {port6} }} meta length > 500 numgen inc mod 2 == 0 drop");
    network.filter(&network.b, &[&lossy]);
    let sidecar = Sidecar::start(Wish::of(&["tcp", "retransmit"]));
    for (ip, port) in [(B4, port4), (B6, port6)] {
        let (mut client, mut server) = network.pair(ip, port);
        for _ in 0..5 {
            client.write_all(&[1; 1000]).unwrap();
            server.read_exact(&mut [0; 1000]).unwrap();
            server.write_all(&[1]).unwrap();
            client.read_exact(&mut [0]).unwrap();
        }
    }
    let metrics = sidecar.snapshot();
    let (side, kernel) = (Side { metrics: &metrics, role: "client", ports: &ports }, Kernel(&network, &network.a));
    // When a probe is not allowed yet, it is left to the timer, which may fire for nothing. There is no new data that a
    // probe could carry.
    let all = side.sum(SEGMENTS, &[("state", "established")]);
    assert_eq!((side.all(), side.kind("other")), (kernel.tcp("RetransSegs"), 0));
    assert_eq!(side.all(), all);
    assert!(all >= 10, "each message was lost once");
    assert!(side.kind("loss_probe") >= 2, "the first loss of each connection is a tail loss");
    assert_eq!(side.kind("loss_probe"), kernel.ext("TCPLossProbes"));
    assert_eq!(side.kind("timeout"), all - side.kind("loss_probe"));
    let idle = kernel.ext("TCPSpuriousRtxHostQueues");
    assert!((side.kind("timeout")..=side.kind("timeout") + idle).contains(&kernel.ext("TCPTimeouts")));
}

/// Segments that are sent again on both sides of a link, and resets, as far as there are hooks for them.
pub fn what_is_seen_is_exact(network: &Network, start: &dyn Fn() -> Sidecar) {
    let [port, shaken, nobody] = ports();
    let lost = |what: &str| format!("{what} numgen inc mod 2 == 0 drop");
    network.filter(&network.b, &[&lost(&format!("tcp dport {port} meta length > 500"))]);
    network.filter(&network.a, &[&lost(&format!("tcp sport {shaken} tcp flags & (syn | ack) == (syn | ack)"))]);
    let _filters = Filters(network);
    let sidecar = start();
    let seen = |hook| u64::from(sidecar.has("retransmit", hook));
    let sides = [("client", Kernel(network, &network.a)), ("server", Kernel(network, &network.b))];
    let before = sides.each_ref().map(|(_, kernel)| [kernel.tcp("RetransSegs"), kernel.ext("TCPSynRetrans")]);
    let resets = sides[1].1.tcp("OutRsts");
    // Whose handshake was disturbed waits long for everything else.
    let _shaken = network.pair(B4, shaken);
    let (mut client, mut server) = network.pair(B4, port);
    for _ in 0..3 {
        client.write_all(&[1; 1000]).unwrap();
        server.read_exact(&mut [0; 1000]).unwrap();
        server.write_all(&[1]).unwrap();
        client.read_exact(&mut [0]).unwrap();
    }
    // Closed with something left to read, which is acknowledged: a client that sends it again would get one more reset, which
    // belongs to no socket any more.
    client.write_all(b"unread").unwrap();
    server.peek(&mut [0]).unwrap();
    while tcp_info(&client).unacked > 0 {
        thread::sleep(Duration::from_millis(1));
    }
    drop(server);
    assert!(client.read(&mut [0]).is_err());
    network
        .within(&network.a, move || (0..3).for_each(|_| assert!(TcpStream::connect((B4, nobody)).is_err())))
        .join()
        .unwrap();

    let (metrics, all) = network.retransmits_at_rest(&sidecar);
    for ((role, kernel), (all, before)) in sides.iter().zip(all.into_iter().zip(before)) {
        let side = Side { metrics: &metrics, role, ports: &[port, shaken] };
        let [all, handshake] = [all - before[0], kernel.ext("TCPSynRetrans") - before[1]];
        // Whether the client's timer runs out as well, is a matter of moments.
        let is_server = *role == "server";
        assert!(if is_server { handshake > 0 } else { all > handshake }, "{role}: {all}, {handshake}");
        let synacks = if is_server { handshake } else { 0 };
        assert_eq!(side.kind("synack"), synacks * seen("tcp_retransmit_synack"), "{role}");
        assert_eq!(side.all(), all - synacks + side.kind("synack"), "{role}");
        assert_eq!(side.kind("other"), 0, "{role}");
    }
    let sum = |port: u16, direction| metrics.sum(RESETS, &[("dst_port", &port.to_string()), ("direction", direction)]);
    assert_eq!(sides[1].1.tcp("OutRsts") - resets, 4);
    assert_eq!(
        sum(port, "sent") + sum(nobody, "sent"),
        seen("tcp_send_reset") * if all_resets_are_shown() { 4 } else { 1 }
    );
    assert_eq!(sum(port, "received") + sum(nobody, "received"), seen("tcp_receive_reset") * 4);
}

/// Or only those that a socket sends.
fn all_resets_are_shown() -> bool {
    let host = ebpf_sidecar::kernel::Kernel::probe(["btf_trace_tcp_send_reset"]);
    host.tracepoint_arguments("tcp_send_reset") > 2
}

/// Taken away with this.
struct Filters<'a>(&'a Network);

impl Drop for Filters<'_> {
    fn drop(&mut self) {
        [&self.0.a, &self.0.b].into_iter().for_each(|ns| self.0.unfilter(ns, "input"));
    }
}

/// Nothing gets through: each timer is twice as long as the one before, and all of them were waited for.
#[test]
fn time_lost_is_the_sum_of_the_timers_that_ran_out() {
    let network = Network::new();
    let sidecar = Sidecar::start(Wish::of(&["tcp", "retransmit"]));
    for ip in [B4, B6] {
        assert!(ports::<4>().into_iter().any(|port| three_timers(&network, &sidecar, ip, port)), "{ip}");
    }
}

/// `false` if a timer found its segment still queued on this host, as may happen on a busy one, and fired for nothing; or
/// if one was not seen, as for [`seen`].
fn three_timers(network: &Network, sidecar: &Sidecar, ip: &'static str, port: u16) -> bool {
    let (mut client, mut server) = network.pair(ip, port);
    let kernel = Kernel(network, &network.a);
    let counters = || ["TCPTimeouts", "TCPSpuriousRtxHostQueues"].map(|name| kernel.ext(name));
    let (before, sent_before, first) = (counters(), kernel.tcp("RetransSegs"), tcp_info(&client).timeout_us / 1e6);
    network.filter(&network.b, &[&format!("tcp dport {port} drop")]);
    client.write_all(&[1; 100]).unwrap();
    let timers = |metrics: &Metrics| Side { metrics, role: "client", ports: &[port] }.kind("timeout");
    let metrics = sidecar.until(|metrics| timers(metrics) == 3);
    let (after, sent_after) = (counters(), kernel.tcp("RetransSegs"));
    network.unfilter(&network.b, "input");
    server.read_exact(&mut [0; 100]).unwrap();
    let side = Side { metrics: &metrics, role: "client", ports: &[port] };
    if after[1] != before[1] || side.kind("other") != 0 {
        return false;
    }
    assert_eq!((timers(&metrics), after[0] - before[0]), (3, 3), "{ip}");
    assert_eq!(side.all(), sent_after - sent_before, "{ip}");
    assert_eq!(side.kind("loss_probe"), 1, "{ip}: a probe comes before the first timer");
    let waited = metrics.number(TIMEOUT, &[("role", "client"), ("dst_port", &port.to_string())]).unwrap();
    assert!((waited - 7.0 * first).abs() < 1e-9, "{ip}: {waited} s, of timers from {first} s on");
    true
}

#[test]
fn lost_syns_and_syn_acks_are_told_apart() {
    seen(lost_syns_and_syn_acks);
}

fn lost_syns_and_syn_acks() {
    let network = Network::new();
    let [nobody] = ports();
    let ports @ [syn4, synack4, syn6, synack6] = ports();
    network.filter(&network.b, &[&format!("tcp dport {{ {syn4}, {syn6} }} drop")]);
    network.filter(&network.a, &[&format!("tcp sport {{ {synack4}, {synack6} }} drop")]);
    let sidecar = Sidecar::start(Wish::of(&["tcp", "retransmit"]));
    let listening =
        |ip, port| network.within(&network.b, move || TcpListener::bind((ip, port)).unwrap()).join().unwrap();
    let _listeners = [(B4, synack4), (B6, synack6)].map(|(ip, port)| listening(ip, port));
    let connects = [(B4, syn4), (B4, synack4), (B6, syn6), (B6, synack6)].map(|to| {
        network.within(&network.a, move || {
            // A SYN that waits for the address of its neighbour is not sent again.
            assert!(TcpStream::connect((to.0, nobody)).is_err());
            retry_syns("2");
            assert!(TcpStream::connect(to).is_err());
        })
    });
    connects.into_iter().for_each(|connect| connect.join().unwrap());
    // The server goes on.
    let (metrics, [client, server]) = network.retransmits_at_rest(&sidecar);
    let side = |role| Side { metrics: &metrics, role, ports: &ports };
    assert_eq!(side("client").sum(SEGMENTS, &[("kind", "syn"), ("state", "syn_sent")]), 8);
    assert_eq!((side("client").all(), client), (8, 8));
    for port in ports {
        let waited = metrics.number(TIMEOUT, &[("role", "client"), ("dst_port", &port.to_string())]);
        assert_eq!(waited, Some(3.0), "{port}");
    }
    let synacks = side("server").sum(SEGMENTS, &[("kind", "synack"), ("state", "syn_recv")]);
    assert!(synacks >= 4, "the client's SYN came again, and was answered again");
    assert_eq!((synacks, synacks), (side("server").all(), server));
}

/// Has connects of this namespace give up after so many, each after twice the time.
fn retry_syns(times: &str) {
    std::fs::write("/proc/sys/net/ipv4/tcp_syn_retries", times).unwrap();
    // Since 6.5 some come before that, a second apart.
    _ = std::fs::write("/proc/sys/net/ipv4/tcp_syn_linear_timeouts", "0");
}

/// With fast open the SYN-ACK belongs to a socket that is there before the handshake is over.
#[test]
fn syn_acks_of_fast_open_count_once() {
    seen(syn_acks_of_fast_open);
}

fn syn_acks_of_fast_open() {
    let network = Network::new();
    let sidecar = Sidecar::start(Wish::of(&["tcp", "retransmit"]));
    let [port] = ports();
    let listener = network.within(&network.b, move || {
        allow_fast_open();
        TcpListener::bind((B4, port)).unwrap()
    });
    let listener = listener.join().unwrap();
    set_option(&listener, nix::libc::IPPROTO_TCP, nix::libc::TCP_FASTOPEN, &5);
    let lossy = format!("tcp sport {port} tcp flags & (syn | ack) == (syn | ack) numgen inc mod 3 < 2 drop");
    network.filter(&network.a, &[&lossy]);
    let client = network.within(&network.a, move || {
        allow_fast_open();
        let socket = nix::sys::socket::socket(AddressFamily::Inet, SockType::Stream, SockFlag::empty(), None).unwrap();
        let (to, flags) = (SockaddrIn::new(10, 199, 0, 2, port), MsgFlags::from_bits_retain(nix::libc::MSG_FASTOPEN));
        sendto(socket.as_raw_fd(), b"early", &to, flags).unwrap();
        TcpStream::from(socket).read_exact(&mut [0; 4]).unwrap();
    });
    let (mut server, _) = listener.accept().unwrap();
    server.read_exact(&mut [0; 5]).unwrap();
    server.write_all(b"late").unwrap();
    client.join().unwrap();
    drop(server);
    sidecar.until(all_closed(&[port], 1));
    let (metrics, counts) = network.retransmits_at_rest(&sidecar);
    assert_eq!(Kernel(&network, &network.b).ext("TCPFastOpenPassive"), 1);
    for (role, kernel) in ["client", "server"].into_iter().zip(counts) {
        let side = Side { metrics: &metrics, role, ports: &[port] };
        assert!(kernel > 0, "{role}");
        assert_eq!((side.all(), side.sum(RETRANSMITS, &[])), (kernel, kernel), "{role}");
    }
    assert!(Side { metrics: &metrics, role: "server", ports: &[port] }.kind("synack") > 0);
}

/// For clients and servers of the namespace, and without cookies: Documentation/networking/ip-sysctl.rst.
fn allow_fast_open() {
    std::fs::write("/proc/sys/net/ipv4/tcp_fastopen", (0x1 | 0x2 | 0x4 | 0x200).to_string()).unwrap();
}

/// RetransSegs counts what this host could not send, too.
#[test]
fn segments_that_this_host_fails_to_send_count() {
    seen(segments_that_this_host_fails_to_send);
}

fn segments_that_this_host_fails_to_send() {
    let network = Network::new();
    let sidecar = Sidecar::start(Wish::of(&["tcp", "retransmit"]));
    let [port] = ports();
    let (mut client, mut server) = network.pair(B4, port);
    let kernel = Kernel(&network, &network.a);
    network.filter(&network.b, &[&format!("tcp dport {port} drop")]);
    client.write_all(&[1; 100]).unwrap();
    network.filter_at(&network.a, "output", &[&format!("tcp dport {port} drop")]);
    let deadline = Instant::now() + Duration::from_secs(20);
    while kernel.ext("TCPRetransFail") < 3 {
        assert!(Instant::now() < deadline, "retransmissions do not fail");
        thread::sleep(Duration::from_millis(10));
    }
    network.unfilter(&network.a, "output");
    network.unfilter(&network.b, "input");
    server.read_exact(&mut [0; 100]).unwrap();
    let (metrics, [all, _]) = network.retransmits_at_rest(&sidecar);
    let side = Side { metrics: &metrics, role: "client", ports: &[port] };
    assert_eq!((side.all(), side.sum(RETRANSMITS, &[])), (all, all));
    // Where the kernel does not show failures, their cause is not known.
    let host = ebpf_sidecar::kernel::Kernel::probe(["btf_trace_tcp_retransmit_skb"]);
    let shown = host.tracepoint_arguments("tcp_retransmit_skb") > 2;
    assert_eq!(side.kind("other"), if shown { 0 } else { kernel.ext("TCPRetransFail") });
}

/// Also with tcp at work, but not shown.
#[test]
fn a_series_keeps_the_name_of_its_process() {
    seen(a_named_process);
}

fn a_named_process() {
    let network = Network::new();
    let [port] = ports();
    network.filter(&network.b, &[&format!("tcp dport {port} drop")]);
    let sidecar = Sidecar::start(Wish::of(&["retransmit"]));
    let client = network.within(&network.a, move || {
        let child = in_process("unheard", || {
            retry_syns("1");
            assert!(TcpStream::connect((B4, port)).is_err());
        });
        waitpid(child, None).unwrap();
    });
    client.join().unwrap();
    let metrics = sidecar.snapshot();
    let port = port.to_string();
    let labels = [("comm", "unheard"), ("role", "client"), ("dst_ip", B4), ("dst_port", port.as_str())];
    assert_eq!(metrics.sum(SEGMENTS, &labels), 1);
    assert_eq!(metrics.number(TIMEOUT, &labels), Some(1.0));
    assert_eq!(metrics.count(RETRANSMITS, &[]), 0);
}

/// Every reset on a link, against OutRsts of the side that sent it and the packets that the other one saw come in.
#[test]
fn resets_equal_the_kernels_counters() {
    let network = Network::new();
    for ns in [&network.a, &network.b] {
        network.filter(ns, &["tcp flags & rst == rst counter"]);
    }
    let sidecar = Sidecar::start(Wish::of(&["tcp", "retransmit"]));
    let refused @ [refused4, refused6] = ports();
    let unread @ [unread4, unread6] = ports();
    let aborted @ [aborted4, aborted6] = ports();
    let connects = network.within(&network.a, move || {
        for (to, times) in [((B4, refused4), 5), ((B6, refused6), 3)] {
            (0..times).for_each(|_| assert!(TcpStream::connect(to).is_err()));
        }
    });
    connects.join().unwrap();
    for (ip, port, other) in [(B4, unread4, aborted4), (B6, unread6, aborted6)] {
        // Closed with something left to read.
        let (mut client, server) = network.pair(ip, port);
        client.write_all(b"unread").unwrap();
        server.peek(&mut [0]).unwrap();
        drop(server);
        assert!(client.read(&mut [0]).is_err());
        // Closed without waiting for what is on its way.
        let (client, mut server) = network.pair(ip, other);
        set_option(&client, nix::libc::SOL_SOCKET, nix::libc::SO_LINGER, &[1, 0]);
        drop(client);
        assert!(server.read(&mut [0]).is_err());
    }
    let metrics = sidecar.snapshot();
    let all_shown = all_resets_are_shown();
    let sum = |port: u16, more: &[(&str, &str)]| {
        let port = port.to_string();
        let labels: Vec<_> = [("dst_port", port.as_str())].into_iter().chain(more.iter().copied()).collect();
        metrics.sum(RESETS, &labels)
    };
    let sums = |direction| {
        let of = |ports: [u16; 2]| ports.map(|port| sum(port, &[("direction", direction)])).iter().sum::<u64>();
        [refused, unread, aborted].map(of)
    };
    assert_eq!(sums("received"), [8, 2, 2]);
    assert_eq!((network.filtered(&network.a), network.filtered(&network.b)), (vec![10], vec![2]));
    let [a, b] = [&network.a, &network.b].map(|ns| Kernel(&network, ns).tcp("OutRsts"));
    assert_eq!((a, b), (2, 10));
    assert_eq!(sums("sent"), [if all_shown { 8 } else { 0 }, 2, 2]);
    // Those of sockets have a name; before 6.10 none has a reason.
    let comm = std::fs::read_to_string("/proc/self/comm").unwrap();
    let named = [("direction", "sent"), ("comm", comm.trim())];
    assert_eq!((sum(unread4, &named), sum(aborted6, &named)), (1, 1));
    let nobody = [("direction", "sent"), ("reason", "no_socket")];
    assert_eq!((sum(refused4, &nobody), sum(refused6, &nobody)), if all_shown { (5, 3) } else { (0, 0) });
}

/// Ten thousand messages that arrive.
#[test]
fn no_program_runs_while_nothing_is_lost() {
    let sidecar = Sidecar::start(Wish::of(&["retransmit"]));
    let listener = listen("127.0.0.1");
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    let runs = || sidecar.snapshot().sum("sidecar_bpf_runs_total", &[("module", "retransmit")]);
    let before = runs();
    for _ in 0..10_000 {
        client.write_all(&[1]).unwrap();
        server.read_exact(&mut [0]).unwrap();
    }
    let runs = runs() - before;
    assert!(runs < 100, "{runs} runs for 10000 messages (other processes may have lost some)");
}

fn set_option<T>(socket: &impl AsRawFd, level: i32, name: i32, value: &T) {
    // SAFETY: the kernel reads what the reference is to.
    let outcome = unsafe {
        nix::libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const *value).cast(), size_of::<T>() as u32)
    };
    assert_eq!(outcome, 0);
}
