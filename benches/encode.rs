//! What encoding costs: 100 000 series of one counter with four labels, in every format, in CPU time of this thread.

use std::hint::black_box;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ebpf_sidecar::exposition::filter::Filter;
use ebpf_sidecar::exposition::{json, openmetrics, proto, text};
use ebpf_sidecar::snapshot::{Descriptor, Family, Kind, Snapshot, labels};
use flate2::Compression;
use flate2::write::GzEncoder;
use nix::time::{ClockId, clock_gettime};

const SERIES: u32 = 100_000;
const REPETITIONS: usize = 15;

static BYTES: Descriptor = Descriptor {
    name: "sidecar_connection_bytes_sent_total",
    help: "Payload bytes sent.",
    unit: "bytes",
    kind: Kind::Counter,
    module: "tcp",
};

fn main() {
    let snapshot = Arc::new(fabricate());
    println!("{SERIES} series, thread CPU in ms over {REPETITIONS} repetitions");
    println!("{:<28}{:>8}{:>8}{:>8}{:>12}", "format", "least", "median", "most", "bytes");
    let mut out = Vec::new();
    measure("text", || {
        out.clear();
        text::encode(&snapshot, &mut out).expect("memory does not refuse");
        out.len()
    });
    measure("text, new buffer each time", || {
        let mut out = Vec::new();
        text::encode(&snapshot, &mut out).expect("memory does not refuse");
        out.len()
    });
    let plain = out.clone();
    measure("gzip of text, level 1", || {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&plain).expect("memory does not refuse");
        encoder.finish().expect("memory does not refuse").len()
    });
    measure("OpenMetrics", || {
        out.clear();
        openmetrics::encode(&snapshot, &mut out).expect("memory does not refuse");
        out.len()
    });
    measure("JSON", || {
        out.clear();
        json::stats(&snapshot, &mut out).expect("memory does not refuse");
        out.len()
    });
    measure("protobuf", || {
        let message = proto::snapshot(&snapshot, &Filter::default());
        prost::Message::encoded_len(black_box(&message))
    });
}

fn fabricate() -> Snapshot {
    let mut family = Family::new(&BYTES);
    for series in 0..SERIES {
        let address = format!("10.{}.{}.{}", series >> 16, series >> 8 & 255, series & 255);
        let names = [("comm", "nginx"), ("role", "server"), ("dst_ip", &*address), ("dst_port", "8443")];
        family.integer(labels(names), u64::from(series) * 1_000_003);
    }
    Snapshot {
        sequence: 1,
        taken_at: SystemTime::now(),
        uptime: Duration::from_secs(60),
        node: "".into(),
        modules: vec![],
        helpers: vec![],
        families: vec![family],
        bounds: Arc::new([]),
    }
}

fn measure(name: &str, mut encode: impl FnMut() -> usize) {
    let mut bytes = 0;
    let mut times: Vec<f64> = (0..REPETITIONS)
        .map(|_| {
            let before = thread_cpu();
            bytes = black_box(encode());
            (thread_cpu() - before).as_secs_f64() * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    let [least, median, most] = [0, REPETITIONS / 2, REPETITIONS - 1].map(|at| times[at]);
    println!("{name:<28}{least:>8.2}{median:>8.2}{most:>8.2}{bytes:>12}");
}

fn thread_cpu() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("every thread has this clock").into()
}
