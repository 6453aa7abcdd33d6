//! The HTTP server, seen from a socket.

mod common;

use std::io::Read;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use common::client::{converse, cut_after, get, narrow, parse, send};
use common::{UNKNOWN_PORT, large, sampler, snapshot, start, start_default, within};
use ebpf_sidecar::server::{BindError, Config, Limits, Servers};
use flate2::read::GzDecoder;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn metrics_come_in_the_format_that_is_asked_for() {
    let server = start_default().await;
    let plain = get(server.http, "/metrics").await;
    assert_eq!(plain.status, 200);
    assert_eq!(plain.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert_eq!(plain.header("vary"), Some("Accept, Accept-Encoding"));
    assert!(plain.text().starts_with("# HELP sidecar_connection_bytes_sent_total "));

    let asked = ["Accept: application/openmetrics-text;version=1.0.0, text/plain;q=0.5"];
    let open = send(server.http, "GET /metrics HTTP/1.1", &asked).await;
    assert_eq!(open.header("content-type"), Some("application/openmetrics-text; version=1.0.0; charset=utf-8"));
    assert!(open.text().ends_with("# EOF\n"));

    let neither = send(server.http, "GET /metrics HTTP/1.1", &["Accept: application/json"]).await;
    assert_eq!(neither.status, 406);
    assert!(neither.json()["error"].as_str().unwrap().contains("text/plain; version=0.0.4"));
}

#[tokio::test]
async fn large_bodies_are_compressed_on_demand() {
    let server = start(Config::default(), Limits::default(), sampler(|n| large(n, 5000))).await;
    let plain = get(server.http, "/metrics").await;
    assert_eq!(plain.header("content-encoding"), None);
    let packed = send(server.http, "GET /metrics HTTP/1.1", &["Accept-Encoding: gzip"]).await;
    assert_eq!(packed.header("content-encoding"), Some("gzip"));
    let mut unpacked = Vec::new();
    GzDecoder::new(&packed.body[..]).read_to_end(&mut unpacked).unwrap();
    assert!(unpacked == plain.body && packed.body.len() * 5 < plain.body.len());
    let refused = send(server.http, "GET /metrics HTTP/1.1", &["Accept-Encoding: gzip;q=0, *"]).await;
    assert_eq!(refused.header("content-encoding"), None);
}

#[tokio::test]
async fn head_has_the_headers_of_get_and_no_body() {
    let server = start_default().await;
    for path in ["/", "/metrics", "/health", "/api/v1/stats", "/nowhere"] {
        let got = get(server.http, path).await;
        let head = send(server.http, &format!("HEAD {path} HTTP/1.1"), &[]).await;
        assert_eq!(head.status, got.status, "{path}");
        assert_eq!(head.header("content-length"), Some(got.body.len().to_string().as_str()), "{path}");
        assert_eq!(head.header("content-type"), got.header("content-type"), "{path}");
        assert!(head.body.is_empty(), "{path}");
    }
}

#[tokio::test]
async fn the_api_is_json() {
    let server = start_default().await;
    for (path, member) in [
        ("/api/v1/stats", "total_metrics"),
        ("/api/v1/modules", "modules"),
        ("/api/v1/connections", "total"),
        ("/health", "alive"),
    ] {
        let reply = get(server.http, path).await;
        assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/json")), "{path}");
        assert!(reply.json().get(member).is_some(), "{path}");
    }
    let health = get(server.http, "/health").await.json();
    assert_eq!(health["status"], "degraded");
    assert_eq!((&health["ready"], &health["alive"]), (&json!(true), &json!(true)));
    assert_eq!(health["modules"], json!({"tcp": "running", "drops": "degraded"}));
    assert!(health["timestamp"].is_u64());
}

#[tokio::test]
async fn connections_are_listed_with_what_is_known_of_them() {
    let server = start_default().await;
    let body = get(server.http, "/api/v1/connections?limit=2").await.json();
    let full = json!({
        "comm": common::ODD,
        "pid": 4242,
        "container": {
            "container_id": "0123456789ab",
            "container_name": "web",
            "pod_name": "web-0",
            "pod_namespace": "shop",
        },
        "role": "client",
        "state": "established",
        "netns": 4_026_531_840u32,
        "src_ip": "10.0.0.5",
        "src_port": 40_000,
        "dst_ip": "2001:db8::1",
        "dst_port": 443,
        "congestion_control": "cubic",
        "congestion_state": "open",
        "duration_seconds": 1.5,
        "bytes_sent": u64::MAX - 1,
    });
    let bare = json!({
        "role": "unknown",
        "state": "close_wait",
        "netns": 4_026_531_840u32,
        "src_ip": "::1",
        "src_port": 40_000,
        "dst_ip": "::1",
        "dst_port": 80,
        "congestion_state": "open",
    });
    let node = json!({
        "node": "node-1",
        "timestamp": 1_700_000_000.5,
        "live": 1u64 << 40,
        "total": 2,
        "connections": [full, bare],
    });
    assert_eq!(body, node);
    let all = get(server.http, "/api/v1/connections").await.json();
    assert_eq!(all["connections"].as_array().unwrap().len(), 100, "unless another number is asked for");
}

#[tokio::test]
async fn what_connections_cannot_be_asked_is_named() {
    let server = start_default().await;
    for (query, parts) in [
        ("colour=red", &["colour: ", "sort, limit, comm"][..]),
        ("limit=5&limit=5", &["limit: ", "twice"]),
        ("limit=ten", &["limit: ", "1 to 10000"]),
        ("limit", &["limit: "]),
        ("=1", &["no such parameter"]),
        ("sort=%62eauty", &["sort: \"beauty\" is none of ", "rtt_us"]),
        ("dst_port=0", &["dst_port: "]),
    ] {
        let reply = get(server.http, &format!("/api/v1/connections?{query}")).await;
        let error = reply.json()["error"].as_str().unwrap().to_owned();
        assert_eq!(reply.status, 400, "{query}");
        assert!(parts.iter().all(|part| error.contains(part)), "{query}: {error}");
    }
    let unknown = get(server.http, &format!("/api/v1/connections?dst_port={UNKNOWN_PORT}")).await;
    assert_eq!(unknown.status, 503);
    let error = "connections are not known, as tcp is not running: as the test wants it";
    assert_eq!(unknown.json(), json!({ "error": error }));
}

/// Those who do not read what they asked for hold their rows, and no more than there is room for.
#[tokio::test]
async fn stalled_readers_of_long_lists_leave_room_for_short_ones() {
    let server = start_default().await;
    let request = b"GET /api/v1/connections?limit=10000 HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut stalled = Vec::new();
    for _ in 0..3 {
        let mut client = narrow(server.http).await;
        client.write_all(request).await.unwrap();
        client.read_exact(&mut [0; 15]).await.unwrap();
        stalled.push(client);
    }
    for _ in 0..20 {
        assert_eq!(get(server.http, "/api/v1/connections?limit=50").await.status, 200);
    }
    assert_eq!(get(server.http, "/api/v1/connections?limit=10000").await.status, 200, "the fourth quarter");
    // The last quarter, and one more, which waits for somebody to go.
    let mut fourth = narrow(server.http).await;
    fourth.write_all(request).await.unwrap();
    fourth.read_exact(&mut [0; 15]).await.unwrap();
    let waiting = tokio::spawn(async move { get(server.http, "/api/v1/connections?limit=10000").await.status });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!waiting.is_finished());
    drop(stalled);
    assert_eq!(within(waiting).await.unwrap(), 200);
}

