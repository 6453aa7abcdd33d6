//! Programs that cost too much are paused, and go on later.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ebpf_sidecar::app::btf_names;
use ebpf_sidecar::engine::Budget;
use ebpf_sidecar::kernel::Kernel;
use ebpf_sidecar::status::Status;

use crate::fixture::{Metrics, Sidecar, Wish, exchange, listen, planned, serve_here};

/// Connections as fast as they come, until dropped.
struct Storm {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Storm {
    fn start() -> Storm {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let listener = listen("127.0.0.1");
            let to = listener.local_addr().expect("it is bound");
            while !stopped.load(Ordering::Relaxed) {
                let client = TcpStream::connect(to).expect("somebody listens");
                drop((listener.accept().expect("somebody connected"), client));
            }
        });
        Storm { stop, thread: Some(thread) }
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join).expect("it was started").expect("it ends well");
    }
}

fn status(metrics: &Metrics) -> (Status, String) {
    let report = metrics.0.modules.iter().find(|report| report.name == "tcp").expect("every module is reported");
    (report.status, report.reason.clone())
}

fn is_paused(metrics: &Metrics) -> bool {
    status(metrics).1.starts_with("paused for ")
}

/// How `tcp` fares when it is not paused: as this kernel lets it.
fn usual() -> (Status, String) {
    planned("tcp", &Kernel::probe(btf_names()))
}

fn opened(metrics: &Metrics) -> u64 {
    metrics.sum("sidecar_connections_opened_total", &[])
}

#[test]
fn a_module_that_costs_too_much_is_paused_and_comes_back() {
    let budget = Budget { percent: 0.05, window: Duration::from_secs(1) };
    let wish = Wish { modules: vec!["tcp"], budget, interval: Duration::from_millis(100), ..Wish::default() };
    let sidecar = Sidecar::start(wish);
    assert_eq!(status(&sidecar.snapshot()), usual());

    let storm = Storm::start();
    let metrics = sidecar.until(is_paused);
    let (found, reason) = status(&metrics);
    assert_eq!(found, Status::Degraded);
    assert!(reason.starts_with("paused for ") && reason.contains("% of a CPU over 1s, and may take 0.05"), "{reason}");
    assert_eq!(metrics.sum("sidecar_module_pauses_total", &[("module", "tcp")]), 1);
    let before = opened(&metrics);
    assert!(before > 0, "it counted before it was paused");
    drop(storm);

    let metrics = sidecar.until(|metrics| !is_paused(metrics));
    assert_eq!(status(&metrics), usual());
    let before = opened(&metrics);
    let listener = listen("127.0.0.1");
    let to = listener.local_addr().expect("it is bound");
    let server = thread::spawn(move || serve_here(&listener, 7, 1, 1));
    (0..7).for_each(|_| exchange(to, 1, 1));
    server.join().expect("it serves all");
    let labels = [("dst_port", &*to.port().to_string())];
    let metrics = sidecar.until(|metrics| metrics.sum("sidecar_connections_closed_total", &labels) == 14);
    assert_eq!(metrics.sum("sidecar_connections_closed_total", &labels), 14, "both ends, after {before}");
}

#[test]
fn what_opens_during_a_pause_is_taken_over() {
    let budget = Budget { percent: 0.05, window: Duration::from_secs(1) };
    let wish = Wish { modules: vec!["tcp"], budget, interval: Duration::from_millis(100), ..Wish::default() };
    let sidecar = Sidecar::start(wish);
    let older = listen("127.0.0.1"); // whose children begin with a copy of its record
    let to = older.local_addr().expect("it is bound");
    let storm = Storm::start();
    sidecar.until(is_paused);
    drop(storm);
    let client = TcpStream::connect(to).expect("somebody listens");
    let (server, _) = older.accept().expect("somebody connected");
    assert!(is_paused(&sidecar.snapshot()), "the connection came to be in the pause");
    let metrics = sidecar.until(|metrics| !is_paused(metrics));
    assert_eq!(status(&metrics), usual());
    let port = to.port().to_string();
    for role in ["client", "server"] {
        let labels = [("role", role), ("dst_port", &*port)];
        let metrics = sidecar.until(|metrics| metrics.sum("sidecar_active_connections", &labels) == 1);
        assert_eq!(metrics.sum("sidecar_active_connections", &labels), 1, "{role}");
        assert_eq!(metrics.sum("sidecar_connections_opened_total", &labels), 0, "{role}: nobody saw it open");
    }
    drop((client, server));
}
