//! Lists of live connections against what `ss` shows, and against processes that pass connections on.

use std::collections::{HashMap, HashSet};
use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::thread;
use std::time::{Duration, Instant};

use ebpf_sidecar::connections::field::Description;
use ebpf_sidecar::connections::{Connection, Field, ListError, Listing, Query};
use ebpf_sidecar::engine::Budget;
use ebpf_sidecar::sampler::ConnectionsError;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, recvmsg, sendmsg,
    socketpair,
};

use crate::fixture::{B4, Network, Sidecar, Wish, listen, run};
use crate::reader::{Done, done};

fn only_tcp() -> Sidecar {
    Sidecar::start(Wish::of(&["tcp"]))
}

/// By parameters as HTTP has them.
fn list(sidecar: &Sidecar, parameters: &str) -> Listing {
    let pairs = parameters.split('&').filter_map(|pair| pair.split_once('='));
    let query = Query::parse(pairs).unwrap_or_else(|error| panic!("{parameters}: {error}"));
    sidecar.connections(query).unwrap_or_else(|error| panic!("{parameters}: {error}"))
}

fn pair(ip: &str) -> (TcpListener, TcpStream, TcpStream) {
    let listener = listen(ip);
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    (listener, client, server)
}

fn say(mut from: &TcpStream, mut to: &TcpStream, bytes: usize) {
    let data = vec![1; bytes];
    thread::scope(|scope| {
        scope.spawn(move || from.write_all(&data).unwrap());
        to.read_exact(&mut vec![0; bytes]).unwrap();
    });
}

fn port_of(listener: &TcpListener) -> u16 {
    listener.local_addr().unwrap().port()
}

fn value(connection: &Connection, name: &str) -> Option<u64> {
    connection.fields.get(Field::named(name).unwrap_or_else(|| panic!("no field {name}")))
}

/// What `ss` shows of each socket of a port, by local and peer address: its columns by name, and the words after these.
fn ss(port: u16) -> HashMap<(SocketAddr, SocketAddr), HashMap<String, String>> {
    // -n: numbers, -O: a line each, -t -i -H: TCP, with what it knows, without a heading.
    let text = run(&format!("ss -tinOH sport = :{port} or dport = :{port}"));
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let mut next = || words.next().expect("a column").to_owned();
        let columns = [("state", next()), ("receive_queue", next()), ("send_queue", next())];
        let ends = (next().parse().expect("an address"), next().parse().expect("another"));
        let mut found: HashMap<_, _> = columns.map(|(name, text)| (name.to_owned(), text)).into();
        let rest: Vec<_> = line.split_whitespace().skip(5).collect();
        for (index, word) in rest.iter().enumerate() {
            match word.split_once(':') {
                Some((name, text)) => found.insert(name.to_owned(), text.to_owned()),
                None if word.ends_with("_rate") => found.insert((*word).to_owned(), rest[index + 1].to_owned()),
                None => found.insert((*word).to_owned(), String::new()),
            };
        }
        (ends, found)
    };
    text.lines().map(line).collect()
}

/// `name` of `ss`, which leaves out what is zero.
fn shown(found: &HashMap<String, String>, name: &str) -> u64 {
    found.get(name).map_or(0, |text| text.parse().unwrap_or_else(|_| panic!("{name}: {text}")))
}

/// Milliseconds with a fraction, as microseconds.
fn micros(text: &str) -> u64 {
    (text.parse::<f64>().unwrap_or_else(|_| panic!("{text}")) * 1000.0).round() as u64
}

