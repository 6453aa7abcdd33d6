//! Servers over fabricated snapshots, on real sockets.

// Every test binary compiles all of this and uses some.
#![allow(dead_code)]

pub mod client;
pub mod events;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ebpf_sidecar::connections::{Connection, End, Field, Fields, ListError, Listing, Query};
use ebpf_sidecar::events::Events;
use ebpf_sidecar::histogram::{Bound, Histogram};
use ebpf_sidecar::identity::Workload;
use ebpf_sidecar::sampler::{Pace, SampleError, Sampler, Source};
use ebpf_sidecar::server::{Config, Limits, Servers};
use ebpf_sidecar::snapshot::{Descriptor, Family, Kind, Snapshot, labels};
use ebpf_sidecar::status::{HookKind, HookReport, MapReport, ModuleReport, ProgramReport, Status};
use tokio::sync::watch;
use tokio::task::JoinHandle;

static BYTES: Descriptor = Descriptor {
    name: "sidecar_connection_bytes_sent_total",
    help: "Payload bytes sent, each once.",
    unit: "bytes",
    kind: Kind::Counter,
    module: "tcp",
};

static AGE: Descriptor = Descriptor {
    name: "sidecar_connection_duration_seconds",
    help: "Age of the oldest open connection,\nin C:\\ \"terms\".",
    unit: "seconds",
    kind: Kind::Gauge,
    module: "tcp",
};

static RTT: Descriptor = Descriptor {
    name: "sidecar_connection_rtt_seconds",
    help: "Smoothed round trip time.",
    unit: "seconds",
    kind: Kind::Histogram,
    module: "tcp",
};

static LIMITED: Descriptor = Descriptor {
    name: "sidecar_connection_limited_seconds_total",
    help: "Time for which something held the connection back.",
    unit: "seconds",
    kind: Kind::Counter,
    module: "tcp",
};

static LOST: Descriptor = Descriptor {
    name: "sidecar_events_lost_total",
    help: "Events that found no room.",
    unit: "",
    kind: Kind::Counter,
    module: "self",
};

/// A name that every format must escape.
pub const ODD: &str = "a\\b\"c\nd é";

/// One sample of everything.
pub fn snapshot(sequence: u64) -> Snapshot {
    let mut bytes = Family::new(&BYTES);
    bytes.integer(labels([("comm", "curl"), ("role", "client")]), u64::MAX);
    bytes.integer(labels([("comm", ODD), ("role", "server")]), 7);
    let mut age = Family::new(&AGE);
    age.number(labels([("comm", "curl")]), 0.25);
    age.number(labels([("comm", "old")]), f64::INFINITY);
    let mut histogram = Histogram::default();
    [5, 19, 20, 39, 40, 2_000_000].into_iter().for_each(|us| histogram.record(us));
    let mut rtt = Family::new(&RTT);
    rtt.histogram(labels([("comm", "curl")]), histogram);
    let mut limited = Family::new(&LIMITED);
    limited.number(labels([("by", "receiver")]), 1.5);
    let mut lost = Family::new(&LOST);
    lost.integer(labels([]), 0);
    Snapshot {
        sequence,
        taken_at: SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_500),
        uptime: Duration::from_millis(61_500),
        node: "node-1".into(),
        modules: vec![module("tcp", Status::Running), module("drops", Status::Degraded)],
        helpers: vec![module("identity", Status::Running)],
        families: vec![bytes, age, rtt, limited, lost],
        bounds: [0.00002, 0.00004, 1.048576].map(|seconds| Bound::new(seconds).unwrap()).into(),
    }
}

/// Whoever asks for connections to this port is told that they are not known.
pub const UNKNOWN_PORT: u16 = 9;

/// So many connections, of which all but the first are known as little as can be. Of very many more is known, so that
/// a list of them does not fit into what the kernel holds for a reader.
pub fn listing(connections: usize) -> Listing {
    let end = |ip: &str, port| End { ip: ip.parse().unwrap(), port };
    let workload = Workload {
        container_id: "0123456789ab".into(),
        container: "web".into(),
        pod: "web-0".into(),
        namespace: "shop".into(),
        ..Workload::default()
    };
    let mut fields = Fields([Fields::UNKNOWN; Field::ALL.len()]);
    let bare = Connection {
        comm: String::new(),
        pid: None,
        workload: None,
        role: "unknown",
        state: "close_wait",
        netns: 4_026_531_840,
        src: end("::1", 40_000),
        dst: end("::1", 80),
        congestion_control: String::new(),
        congestion_state: "open",
        fields,
    };
    fields.0[Field::DURATION.index()] = 1_500_000_000;
    fields.0[Field::BYTES_SENT.index()] = u64::MAX - 1;
    let full = Connection {
        comm: ODD.into(),
        pid: Some(4242),
        workload: Some(Arc::new(workload)),
        role: "client",
        state: "established",
        src: end("::ffff:10.0.0.5", 40_000),
        dst: end("2001:db8::1", 443),
        congestion_control: "cubic".into(),
        fields,
        ..bare.clone()
    };
    let mut others = bare;
    if connections > 1000 {
        others.fields.0[..20].fill(1 << 40);
    }
    Listing {
        node: "node-1".into(),
        taken_at: SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_500),
        live: 1 << 40,
        total: connections as u64,
        connections: std::iter::once(full).chain(std::iter::repeat(others)).take(connections).collect(),
    }
}