#[tokio::test]
async fn the_page_for_people_links_to_what_there_is() {
    let mut config = Config::default();
    config.http.metrics_path = "/prom".into();
    let server = start(config, Limits::default(), sampler(snapshot)).await;
    let page = send(server.http, "GET / HTTP/1.1", &["Accept: text/html,*/*;q=0.8"]).await;
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    let html = page.text();
    assert!(html.contains("no &lt;hook&gt;") && html.contains("1m 1s"), "{html}");
    let links: Vec<_> = html.split("href=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    assert!(links.contains(&"/prom"));
    for link in links {
        assert_eq!(get(server.http, link).await.status, 200, "{link}");
    }
    assert_eq!(get(server.http, "/metrics").await.status, 404);
}

#[tokio::test]
async fn odd_requests_get_the_right_refusal() {
    let server = start_default().await;
    let refused = async |line: &str, headers: &[&str]| {
        let reply = send(server.http, line, headers).await;
        assert!(reply.json()["error"].is_string(), "{line}");
        reply
    };
    assert_eq!(refused("GET /nowhere HTTP/1.1", &[]).await.status, 404);
    assert_eq!(refused("GET /metrics/ HTTP/1.1", &[]).await.status, 404);
    assert_eq!(refused("GET /..%2fmetrics HTTP/1.1", &[]).await.status, 404);
    let post = refused("POST /metrics HTTP/1.1", &["Content-Length: 0"]).await;
    assert_eq!((post.status, post.header("allow")), (405, Some("GET, HEAD")));
    assert_eq!(refused("OPTIONS /health HTTP/1.1", &[]).await.status, 405);
    let parameter = refused("GET /api/v1/stats?colour=red&x HTTP/1.1", &[]).await;
    assert_eq!(parameter.status, 400);
    assert!(parameter.text().contains("colour"));
    assert_eq!(refused("GET /metrics?=1 HTTP/1.1", &[]).await.status, 400);
    assert_eq!(get(server.http, "/metrics?").await.status, 200);
}

#[tokio::test]
async fn requests_that_are_too_large_or_no_http_are_refused() {
    let server = start_default().await;
    let long = format!("X-Long: {}", "x".repeat(20_000));
    assert_eq!(send(server.http, "GET /metrics HTTP/1.1", &[&long]).await.status, 431);
    let many: Vec<_> = (0..80).map(|number| format!("X-{number}: x")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    assert_eq!(send(server.http, "GET /metrics HTTP/1.1", &many).await.status, 431);
    assert_eq!(send(server.http, "\u{16}\u{3}\u{1}", &[]).await.status, 400);
    assert_eq!(get(server.http, "/metrics").await.status, 200);
}

#[tokio::test]
async fn a_token_is_needed_except_by_probes() {
    let mut config = Config::default();
    config.http.auth.bearer_token_file = Some(common::file("token", "s3cret\n"));
    let server = start(config, Limits::default(), sampler(snapshot)).await;
    let status = async |path: &str, headers: &[&str]| send(server.http, &format!("GET {path} HTTP/1.1"), headers).await;
    for path in ["/health", "/readiness", "/liveness"] {
        assert_eq!(status(path, &[]).await.status, 200, "{path}");
    }
    for path in ["/", "/metrics", "/api/v1/stats", "/api/v1/connections", "/api/v1/modules"] {
        let refused = status(path, &[]).await;
        assert_eq!((refused.status, refused.header("www-authenticate")), (401, Some("Bearer")), "{path}");
        assert_eq!(status(path, &["Authorization: bearer s3cret"]).await.status, 200, "{path}");
    }
    for wrong in ["Bearer s3cre", "Bearer s3cret2", "Bearer ", "Bearer", "s3cret", "Basic s3cret"] {
        assert_eq!(status("/metrics", &[&format!("Authorization: {wrong}")]).await.status, 401, "{wrong}");
    }
}

#[tokio::test]
async fn a_silent_or_slow_client_is_cut() {
    let limit = Duration::from_millis(150);
    let limits = Limits { greeting: limit, headers: 2 * limit, ..Limits::default() };
    let server = start(Config::default(), limits, sampler(snapshot)).await;
    let begun = Instant::now();
    let mut silent = TcpStream::connect(server.http).await.unwrap();
    let after = cut_after(&mut silent, begun).await;
    assert!(after >= limit && after < Duration::from_secs(5), "silent: {after:?}");

    let begun = Instant::now();
    let mut slow = TcpStream::connect(server.http).await.unwrap();
    slow.write_all(b"GET /metrics HTTP/1.1\r\nHost: te").await.unwrap();
    let after = cut_after(&mut slow, begun).await;
    assert!(after >= 2 * limit && after < Duration::from_secs(5), "slow headers: {after:?}");

    let begun = Instant::now();
    let mut promising = TcpStream::connect(server.http).await.unwrap();
    promising.write_all(b"POST /metrics HTTP/1.1\r\nHost: test\r\nContent-Length: 9\r\n\r\n").await.unwrap();
    let after = cut_after(&mut promising, begun).await;
    assert!(after < Duration::from_secs(5), "a body that never comes: {after:?}");
}

#[tokio::test]
async fn a_client_that_reads_too_slowly_is_cut() {
    let limits = Limits { response: Duration::from_millis(300), ..Limits::default() };
    let server = start(Config::default(), limits, sampler(|n| large(n, 50_000))).await;
    let expected = get(server.http, "/metrics").await.body.len();
    let mut stream = narrow(server.http).await;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n").await.unwrap();
    // A little is read on all the time, and far too little.
    let (mut taken, mut piece) = (0, [0; 512]);
    let begun = Instant::now();
    while let Ok(read @ 1..) = within(stream.read(&mut piece)).await {
        taken += read;
        if begun.elapsed() < Duration::from_millis(1000) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    assert!(taken < expected, "{taken} of {expected} bytes came through");
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_their_turn() {
    let server = start(Config::default(), Limits { connections: 1, ..Limits::default() }, sampler(snapshot)).await;
    let mut first = TcpStream::connect(server.http).await.unwrap();
    first.write_all(b"GET /health HTTP/1.1\r\nHost: test\r\n\r\n").await.unwrap();
    let mut piece = [0; 4096];
    let read = within(first.read(&mut piece)).await.unwrap();
    assert_eq!(parse(&piece[..read]).status, 200);

    let mut second = TcpStream::connect(server.http).await.unwrap();
    let mut answer = Box::pin(converse(&mut second, "GET /health HTTP/1.1", &[]));
    assert!(tokio::time::timeout(Duration::from_millis(100), &mut answer).await.is_err(), "there was no room");
    drop(first);
    assert_eq!(answer.await.status, 200);
}

#[tokio::test]
async fn idle_connections_leave_room_for_others() {
    let limits = Limits { connections: 8, ..Limits::default() };
    let server = start(Config::default(), limits, sampler(snapshot)).await;
    let mut idle = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(server.http).await.unwrap();
        stream.write_all(b"GET /health HTTP/1.1\r\nHost: test\r\n\r\n").await.unwrap();
        assert!(within(stream.read(&mut [0; 4096])).await.unwrap() > 0);
        idle.push(stream);
    }
    assert_eq!(get(server.http, "/liveness").await.status, 200);
    // Those that came while there was room are kept.
    assert!(tokio::time::timeout(Duration::from_millis(50), idle[0].read(&mut [0; 1])).await.is_err());
    assert_eq!(within(idle[19].read(&mut [0; 1])).await.unwrap(), 0);
}

#[tokio::test]
async fn silent_connections_leave_room_for_probes() {
    let limits = Limits { connections: 8, ..Limits::default() };
    let server = start(Config::default(), limits, sampler(snapshot)).await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(TcpStream::connect(server.http).await.unwrap());
    }
    let begun = Instant::now();
    assert_eq!(get(server.http, "/liveness").await.status, 200);
    // Those that came while there was room may be silent for ten seconds.
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn no_snapshot_is_503_everywhere() {
    let server = start(Config::default(), Limits::default(), sampler(|_| panic!("a test ends the thread"))).await;
    assert_eq!(get(server.http, "/metrics").await.status, 503);
    let reply = get(server.http, "/api/v1/stats").await;
    assert_eq!((reply.status, reply.json()["error"].is_string()), (503, true));
    for path in ["/health", "/readiness", "/liveness"] {
        let reply = get(server.http, path).await;
        assert_eq!((reply.status, &reply.json()["alive"]), (503, &json!(false)), "{path}");
    }
}

#[tokio::test]
async fn a_collection_that_hangs_makes_unready_but_not_dead() {
    let (release, held) = mpsc::channel::<()>();
    let make = move |sequence| {
        if sequence > 1 {
            let _ = held.recv();
        }
        snapshot(sequence)
    };
    let server = start(Config::default(), Limits::default(), sampler(make)).await;
    assert_eq!(get(server.http, "/readiness").await.status, 200);
    let begun = Instant::now();
    let unready = get(server.http, "/readiness").await;
    // Probes wait for one second; the rest is for machines that are busy with tests.
    assert!(begun.elapsed() < Duration::from_secs(4), "the probe waited for the collection");
    assert_eq!((unready.status, &unready.json()["modules"]["tcp"]), (503, &json!("running")));
    assert_eq!(get(server.http, "/liveness").await.status, 200);
    drop(release);
    assert_eq!(get(server.http, "/readiness").await.status, 200);
}

#[tokio::test]
async fn the_end_closes_idle_connections_and_the_port() {
    let server = start_default().await;
    let http = server.http;
    let mut idle = TcpStream::connect(http).await.unwrap();
    idle.write_all(b"GET /health HTTP/1.1\r\nHost: test\r\n\r\n").await.unwrap();
    assert!(within(idle.read(&mut [0; 4096])).await.unwrap() > 0);
    server.stop();
    assert_eq!(within(idle.read(&mut [0; 1])).await.unwrap(), 0);
    server.ended().await;
    assert!(TcpStream::connect(http).await.is_err());
}

#[tokio::test]
async fn a_port_in_use_is_an_error_that_names_address_and_key() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = Config::default();
    config.http.port = taken.local_addr().unwrap().port();
    config.grpc.port = 0;
    let error = Servers::bind(&config, Limits::default()).await.unwrap_err();
    assert!(matches!(error, BindError::Listen { .. }));
    let text = error.to_string();
    assert!(text.contains(&format!("127.0.0.1:{}", config.http.port)) && text.contains("server.http.port"), "{text}");
}

#[test]
fn configurations_that_cannot_work_are_refused_by_key() {
    let refused = |change: fn(&mut Config)| {
        let mut config = Config::default();
        change(&mut config);
        config.validate().unwrap_err().key
    };
    assert_eq!(refused(|config| config.http.metrics_path = "metrics".into()), "server.http.metrics_path");
    assert_eq!(refused(|config| config.http.metrics_path = "/health".into()), "server.http.metrics_path");
    assert_eq!(refused(|config| config.http.metrics_path = "/a?b".into()), "server.http.metrics_path");
    assert_eq!(refused(|config| config.http.port = config.grpc.port), "server.http.port");
    assert_eq!(refused(|config| config.http.tls.cert_file = Some("x".into())), "server.http.tls.key_file");
    assert_eq!(refused(|config| config.grpc.tls.client_ca_file = Some("x".into())), "server.grpc.tls.cert_file");
    Config::default().validate().unwrap();
}

#[test]
fn every_key_has_a_default_and_no_other_is_taken() {
    let tls = json!({"cert_file": null, "key_file": null, "client_ca_file": null});
    let all = json!({
        "grpc": {"address": "127.0.0.1", "port": 9090, "tls": tls},
        "http": {
            "address": "127.0.0.1", "port": 8080, "metrics_path": "/metrics", "tls": tls,
            "auth": {"bearer_token_file": null},
        },
    });
    assert_eq!(serde_json::to_value(Config::default()).unwrap(), all);
    assert_eq!(serde_json::from_value::<Config>(json!({})).unwrap(), Config::default());
    assert!(serde_json::from_value::<Config>(json!({"http": {"prot": 1}})).is_err());
}