/// One socket, number by number. `ss` shows some only if they are not 0.
#[track_caller]
fn is_as_ss_shows(connection: &Connection, ss: &HashMap<String, String>) {
    let is = |name: &str, expected: u64| assert_eq!(value(connection, name), Some(expected), "{name} of {ss:?}");
    let state = match ss["state"].as_str() {
        "ESTAB" => "established".to_owned(),
        other => other.to_lowercase().replace("-wait-", "_wait").replace('-', "_"),
    };
    assert_eq!(connection.state, state);
    // Both count the SYN of a client among what was acknowledged, and a FIN; that is no payload.
    let syn = u64::from(connection.role == "client");
    let resent = shown(ss, "bytes_retrans");
    is("bytes_sent", shown(ss, "bytes_sent") - resent);
    is("bytes_acked", (shown(ss, "bytes_acked") - syn).min(shown(ss, "bytes_sent") - resent));
    let fin = u64::from(connection.state == "close_wait");
    is("bytes_received", shown(ss, "bytes_received") - fin);
    is("bytes_retransmitted", resent);
    for (ours, theirs) in [
        ("packets_sent", "segs_out"),
        ("packets_received", "segs_in"),
        ("data_packets_sent", "data_segs_out"),
        ("data_packets_received", "data_segs_in"),
        ("delivered", "delivered"),
        ("delivered_ce", "delivered_ce"),
        ("spurious_retransmits", "dsack_dups"),
        ("out_of_order", "rcv_ooopack"),
        ("cwnd", "cwnd"),
        ("mss", "mss"),
        ("advertised_mss", "advmss"),
        ("receive_mss", "rcvmss"),
        ("path_mtu", "pmtu"),
        ("backoff", "backoff"),
        ("unacked", "unacked"),
        ("sacked", "sacked"),
        ("lost", "lost"),
        ("reorderings", "reord_seen"),
        ("unsent", "notsent"),
        ("send_queue", "send_queue"),
        ("send_window", "snd_wnd"),
    ] {
        // iproute2 5.10 does not know it yet.
        if theirs == "snd_wnd" && !ss.contains_key(theirs) {
            continue;
        }
        is(ours, shown(ss, theirs));
    }
    is("receive_queue", shown(ss, "receive_queue") - fin);
    let (now, total) = ss.get("retrans").and_then(|text| text.split_once('/')).unwrap_or(("0", "0"));
    is("retransmitting", now.parse().unwrap());
    is("retransmits", total.parse().unwrap());
    let (rtt, variation) = ss["rtt"].split_once('/').unwrap();
    is("rtt_us", micros(rtt));
    is("rtt_variation_us", micros(variation));
    assert_eq!(value(connection, "min_rtt_us"), ss.get("minrtt").map(|text| micros(text)));
    assert_eq!(value(connection, "receive_rtt_us"), ss.get("rcv_rtt").map(|text| micros(text)));
    is("rto_us", micros(&ss["rto"]));
    assert_eq!(value(connection, "ssthresh"), ss.get("ssthresh").map(|text| text.parse().unwrap()));
    is("reordering", ss.get("reordering").map_or(3, |text| text.parse().unwrap()));
    // Bits a second, and ours are bytes.
    let rate = |name: &str| ss.get(name).map(|text| text.trim_end_matches("bps").parse::<u64>().unwrap() / 8);
    assert_eq!(value(connection, "pacing_rate"), rate("pacing_rate"));
    assert_eq!(value(connection, "delivery_rate"), rate("delivery_rate"));
    assert!(ss.contains_key(&connection.congestion_control), "{} of {ss:?}", connection.congestion_control);
    let milliseconds = |name: &str| shown(&HashMap::from([("x".into(), ss[name].trim_end_matches("ms").into())]), "x");
    for (ours, theirs) in
        [("since_sent_seconds", "lastsnd"), ("since_received_seconds", "lastrcv"), ("since_acked_seconds", "lastack")]
    {
        let ours = value(connection, ours).unwrap() / 1_000_000;
        assert!(ours.abs_diff(milliseconds(theirs)) < 2000, "{theirs}: {ours} ms of {ss:?}");
    }
}

/// Its ends as `ss` names them: its own first.
fn local_and_peer(connection: &Connection) -> (SocketAddr, SocketAddr) {
    let [src, dst] = [connection.src, connection.dst].map(|end| SocketAddr::new(end.ip.to_canonical(), end.port));
    if connection.role == "server" { (dst, src) } else { (src, dst) }
}

#[test]
fn every_number_is_that_of_ss() {
    let older = pair("127.0.0.1");
    say(&older.1, &older.2, 30_000);
    let sidecar = only_tcp();
    for ip in ["127.0.0.1", "::1"] {
        let (_listener, client, server) = pair(ip);
        say(&client, &server, 5_000_000);
        say(&server, &client, 70);
        (&client).write_all(&[1; 1234]).unwrap();
        // Delayed acknowledgements are sent by then.
        thread::sleep(Duration::from_millis(300));
        compare(&sidecar, port_of(&_listener), 2);
        // One that is closing: the client has said that nothing more comes, and the server has not heard it yet.
        client.shutdown(std::net::Shutdown::Write).unwrap();
        thread::sleep(Duration::from_millis(300));
        compare(&sidecar, port_of(&_listener), 2);
    }
    compare(&sidecar, port_of(&older.0), 2);
}

