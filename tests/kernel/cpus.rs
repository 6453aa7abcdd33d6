//! Every CPU at work at once for the same series: no count is lost among them, however many there are, and however many more
//! the machine may get. `make test-vm VM="16-cpus cpus-offline"`.

use std::fs::File;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::FileExt;
use std::thread;

use nix::libc::{POSIX_FADV_DONTNEED, POSIX_FADV_NORMAL};

use crate::disk::{Disk, Mapped, PAGE, advise, open, undisturbed};
use crate::drops;
use crate::fixture::{Named, Network, Sidecar, Wish, exchange, on_every_cpu, seen, serve_here};

const MIB: usize = 1 << 20;

fn start(module: &'static str) -> Sidecar {
    Sidecar::start(Wish::of(&[module]))
}

#[test]
fn connections_of_every_cpu_are_in_the_sums() {
    const EACH: u64 = 50;
    const REQUEST: u64 = 100;
    const REPLY: u64 = 2000;
    let sidecar = start("tcp");
    seen(|| {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let to: SocketAddr = listener.local_addr().unwrap();
        let cpus = on_every_cpu(|_| {
            thread::scope(|scope| {
                // On the same CPU as the client.
                scope.spawn(|| serve_here(&listener, EACH as usize, REQUEST as usize, REPLY as usize));
                (0..EACH).for_each(|_| exchange(to, REQUEST as usize, REPLY as usize));
            });
        });
        let (port, n) = (to.port().to_string(), cpus as u64 * EACH);
        for (role, sent, received) in [("client", REQUEST, REPLY), ("server", REPLY, REQUEST)] {
            let labels = [("role", role), ("dst_port", port.as_str())];
            let closed = "sidecar_connections_closed_total";
            let metrics = sidecar.until(|metrics| metrics.sum(closed, &labels) >= n);
            for (family, expected) in [
                ("sidecar_connections_opened_total", n),
                (closed, n),
                ("sidecar_connection_bytes_sent_total", n * sent),
                ("sidecar_connection_bytes_received_total", n * received),
            ] {
                assert_eq!(metrics.sum(family, &labels), expected, "{family} of the {role}, {cpus} CPUs");
            }
        }
    });
}

#[test]
fn advice_of_every_cpu_is_in_the_sums() {
    const EACH: u64 = 2000;
    let sidecar = start("fadvise");
    let named = Named::new();
    let calls = || sidecar.snapshot().sum("sidecar_fadvise_calls_total", &named.labels());
    let file = File::open("/proc/self/exe").unwrap();
    seen(|| {
        let before = calls();
        let cpus = on_every_cpu(|_| (0..EACH).for_each(|_| advise(&file, POSIX_FADV_NORMAL)));
        assert_eq!(calls() - before, cpus as u64 * EACH, "{cpus} CPUs");
    });
}

#[test]
fn pages_of_every_cpu_are_in_the_sums() {
    undisturbed(|| seen(pages_of_files_of_their_own));
}

/// Each CPU reads and evicts a file of its own, so that a large folio is never the work of two.
fn pages_of_files_of_their_own() {
    const ROUNDS: u64 = 4;
    const PAGES: u64 = (MIB / PAGE) as u64;
    let disk = Disk::new("ext4");
    let file = |cpu: usize| open(&disk.path(&format!("file-{cpu}")));
    let sidecar = start("page-cache");
    on_every_cpu(|cpu| {
        file(cpu).write_all_at(&vec![1; MIB], 0).unwrap();
        file(cpu).sync_all().unwrap();
        evict(&file(cpu));
    });
    let counted = || {
        let (metrics, labels) = (sidecar.snapshot(), [("device", disk.device.as_str())]);
        ["added", "evicted"].map(|what| metrics.sum(&format!("sidecar_page_cache_{what}_pages_total"), &labels))
    };
    let before = counted();
    let cpus = on_every_cpu(|cpu| {
        for _ in 0..ROUNDS {
            file(cpu).read_exact_at(&mut vec![0; MIB], 0).unwrap();
            evict(&file(cpu));
        }
    });
    let after = counted();
    let expected = cpus as u64 * ROUNDS * PAGES;
    assert_eq!([after[0] - before[0], after[1] - before[1]], [expected, expected], "{cpus} CPUs");
}

/// All of a clean file. Pages that a CPU holds in a batch stay the first time.
fn evict(file: &File) {
    let mapped = Mapped::new(file);
    (0..1000).take_while(|_| mapped.resident() > 0).for_each(|_| advise(file, POSIX_FADV_DONTNEED));
    assert_eq!(mapped.resident(), 0, "a clean file leaves the page cache");
}

#[test]
fn drops_of_every_cpu_are_in_the_sums() {
    const EACH: u64 = 500;
    let network = Network::new();
    let sidecar = drops::start();
    let cpus = on_every_cpu(|_| ()) as u64;
    let send_from_all = || {
        let send = |_| {
            let socket = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
            (0..EACH).for_each(|_| assert_eq!(socket.send_to(b"unwanted", ("127.0.0.1", 9)).unwrap(), 8));
        };
        network.within(&network.a, move || on_every_cpu(send)).join().unwrap();
    };
    let labels = [("reason", "no_socket"), ("protocol", "udp")];
    let kernel = || network.kernel_counter(&network.a, "Udp", "NoPorts");
    drops::agree(&sidecar, &labels, cpus * EACH, kernel, send_from_all);
}
