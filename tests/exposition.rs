//! Every format, byte for byte, from one snapshot.

mod common;

use ebpf_sidecar::exposition::filter::Filter;
use ebpf_sidecar::exposition::{json, openmetrics, proto, text};
use ebpf_sidecar::proto::MetricFilter;
use prost::Message;
use serde_json::{Value, json};

use common::client;

const TEXT: &str = r#"# HELP sidecar_connection_bytes_sent_total Payload bytes sent, each once.
# TYPE sidecar_connection_bytes_sent_total counter
sidecar_connection_bytes_sent_total{comm="curl",role="client"} 18446744073709551615
sidecar_connection_bytes_sent_total{comm="a\\b\"c\nd é",role="server"} 7
# HELP sidecar_connection_duration_seconds Age of the oldest open connection,\nin C:\\ "terms".
# TYPE sidecar_connection_duration_seconds gauge
sidecar_connection_duration_seconds{comm="curl"} 0.25
sidecar_connection_duration_seconds{comm="old"} +Inf
# HELP sidecar_connection_rtt_seconds Smoothed round trip time.
# TYPE sidecar_connection_rtt_seconds histogram
sidecar_connection_rtt_seconds_bucket{comm="curl",le="0.00002"} 2
sidecar_connection_rtt_seconds_bucket{comm="curl",le="0.00004"} 4
sidecar_connection_rtt_seconds_bucket{comm="curl",le="1.048576"} 5
sidecar_connection_rtt_seconds_bucket{comm="curl",le="+Inf"} 6
sidecar_connection_rtt_seconds_sum{comm="curl"} 2.000123
sidecar_connection_rtt_seconds_count{comm="curl"} 6
# HELP sidecar_connection_limited_seconds_total Time for which something held the connection back.
# TYPE sidecar_connection_limited_seconds_total counter
sidecar_connection_limited_seconds_total{by="receiver"} 1.5
# HELP sidecar_events_lost_total Events that found no room.
# TYPE sidecar_events_lost_total counter
sidecar_events_lost_total 0
"#;

const OPEN_METRICS: &str = r#"# HELP sidecar_connection_bytes_sent Payload bytes sent, each once.
# TYPE sidecar_connection_bytes_sent counter
sidecar_connection_bytes_sent_total{comm="curl",role="client"} 18446744073709551615
sidecar_connection_bytes_sent_total{comm="a\\b\"c\nd é",role="server"} 7
# HELP sidecar_connection_duration_seconds Age of the oldest open connection,\nin C:\\ \"terms\".
# TYPE sidecar_connection_duration_seconds gauge
# UNIT sidecar_connection_duration_seconds seconds
sidecar_connection_duration_seconds{comm="curl"} 0.25
sidecar_connection_duration_seconds{comm="old"} inf
# HELP sidecar_connection_rtt_seconds Smoothed round trip time.
# TYPE sidecar_connection_rtt_seconds histogram
# UNIT sidecar_connection_rtt_seconds seconds
sidecar_connection_rtt_seconds_sum{comm="curl"} 2.000123
sidecar_connection_rtt_seconds_count{comm="curl"} 6
sidecar_connection_rtt_seconds_bucket{le="0.00002",comm="curl"} 2
sidecar_connection_rtt_seconds_bucket{le="0.00004",comm="curl"} 4
sidecar_connection_rtt_seconds_bucket{le="1.048576",comm="curl"} 5
sidecar_connection_rtt_seconds_bucket{le="+Inf",comm="curl"} 6
# HELP sidecar_connection_limited_seconds Time for which something held the connection back.
# TYPE sidecar_connection_limited_seconds counter
# UNIT sidecar_connection_limited_seconds seconds
sidecar_connection_limited_seconds_total{by="receiver"} 1.5
# HELP sidecar_events_lost Events that found no room.
# TYPE sidecar_events_lost counter
sidecar_events_lost_total 0
# EOF
"#;