/// Everything that is listed of a port, with `ss` before and after: what moved in between is compared again.
#[track_caller]
fn compare(sidecar: &Sidecar, port: u16, sockets: usize) {
    let quiet = |found: &HashMap<_, HashMap<String, String>>| {
        let still = |(name, _): &(&String, &String)| !name.starts_with("last");
        let words = |words: &HashMap<String, String>| {
            let mut words: Vec<_> = words.iter().filter(still).map(|(a, b)| (a.clone(), b.clone())).collect();
            words.sort();
            words
        };
        let mut found: Vec<_> = found.iter().map(|(ends, found)| (*ends, words(found))).collect();
        found.sort();
        found
    };
    for _ in 0..10 {
        let before = ss(port);
        let listing = list(sidecar, &format!("dst_port={port}"));
        let after = ss(port);
        if quiet(&before) == quiet(&after) {
            assert_eq!((listing.connections.len(), listing.total, after.len()), (sockets, sockets as u64, sockets));
            for connection in &listing.connections {
                is_as_ss_shows(connection, &after[&local_and_peer(connection)]);
            }
            return;
        }
    }
    panic!("the sockets of port {port} do not come to rest");
}

#[test]
fn what_is_lost_and_queued_shows() {
    let network = Network::new();
    let sidecar = only_tcp();
    let listener = network.within(&network.b, || TcpListener::bind((B4, 7200)).unwrap()).join().unwrap();
    let mut client = network.within(&network.a, || TcpStream::connect((B4, 7200)).unwrap()).join().unwrap();
    let (mut server, _) = listener.accept().unwrap();
    network.filter(&network.b, &["tcp dport 7200 drop"]);
    client.write_all(&[1; 16_000]).unwrap();
    server.write_all(&[1; 50]).unwrap();
    thread::sleep(Duration::from_millis(1500));
    let listing = list(&sidecar, &format!("dst_port=7200&role=client&pid={}", std::process::id()));
    let [connection] = &listing.connections[..] else { panic!("{listing:?}") };
    let of = |name| value(connection, name).unwrap();
    assert_eq!((of("bytes_acked"), of("receive_queue"), of("send_queue")), (0, 50, 16_000), "{connection:?}");
    assert_eq!(of("bytes_sent") + of("unsent"), 16_000);
    assert!(of("retransmits") > 0 && of("lost") > 0 && of("unacked") > 0 && of("backoff") > 0, "{connection:?}");
    assert_eq!(connection.congestion_state, "loss");
    let inode = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(format!("/run/netns/{}", network.a)).unwrap());
    assert_eq!(u64::from(connection.netns), inode);
    // Nothing was acknowledged: all of it is time with data to send.
    assert!(of("busy_seconds") > 1_000_000_000, "{connection:?}");
}

#[test]
fn filters_choose() {
    let sidecar = only_tcp();
    let (listener, client, _server) = pair("127.0.0.1");
    let (port, source) = (port_of(&listener), client.local_addr().unwrap().port());
    let pid = std::process::id();
    let count = |more: &str| {
        let listing = list(&sidecar, &format!("dst_port={port}{more}"));
        assert_eq!(listing.total, listing.connections.len() as u64);
        assert!(listing.live >= 2);
        listing.total
    };
    assert_eq!(count(""), 2);
    assert_eq!(count("&role=client"), 1);
    assert_eq!(count("&role=server"), 1);
    assert_eq!(count("&role=unknown"), 0);
    assert_eq!(count("&state=established"), 2);
    assert_eq!(count("&state=close_wait"), 0);
    assert_eq!(count(&format!("&src_port={source}")), 2);
    assert_eq!(count(&format!("&src_port={}", source ^ 1)), 0);
    assert_eq!(count("&src_ip=127.0.0.1&dst_ip=127.0.0.1"), 2);
    assert_eq!(count("&src_ip=::1"), 0);
    assert_eq!(count("&dst_ip=127.0.0.2"), 0);
    assert_eq!(count(&format!("&pid={pid}")), 2);
    assert_eq!(count("&pid=1"), 0);
    let comm = std::fs::read_to_string("/proc/self/comm").unwrap();
    assert_eq!(count(&format!("&comm={}", comm.trim())), 2);
    assert_eq!(count("&comm=nobody"), 0);
    assert_eq!(count("&container=none"), 0);
    let limited = list(&sidecar, &format!("dst_port={port}&limit=1"));
    assert_eq!((limited.total, limited.connections.len()), (2, 1));
}