/// So that a long list is more than a socket takes that nobody reads (4 MiB: tcp_wmem).
fn wide(mut listing: Listing) -> Listing {
    listing.connections.iter_mut().skip(1).for_each(|connection| connection.comm = "x".repeat(500));
    listing
}

/// One counter with that many series.
pub fn large(sequence: u64, series: usize) -> Snapshot {
    let mut bytes = Family::new(&BYTES);
    for number in 0..series {
        let port = number.to_string();
        bytes.integer(labels([("comm", "nginx"), ("dst_ip", "10.20.30.40"), ("dst_port", &port)]), 1 << 40);
    }
    Snapshot { families: vec![bytes], ..snapshot(sequence) }
}

pub fn module(name: &'static str, status: Status) -> ModuleReport {
    let hook = |name, kind: Option<_>, reason: &str| HookReport {
        name,
        kind,
        target: kind.map_or("", |_| "where"),
        tax: "",
        enters: false,
        forced: false,
        reason: reason.into(),
    };
    ModuleReport {
        name,
        summary: "What it shows",
        status,
        declined: false,
        reason: if status == Status::Running { String::new() } else { "no <hook>".into() },
        hooks: vec![hook("used", Some(HookKind::TpBtf), ""), hook("absent", None, "not on this kernel")],
        programs: vec![ProgramReport { name: "on_event".into(), asked: false, runs: 3, run_ns: 1500, missed: Some(0) }],
        maps: vec![MapReport { name: "table".into(), entries: None, bytes: 4096, full: Some(0) }],
    }
}

/// A sampler that collects whatever the function makes of the sequence number.
pub fn sampler(make: impl FnMut(u64) -> Snapshot + Send + 'static) -> Sampler {
    struct Fabricated<F>(u64, F);
    impl<F: FnMut(u64) -> Snapshot> Source for Fabricated<F> {
        fn collect(&mut self) -> Snapshot {
            self.0 += 1;
            (self.1)(self.0)
        }

        fn connections(&mut self, query: &Query) -> Result<Listing, ListError> {
            match query.filter.dst_port {
                Some(UNKNOWN_PORT) => {
                    Err(ListError::NotRunning { module: "tcp", reason: "as the test wants it".into() })
                }
                _ if query.limit > 1000 => Ok(wide(listing(query.limit))),
                _ => Ok(listing(query.limit)),
            }
        }
    }
    let pace = Pace { freshness: Duration::ZERO, interval: Duration::from_secs(3600) };
    let started = Sampler::spawn::<SampleError, _>(pace, move |run| {
        run(&mut Fabricated(0, make));
        Ok(())
    });
    started.unwrap().0
}

/// Servers that run.
pub struct Running {
    pub http: SocketAddr,
    pub grpc: SocketAddr,
    stop: watch::Sender<bool>,
    served: JoinHandle<()>,
}

/// Starts both on free ports; streams tick every 100 ms.
pub async fn start(config: Config, limits: Limits, sampler: Sampler) -> Running {
    start_telling(config, limits, sampler, Events::default()).await
}

/// The same with events to be told.
pub async fn start_telling(mut config: Config, limits: Limits, sampler: Sampler, events: Events) -> Running {
    (config.http.port, config.grpc.port) = (0, 0);
    let servers = Servers::bind(&config, limits).await.unwrap();
    let (http, grpc) = (servers.http_address(), servers.grpc_address());
    let (stop, stopped) = watch::channel(false);
    let served = tokio::spawn(servers.serve(sampler, events, Duration::from_millis(100), stopped));
    Running { http, grpc, stop, served }
}

/// Starts both with defaults over the small snapshot.
pub async fn start_default() -> Running {
    start(Config::default(), Limits::default(), sampler(snapshot)).await
}

impl Running {
    /// Announces the end.
    pub fn stop(&self) {
        self.stop.send(true).unwrap();
    }

    /// Waits for the drain.
    pub async fn ended(self) {
        within(self.served).await.unwrap();
    }
}

/// Fails instead of hanging.
pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), future).await.expect("this takes far less than 10 s")
}

/// A file of this test run.
pub fn file(name: &str, content: &str) -> std::path::PathBuf {
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{name}", std::process::id()));
    std::fs::write(&path, content).unwrap();
    path
}

/// For encoders that want it shared.
pub fn shared(sequence: u64) -> Arc<Snapshot> {
    Arc::new(snapshot(sequence))
}