fn written(encode: impl FnOnce(&mut Vec<u8>) -> std::io::Result<()>) -> String {
    let mut out = Vec::new();
    encode(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn parsed(encode: impl FnOnce(&mut Vec<u8>) -> std::io::Result<()>) -> Value {
    serde_json::from_str(&written(encode)).unwrap()
}

#[test]
fn text_is_prometheus_0_0_4() {
    assert_eq!(written(|out| text::encode(&common::snapshot(1), out)), TEXT);
}

#[test]
fn openmetrics_has_the_same_values() {
    assert_eq!(written(|out| openmetrics::encode(&common::shared(1), out)), OPEN_METRICS);
}

#[test]
fn boundaries_look_alike_in_both_text_formats() {
    // Prometheus compares `le` as text: a difference would make two series of one, depending on who asks.
    let mut snapshot = common::snapshot(1);
    let all = (3..27).map(|power| f64::from(1 << power) / 1e6);
    snapshot.bounds = all.map(|seconds| ebpf_sidecar::histogram::Bound::new(seconds).unwrap()).collect();
    let boundaries = |body: String| -> Vec<String> {
        let buckets = body.lines().filter(|line| line.contains("_bucket{"));
        let values = buckets.flat_map(|line| line.split(['{', ',', '}'])).filter(|label| label.starts_with("le="));
        values.map(str::to_owned).collect()
    };
    let plain = boundaries(written(|out| text::encode(&snapshot, out)));
    let open = boundaries(written(|out| openmetrics::encode(&snapshot.into(), out)));
    assert_eq!(plain.len(), 25);
    assert_eq!(plain, open);
}

#[test]
fn stats_have_everything_by_module() {
    let stats = parsed(|out| json::stats(&common::snapshot(1), out));
    assert_eq!(stats["status"], "degraded");
    assert_eq!(stats["node"], "node-1");
    assert_eq!(stats["uptime_seconds"], 61.5);
    assert_eq!((&stats["total_modules"], &stats["total_metrics"]), (&json!(2), &json!(5)));
    let tcp = &stats["modules"]["tcp"];
    assert_eq!(tcp["status"], "running");
    assert_eq!(
        tcp["hooks"][0],
        json!({
            "name": "used", "kind": "tp_btf", "target": "where", "cost": "event", "tax": "", "forced": false, "reason": ""
        })
    );
    assert_eq!(tcp["hooks"][1]["kind"], Value::Null);
    let bytes = &tcp["metrics"][0];
    assert_eq!(bytes["name"], "sidecar_connection_bytes_sent_total");
    assert_eq!((&bytes["type"], &bytes["unit"]), (&json!("counter"), &json!("bytes")));
    let most = json!({"labels": {"comm": "curl", "role": "client"}, "value": u64::MAX});
    assert_eq!(bytes["samples"][0], most, "integers stay integers");
    assert_eq!(bytes["samples"][1]["labels"]["comm"], common::ODD);
    let ages = &tcp["metrics"][1]["samples"];
    assert_eq!((&ages[0]["value"], &ages[1]["value"]), (&json!(0.25), &Value::Null));
    assert_eq!(stats["modules"]["drops"]["metrics"], json!([]));
    assert_eq!(stats["modules"]["self"]["metrics"][0]["samples"], json!([{"labels": {}, "value": 0}]));
}

#[test]
fn stats_have_histograms_in_full_resolution() {
    let stats = parsed(|out| json::stats(&common::snapshot(1), out));
    let sample = &stats["modules"]["tcp"]["metrics"][2]["samples"][0];
    assert_eq!((&sample["count"], &sample["sum"]), (&json!(6), &json!(2.000123)));
    assert_eq!(sample["buckets"].as_array().unwrap().len(), 6);
    assert_eq!(sample["buckets"][2], json!({"lower": 0.00002, "upper": 0.000022, "count": 1}));
    let quantiles = sample["quantiles"].as_object().unwrap();
    let mut names: Vec<_> = quantiles.keys().collect();
    names.sort_unstable();
    assert_eq!(names, ["p50", "p75", "p90", "p95", "p99", "p999"]);
    assert!((quantiles["p50"].as_f64().unwrap() - 0.00002).abs() < 0.000002);
}

#[test]
fn modules_have_reasons_and_costs() {
    let modules = parsed(|out| json::modules(&common::snapshot(1), out));
    let drops = &modules["modules"][1];
    assert_eq!((&drops["name"], &drops["status"]), (&json!("drops"), &json!("degraded")));
    assert_eq!(drops["reason"], "no <hook>");
    assert_eq!(drops["programs"], json!([{"name": "on_event", "runs": 3, "run_seconds": 1.5e-6, "missed": 0}]));
    assert_eq!(drops["maps"], json!([{"name": "table", "entries": null, "bytes": 4096, "full": 0}]));
}

/// As a client reads it.
fn read(snapshot: &ebpf_sidecar::proto::Snapshot) -> client::proto::Snapshot {
    client::proto::Snapshot::decode(&*snapshot.encode_to_vec()).unwrap()
}

#[test]
fn filters_take_what_matches() {
    let snapshot = common::snapshot(1);
    let names = |filter: MetricFilter| -> Vec<(String, usize)> {
        let filter = Filter::new(filter, &snapshot).unwrap();
        let families = read(&proto::snapshot(&snapshot, &filter)).families;
        families.into_iter().map(|family| (family.name, family.samples.len())).collect()
    };
    let all = MetricFilter::default();
    assert_eq!(names(all.clone()).len(), 5);
    let own = MetricFilter { modules: vec!["self".into()], ..all.clone() };
    assert_eq!(names(own), [("sidecar_events_lost_total".into(), 1)]);
    let prefixed = MetricFilter { name_prefix: "sidecar_connection_b".into(), ..all.clone() };
    assert_eq!(names(prefixed), [("sidecar_connection_bytes_sent_total".into(), 2)]);
    let labelled =
        |name: &str, value: &str| MetricFilter { labels: [(name.into(), value.into())].into(), ..all.clone() };
    assert_eq!(names(labelled("comm", "curl")).iter().map(|(_, samples)| samples).sum::<usize>(), 3);
    assert_eq!(names(labelled("comm", "")).len(), 2, "an absent label equals an empty one");
    assert_eq!(names(labelled("comm", "nobody")), []);
}

#[test]
fn filters_that_make_no_sense_name_the_field() {
    let snapshot = common::snapshot(1);
    let refused = |filter: MetricFilter| Filter::new(filter, &snapshot).unwrap_err().to_string();
    let all = MetricFilter::default();
    assert_eq!(
        refused(MetricFilter { modules: vec!["tcp".into(), "udp".into()], ..all.clone() }),
        "filter.modules: there is no module \"udp\"; there are drops, self, tcp"
    );
    let prefix = refused(MetricFilter { name_prefix: "side-car".into(), ..all.clone() });
    assert!(prefix.starts_with("filter.name_prefix: "), "{prefix}");
    let label = refused(MetricFilter { labels: [("bad-label".into(), "x".into())].into(), ..all });
    assert!(label.starts_with("filter.labels: "), "{label}");
}

#[test]
fn messages_keep_what_is_unknown_apart_from_zero() {
    let modules = proto::modules(&common::snapshot(1)).modules;
    assert_eq!((modules[0].maps[0].entries, modules[0].maps[0].full), (None, Some(0)));
    let snapshot = read(&proto::snapshot(&common::snapshot(9), &Filter::default()));
    assert_eq!((snapshot.sequence, snapshot.timestamp_unix_nano), (9, 1_700_000_000_500_000_000));
}