#[test]
fn an_age_is_known_of_what_began_under_our_eyes() {
    let older = pair("127.0.0.1");
    let sidecar = only_tcp();
    let newer = pair("127.0.0.1");
    thread::sleep(Duration::from_millis(200));
    let ages = |listener| {
        let listing = list(&sidecar, &format!("dst_port={}", port_of(listener)));
        let ages = listing.connections.iter().map(|connection| value(connection, "duration_seconds"));
        ages.collect::<Vec<_>>()
    };
    assert_eq!(ages(&older.0), [None, None]);
    for age in ages(&newer.0) {
        assert!((200_000_000..10_000_000_000).contains(&age.unwrap()), "{age:?}");
    }
    // They are the oldest nevertheless.
    let listing = list(&sidecar, "sort=duration_seconds&limit=10000");
    let place = |listener| listing.connections.iter().position(|found| found.dst.port == port_of(listener)).unwrap();
    assert!(place(&older.0) < place(&newer.0));
}

/// Every number is something to sort by.
#[test]
fn lists_are_sorted_by_what_they_are_asked_to() {
    let sidecar = only_tcp();
    let listener = listen("127.0.0.1");
    let (port, to) = (port_of(&listener), listener.local_addr().unwrap());
    let held: Vec<_> = (0..200)
        .map(|n| {
            let client = TcpStream::connect(to).unwrap();
            let (server, _) = listener.accept().unwrap();
            say(&client, &server, 1 + n * 7919 % 200 * 10);
            (client, server)
        })
        .collect();
    thread::sleep(Duration::from_millis(300));
    for Description { name, .. } in Field::ALL {
        let all = list(&sidecar, &format!("dst_port={port}&sort={name}&limit=10000"));
        assert_eq!((all.connections.len(), all.total), (2 * held.len(), 2 * held.len() as u64), "{name}");
        let values: Vec<_> = all.connections.iter().map(|found| value(found, name).unwrap_or(0)).collect();
        assert!(values.is_sorted_by(|a, b| a >= b), "{name}: {values:?}");
        let few = list(&sidecar, &format!("dst_port={port}&sort={name}&limit=17"));
        assert_eq!((few.connections.len(), few.total), (17, all.total), "{name}");
        // Equal numbers come in any order; what they are equal to does not depend on it. Time goes on.
        if !name.starts_with("since_") && *name != "duration_seconds" {
            let few: Vec<_> = few.connections.iter().map(|found| value(found, name).unwrap_or(0)).collect();
            assert_eq!(few, values[..17], "{name}");
        }
    }
}

/// More than a pass has room for: those that are listed are the largest all the same, in bounded time and memory.
#[test]
fn the_largest_of_very_many_are_found() {
    const EACH: usize = 9000;
    let holders = 3;
    allow_files(2 * EACH as u64 + 1000);
    let sidecar = only_tcp();
    let held: Vec<_> = (0..holders)
        .map(|_| {
            done("holder", || {
                let listener = listen("127.0.0.1");
                let to = listener.local_addr().unwrap();
                for n in 0..EACH {
                    let mut client = TcpStream::connect(to).unwrap();
                    let (server, _) = listener.accept().unwrap();
                    // A few are larger than all others, the later ones more than the earlier.
                    client.write_all(&vec![1; if n % 300 == 7 { 100 + n } else { 1 + n % 50 }]).unwrap();
                    std::mem::forget((client, server));
                }
                std::mem::forget(listener);
            })
        })
        .collect();
    thread::sleep(Duration::from_millis(500));
    sidecar.snapshot();
    let before = resident();
    let mut largest = Duration::ZERO;
    for sort in ["bytes_sent", "duration_seconds", "unacked", "bytes_received"] {
        let begun = Instant::now();
        let listing = list(&sidecar, &format!("comm=holder&sort={sort}&limit=50"));
        largest = largest.max(begun.elapsed());
        assert_eq!((listing.total, listing.connections.len()), ((2 * EACH * holders) as u64, 50), "{sort}");
        if sort == "bytes_sent" || sort == "bytes_received" {
            let mut expected: Vec<u64> =
                (0..EACH).filter(|n| n % 300 == 7).flat_map(|n| vec![100 + n as u64; holders]).collect();
            expected.sort_unstable_by(|a, b| b.cmp(a));
            let found: Vec<_> = listing.connections.iter().map(|found| value(found, sort).unwrap()).collect();
            assert_eq!(found, expected[..50], "{sort}");
        }
    }
    let grown = resident().saturating_sub(before);
    println!("{} sockets: {largest:?} at most, {grown} KiB more resident", 2 * EACH * holders);
    assert!(largest < Duration::from_secs(2), "{largest:?}");
    assert!(grown < 4 << 10, "{grown} KiB");
    // The longest list there is, each socket once.
    let begun = Instant::now();
    let listing = list(&sidecar, "comm=holder&limit=10000");
    println!("10000 of them: {:?}", begun.elapsed());
    let ends: HashSet<_> = listing.connections.iter().map(local_and_peer).collect();
    assert_eq!((listing.connections.len(), ends.len()), (10_000, 10_000));
    drop(held);
}

/// For this process and those that it makes.
fn allow_files(count: u64) {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, count.max(soft), count.max(hard)).expect("root may have more files");
}

/// In KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Who is listed for the server's end of the connections to a port.
fn owners(sidecar: &Sidecar, port: u16) -> Vec<(String, u32)> {
    let listing = list(sidecar, &format!("dst_port={port}&role=server"));
    listing.connections.into_iter().map(|found| (found.comm, found.pid.expect("somebody holds it"))).collect()
}

fn owner(holder: &Done, name: &str) -> (String, u32) {
    (name.to_owned(), holder.pid.as_raw() as u32)
}

#[test]
fn a_connection_belongs_to_the_child_that_was_forked_for_it() {
    let sidecar = only_tcp();
    let listener = listen("127.0.0.1");
    let port = port_of(&listener);
    let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    let child = done("fork-child", || ());
    drop(server);
    assert_eq!(owners(&sidecar, port), [owner(&child, "fork-child")]);
}

#[test]
fn a_connection_belongs_to_the_worker_that_accepted_it() {
    let sidecar = only_tcp();
    let listener = listen("127.0.0.1");
    let port = port_of(&listener);
    let _clients = [(); 3].map(|()| TcpStream::connect(listener.local_addr().unwrap()).unwrap());
    let workers = [(); 3].map(|()| done("worker", || std::mem::forget(listener.accept().unwrap())));
    let mut found = owners(&sidecar, port);
    let mut expected: Vec<_> = workers.iter().map(|worker| owner(worker, "worker")).collect();
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
}

#[test]
fn a_connection_belongs_to_the_process_of_the_thread_that_accepted_it() {
    let sidecar = only_tcp();
    let listener = listen("127.0.0.1");
    let port = port_of(&listener);
    let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let process = done("threaded", || {
        let thread = thread::Builder::new().name("a-thread".into());
        thread.spawn(move || std::mem::forget(listener.accept().unwrap())).unwrap().join().unwrap();
    });
    assert_eq!(owners(&sidecar, port), [owner(&process, "threaded")]);
}

/// By SCM_RIGHTS, as front ends hand connections to those who serve them.
#[test]
fn a_connection_belongs_to_whom_it_was_passed() {
    let sidecar = only_tcp();
    let listener = listen("127.0.0.1");
    let port = port_of(&listener);
    let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (ours, theirs) =
        socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::empty()).expect("two ends that are joined");
    let (server, _) = listener.accept().unwrap();
    let me = (std::fs::read_to_string("/proc/self/comm").unwrap().trim().to_owned(), std::process::id());
    assert_eq!(owners(&sidecar, port), [me]);
    let handed = server.as_raw_fd();
    // A process dies with the thread that made it, which is why the other one sends.
    let passed = thread::scope(|scope| {
        scope.spawn(|| {
            let rights = [handed];
            let control = [ControlMessage::ScmRights(&rights)];
            sendmsg::<UnixAddr>(ours.as_raw_fd(), &[IoSlice::new(b"x")], &control, MsgFlags::empty(), None).unwrap();
        });
        done("receiver", || {
            // SAFETY: what the child has inherited, and shall have by the message alone.
            drop(unsafe { TcpStream::from_raw_fd(handed) });
            let mut room = nix::cmsg_space!(RawFd);
            let mut byte = [0];
            let mut bytes = [IoSliceMut::new(&mut byte)];
            let message = recvmsg::<UnixAddr>(theirs.as_raw_fd(), &mut bytes, Some(&mut room), MsgFlags::empty());
            let message = message.unwrap();
            assert!(matches!(message.cmsgs().unwrap().next(), Some(ControlMessageOwned::ScmRights(_))));
        })
    });
    drop(server);
    assert_eq!(owners(&sidecar, port), [owner(&passed, "receiver")]);
}

/// Connections come and go all the time; those that stay are in every list, once.
#[test]
fn lists_are_whole_in_a_storm() {
    allow_files(2000);
    let sidecar = only_tcp();
    let listener = listen("127.0.0.1");
    let to = listener.local_addr().unwrap();
    let held: Vec<_> = (0..500).map(|_| (TcpStream::connect(to).unwrap(), listener.accept().unwrap())).collect();
    let storm = listen("127.0.0.1");
    let storm_to = storm.local_addr().unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let stopped = || stop.load(std::sync::atomic::Ordering::Relaxed);
    let (mut lists, mut met) = (0, 0);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stopped() {
                drop((TcpStream::connect(storm_to).unwrap(), storm.accept().unwrap()));
            }
        });
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(2) {
            let listing = list(&sidecar, &format!("dst_port={}&limit=10000", to.port()));
            let ends: HashSet<_> = listing.connections.iter().map(local_and_peer).collect();
            if (ends.len(), listing.connections.len(), listing.total) != (1000, 1000, 1000) {
                stop.store(true, std::sync::atomic::Ordering::Relaxed);
                panic!("{} of {} in list {lists}", ends.len(), listing.total);
            }
            let all = list(&sidecar, "sort=duration_seconds&limit=10000");
            assert!(all.connections.len() as u64 <= all.live);
            met = met.max(all.live);
            lists += 1;
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    println!("{lists} lists, of up to {met} connections");
    drop(held);
}

#[test]
fn who_cannot_know_says_why() {
    let not_running = |sidecar: &Sidecar| match sidecar.connections(Query::default()) {
        Err(ConnectionsError::List(ListError::NotRunning { module: "tcp", reason })) => reason,
        other => panic!("{other:?}"),
    };
    let absent = Sidecar::start(Wish::of(&["retransmit"]));
    assert!(not_running(&absent).contains("not among collector.modules"));
    let host = |kernel: &mut ebpf_sidecar::kernel::Kernel| {
        // Before 5.12 sockets are passed over in another way.
        for iterator in ["bpf_iter__bpf_sk_storage_map", "bpf_iter__tcp"] {
            kernel.names.remove(iterator);
        }
    };
    let unable = Sidecar::start(Wish { modules: vec!["tcp", "drops"], host, ..Wish::default() });
    assert!(not_running(&unable).contains("this kernel has no iterator "), "{}", not_running(&unable));
    // Nobody may take a list of a pause for one of all connections.
    let budget = Budget { percent: 0.000_001, window: Duration::from_millis(200) };
    let wish = Wish { modules: vec!["tcp"], interval: Duration::from_millis(200), budget, ..Wish::default() };
    let pausing = Sidecar::start(wish);
    let deadline = Instant::now() + Duration::from_secs(20);
    let reason = loop {
        drop(pair("127.0.0.1"));
        match pausing.connections(Query::default()) {
            Ok(_) => assert!(Instant::now() < deadline, "it is never paused"),
            Err(ConnectionsError::List(ListError::NotRunning { reason, .. })) => break reason,
            Err(other) => panic!("{other}"),
        }
        thread::sleep(Duration::from_millis(50));
    };
    assert!(reason.contains("paused for"), "{reason}");
}
