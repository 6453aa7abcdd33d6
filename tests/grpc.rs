//! The gRPC server, seen by a client.

mod common;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use common::client::cut_after;
use common::client::proto::ebpf_metrics_client::EbpfMetricsClient;
use common::client::proto::{self, MetricFilter, sample};
use common::{Running, UNKNOWN_PORT, events, large, sampler, snapshot, start, start_default, start_telling, within};
use ebpf_sidecar::events::Kind;
use ebpf_sidecar::server::{Config, Limits};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tonic::codec::CompressionEncoding;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

/// A message of so many series does not fit into what the layers between server and client hold.
const LARGE_ENOUGH: usize = 10_000;

fn endpoint(address: SocketAddr) -> Endpoint {
    Endpoint::from_shared(format!("http://{address}")).unwrap()
}

async fn channel(server: &Running) -> Channel {
    // Small windows, so that a client that stops reading is felt soon.
    endpoint(server.grpc).initial_stream_window_size(65_535).connect().await.unwrap()
}

async fn client(server: &Running) -> EbpfMetricsClient<Channel> {
    EbpfMetricsClient::new(channel(server).await).max_decoding_message_size(64 << 20)
}

fn streamed(interval_ms: u32) -> proto::StreamMetricsRequest {
    proto::StreamMetricsRequest { filter: None, interval_ms }
}

fn filtered(filter: MetricFilter) -> proto::GetMetricsRequest {
    proto::GetMetricsRequest { filter: Some(filter) }
}

#[tokio::test]
async fn metrics_are_typed() {
    let server = start_default().await;
    let mut client = client(&server).await.send_compressed(CompressionEncoding::Gzip);
    client = client.accept_compressed(CompressionEncoding::Gzip);
    let answer = within(client.get_metrics(proto::GetMetricsRequest::default())).await.unwrap();
    assert_eq!(answer.metadata().get("grpc-encoding").unwrap(), "gzip");
    let snapshot = answer.into_inner().snapshot.unwrap();
    assert_eq!((snapshot.node.as_str(), snapshot.families.len()), ("node-1", 5));
    let first = &snapshot.families[0];
    assert_eq!((first.r#type(), first.module.as_str()), (proto::MetricType::Counter, "tcp"));
    assert_eq!(first.samples[0].value, Some(sample::Value::Integer(u64::MAX)));
    assert_eq!(first.samples[1].labels["comm"], common::ODD);
    let Some(sample::Value::Histogram(histogram)) = &snapshot.families[2].samples[0].value else {
        panic!("no histogram")
    };
    assert_eq!((histogram.count, histogram.buckets.len(), histogram.quantiles.len()), (6, 6, 6));
}

#[tokio::test]
async fn filters_apply_and_bad_ones_name_their_field() {
    let server = start_default().await;
    let mut client = client(&server).await;
    let own = MetricFilter { modules: vec!["self".into()], ..MetricFilter::default() };
    let snapshot = client.get_metrics(filtered(own)).await.unwrap().into_inner().snapshot.unwrap();
    assert_eq!(snapshot.families.len(), 1);

    let refused = |status: Status, field: &str| {
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().starts_with(&format!("{field}: ")), "{}", status.message());
    };
    let unknown = MetricFilter { modules: vec!["udp".into()], ..MetricFilter::default() };
    refused(client.get_metrics(filtered(unknown.clone())).await.unwrap_err(), "filter.modules");
    let stream = proto::StreamMetricsRequest { filter: Some(unknown), interval_ms: 0 };
    refused(client.stream_metrics(stream).await.unwrap_err(), "filter.modules");
    for interval_ms in [1, 99, 3_600_001] {
        refused(client.stream_metrics(streamed(interval_ms)).await.unwrap_err(), "interval_ms");
    }
}

#[tokio::test]
async fn a_stream_begins_at_once_and_goes_on_at_each_tick() {
    let server = start_default().await;
    let mut client = client(&server).await;
    let begun = Instant::now();
    let mut slow = client.stream_metrics(streamed(3_600_000)).await.unwrap().into_inner();
    let first = within(slow.message()).await.unwrap().unwrap();
    assert_eq!((first.skipped_ticks, first.snapshot.is_some()), (0, true));
    assert!(begun.elapsed() < Duration::from_secs(2));

    let mut ticking = client.stream_metrics(streamed(0)).await.unwrap().into_inner();
    let mut last = 0;
    for _ in 0..4 {
        let sequence = within(ticking.message()).await.unwrap().unwrap().snapshot.unwrap().sequence;
        assert!(sequence > last);
        last = sequence;
    }
}

/// Where the machine itself delays the brisk one, another look is taken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_stalls_skips_ticks_is_told_and_delays_nobody() {
    let server = start(Config::default(), Limits::default(), sampler(|n| large(n, LARGE_ENOUGH))).await;
    let mut looks = Vec::new();
    for _ in 0..5 {
        let (stalled, brisk) = skipped_by_stalled_and_brisk(&server).await;
        if stalled >= 4 && brisk < stalled / 2 {
            return;
        }
        looks.push((stalled, brisk));
    }
    panic!("skipped by the stalled and by the brisk: {looks:?}");
}

async fn skipped_by_stalled_and_brisk(server: &Running) -> (u64, u64) {
    let mut stalled = client(server).await.stream_metrics(streamed(100)).await.unwrap().into_inner();
    within(stalled.message()).await.unwrap().unwrap();

    let filter = MetricFilter { name_prefix: "none".into(), ..MetricFilter::default() };
    let brisk = proto::StreamMetricsRequest { filter: Some(filter), interval_ms: 100 };
    let mut brisk = client(server).await.stream_metrics(brisk).await.unwrap().into_inner();
    let mut brisk_skipped = 0;
    for _ in 0..10 {
        brisk_skipped += within(brisk.message()).await.unwrap().unwrap().skipped_ticks;
    }

    // A few messages were on their way when the client stalled; the next one tells.
    let mut skipped = 0;
    for _ in 0..5 {
        skipped += within(stalled.message()).await.unwrap().unwrap().skipped_ticks;
    }
    (skipped, brisk_skipped)
}

fn told(filter: Option<proto::EventFilter>) -> proto::StreamEventsRequest {
    proto::StreamEventsRequest { filter }
}

#[tokio::test]
async fn events_are_told_as_they_come() {
    let (teller, events) = events::source();
    let server = start_telling(Config::default(), Limits::default(), sampler(snapshot), events.clone()).await;
    let mut all = client(&server).await.stream_events(told(None)).await.unwrap().into_inner();
    let filter = proto::EventFilter {
        types: vec![proto::EventType::Close.into()],
        processes: vec!["curl".into()],
        dst_ports: vec![443],
    };
    let mut some = client(&server).await.stream_events(told(Some(filter))).await.unwrap().into_inner();
    for (kind, process, port) in [
        (Kind::Connect, "curl", 443),
        (Kind::Close, "wget", 443),
        (Kind::Close, "curl", 80),
        (Kind::Close, "curl", 443),
    ] {
        teller.tell(kind, process, port);
    }
    let mut sequences = Vec::new();
    while sequences.len() < 4 {
        let message = within(all.message()).await.unwrap().unwrap();
        assert_eq!(message.lost, 0);
        sequences.extend(message.events.iter().map(|event| event.sequence));
    }
    assert_eq!(sequences, [1, 2, 3, 4]);
    let message = within(some.message()).await.unwrap().unwrap();
    let [event] = &message.events[..] else { panic!("{message:?}") };
    assert_eq!((event.sequence, event.r#type(), event.node.as_str()), (4, proto::EventType::Close, "node-1"));
    assert_eq!(message.lost, 0, "what was not asked for is not lost");

    // What the source had no room for is told with the next one that it had.
    teller.lose(3);
    teller.tell(Kind::Close, "curl", 443);
    for stream in [&mut all, &mut some] {
        let message = within(stream.message()).await.unwrap().unwrap();
        assert_eq!((message.lost, message.events[0].sequence), (3, 8));
    }
    server.stop();
    assert_eq!(within(all.message()).await.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn who_does_not_read_loses_events_and_is_told_how_many() {
    let (teller, events) = events::source();
    let server = start_telling(Config::default(), Limits::default(), sampler(snapshot), events.clone()).await;
    let mut stalled = client(&server).await.stream_events(told(None)).await.unwrap().into_inner();
    let mut brisk = client(&server).await.stream_events(told(None)).await.unwrap().into_inner();
    let (mut brisk_read, mut produced) = (0, 0);
    while events.fate().unwrap().lost[2] < 1000 {
        (0..1000).for_each(|_| teller.tell(Kind::Close, "curl", 443));
        produced += 1000;
        while brisk_read < produced {
            let message = within(brisk.message()).await.unwrap().unwrap();
            assert_eq!(message.lost, 0);
            brisk_read += message.events.len() as u64;
        }
    }
    let lost = events.fate().unwrap().lost[2];
    let (mut read, mut told_lost) = (0, 0);
    // The next ones that come through tell what was lost before them.
    while read + told_lost < produced {
        if read + lost >= produced {
            teller.tell(Kind::Close, "curl", 443);
            produced += 1;
        }
        let message = within(stalled.message()).await.unwrap().unwrap();
        told_lost += message.lost;
        read += message.events.len() as u64;
    }
    assert_eq!((read + told_lost, told_lost), (produced, lost));
}

#[tokio::test]
async fn event_filters_that_match_nothing_name_their_field() {
    let server = start_default().await;
    let mut client = client(&server).await;
    let none = proto::EventFilter::default;
    for (field, filter) in [
        ("filter.types", proto::EventFilter { types: vec![0], ..none() }),
        ("filter.types", proto::EventFilter { types: vec![9], ..none() }),
        ("filter.processes", proto::EventFilter { processes: vec![String::new()], ..none() }),
        ("filter.dst_ports", proto::EventFilter { dst_ports: vec![65_536], ..none() }),
    ] {
        let status = client.stream_events(told(Some(filter))).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().starts_with(&format!("{field}: ")), "{}", status.message());
    }
    // Nobody offers events here.
    assert_eq!(client.stream_events(told(None)).await.unwrap_err().code(), Code::FailedPrecondition);
}

#[tokio::test]
async fn only_so_many_may_listen() {
    let (_teller, events) = events::source();
    let server = start_telling(Config::default(), Limits::default(), sampler(snapshot), events).await;
    let mut client = client(&server).await;
    let mut streams = Vec::new();
    for _ in 0..16 {
        streams.push(client.stream_events(told(None)).await.unwrap());
    }
    assert_eq!(client.stream_events(told(None)).await.unwrap_err().code(), Code::ResourceExhausted);
}

#[tokio::test]
async fn the_end_ends_streams_with_unavailable() {
    let server = start_default().await;
    let mut stream = client(&server).await.stream_metrics(streamed(3_600_000)).await.unwrap().into_inner();
    within(stream.message()).await.unwrap().unwrap();
    let begun = Instant::now();
    server.stop();
    let status = within(stream.message()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    server.ended().await;
    assert!(begun.elapsed() < Duration::from_secs(2), "nothing was left to wait for");
}

#[tokio::test]
async fn a_stalled_client_does_not_hold_up_the_end() {
    let limits = Limits { drain: Duration::from_millis(200), ..Limits::default() };
    let server = start(Config::default(), limits, sampler(|n| large(n, LARGE_ENOUGH))).await;
    let mut stream = client(&server).await.stream_metrics(streamed(100)).await.unwrap().into_inner();
    within(stream.message()).await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let begun = Instant::now();
    server.stop();
    server.ended().await;
    assert!(begun.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn a_sampler_that_ended_is_unavailable() {
    let sampler = sampler(|sequence| if sequence < 3 { snapshot(sequence) } else { panic!("a test ends the thread") });
    let server = start(Config::default(), Limits::default(), sampler).await;
    let mut client = client(&server).await;
    let mut stream = client.stream_metrics(streamed(100)).await.unwrap().into_inner();
    within(stream.message()).await.unwrap().unwrap();
    assert_eq!(within(stream.message()).await.unwrap_err().code(), Code::Unavailable);
    let status = client.get_metrics(proto::GetMetricsRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    let health = client.get_health(proto::GetHealthRequest {}).await.unwrap().into_inner();
    assert_eq!((health.status(), health.alive), (proto::Health::Unhealthy, false));
    let mut health = HealthClient::new(channel(&server).await);
    let checked = health.check(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(checked.status(), ServingStatus::NotServing);
}

#[tokio::test]
async fn health_and_modules_answer() {
    let server = start_default().await;
    let mut client = client(&server).await;
    let health = client.get_health(proto::GetHealthRequest {}).await.unwrap().into_inner();
    assert_eq!((health.status(), health.ready, health.alive), (proto::Health::Degraded, true, true));
    assert_eq!(health.modules["drops"], i32::from(proto::ModuleStatus::Degraded));
    assert_eq!((health.version.as_str(), health.uptime_seconds), (env!("CARGO_PKG_VERSION"), 61.5));
    let modules = client.list_modules(proto::ListModulesRequest {}).await.unwrap().into_inner().modules;
    assert_eq!((modules.len(), modules[1].reason.as_str()), (2, "no <hook>"));
    assert_eq!((modules[0].hooks[0].kind.as_str(), modules[0].hooks[1].kind.as_str()), ("tp_btf", ""));
}

#[tokio::test]
async fn the_standard_health_service_knows_the_daemon_and_its_service() {
    let server = start_default().await;
    let mut health = HealthClient::new(channel(&server).await);
    let asked = |service: &str| HealthCheckRequest { service: service.into() };
    for service in ["", "ebpf_sidecar.v1.EBPFMetrics"] {
        let checked = health.check(asked(service)).await.unwrap().into_inner();
        assert_eq!(checked.status(), ServingStatus::Serving, "{service:?}");
    }
    assert_eq!(health.check(asked("other")).await.unwrap_err().code(), Code::NotFound);
    let mut watched = health.watch(asked("")).await.unwrap().into_inner();
    assert_eq!(within(watched.message()).await.unwrap().unwrap().status(), ServingStatus::Serving);
    server.stop();
    assert!(within(watched.message()).await.unwrap().is_none());
}

/// The two versions of the protocol differ in nothing but their names.
macro_rules! services {
    ($server:expr, $version:ident) => {{
        use tonic_reflection::pb::$version;
        let request = $version::ServerReflectionRequest {
            message_request: Some($version::server_reflection_request::MessageRequest::ListServices(String::new())),
            ..Default::default()
        };
        let channel = channel($server).await;
        let mut client = $version::server_reflection_client::ServerReflectionClient::new(channel);
        let answers = client.server_reflection_info(tokio_stream::once(request)).await.unwrap();
        let answer = within(answers.into_inner().message()).await.unwrap().unwrap().message_response;
        let Some($version::server_reflection_response::MessageResponse::ListServicesResponse(list)) = answer else {
            panic!("no list")
        };
        list.service.into_iter().map(|service| service.name).collect::<Vec<_>>()
    }};
}

#[tokio::test]
async fn reflection_lists_and_describes_the_services() {
    let server = start_default().await;
    for names in [services!(&server, v1), services!(&server, v1alpha)] {
        for name in ["ebpf_sidecar.v1.EBPFMetrics", "grpc.health.v1.Health"] {
            assert!(names.iter().any(|known| known == name), "{name} is not among {names:?}");
        }
    }
    let request = tonic_reflection::pb::v1::ServerReflectionRequest {
        message_request: Some(MessageRequest::FileContainingSymbol("ebpf_sidecar.v1.Snapshot".into())),
        ..Default::default()
    };
    let channel = channel(&server).await;
    let mut client = tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient::new(channel);
    let answers = client.server_reflection_info(tokio_stream::once(request)).await.unwrap();
    let answer = within(answers.into_inner().message()).await.unwrap().unwrap().message_response;
    assert!(matches!(answer, Some(MessageResponse::FileDescriptorResponse(_))));
}

#[tokio::test]
async fn a_client_that_says_too_little_is_cut() {
    let limits = Limits { greeting: Duration::from_millis(100), ..Limits::default() };
    let server = start(Config::default(), limits, sampler(snapshot)).await;
    for said in ["", "PRI * HT"] {
        let begun = Instant::now();
        let mut silent = TcpStream::connect(server.grpc).await.unwrap();
        silent.write_all(said.as_bytes()).await.unwrap();
        let after = cut_after(&mut silent, begun).await;
        assert!(after >= limits.greeting && after < Duration::from_secs(5), "{said:?}: {after:?}");
    }
}

#[tokio::test]
async fn requests_that_are_too_large_are_refused() {
    let server = start_default().await;
    let filter = MetricFilter { name_prefix: "x".repeat(100_000), ..MetricFilter::default() };
    let status = client(&server).await.get_metrics(filtered(filter)).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange);
}

#[tokio::test]
async fn connections_are_typed() {
    let server = start_default().await;
    let mut client = client(&server).await;
    let mut list = async |request: proto::ListConnectionsRequest| client.list_connections(request).await;
    let two = proto::ListConnectionsRequest { limit: Some(2), ..Default::default() };
    let answer = list(two).await.unwrap().into_inner();
    assert_eq!((answer.node.as_str(), answer.live, answer.total), ("node-1", 1 << 40, 2));
    assert_eq!(answer.timestamp_unix_nano, 1_700_000_000_500_000_000);
    let bare = proto::Connection {
        role: "unknown".into(),
        state: "close_wait".into(),
        netns: 4_026_531_840,
        src_ip: "::1".into(),
        src_port: 40_000,
        dst_ip: "::1".into(),
        dst_port: 80,
        congestion_state: "open".into(),
        ..Default::default()
    };
    let full = proto::Connection {
        comm: Some(common::ODD.into()),
        pid: Some(4242),
        container: Some(proto::Container {
            container_id: "0123456789ab".into(),
            container_name: "web".into(),
            pod_name: "web-0".into(),
            pod_namespace: "shop".into(),
        }),
        role: "client".into(),
        state: "established".into(),
        src_ip: "10.0.0.5".into(),
        dst_ip: "2001:db8::1".into(),
        dst_port: 443,
        congestion_control: Some("cubic".into()),
        duration_seconds: Some(1.5),
        bytes_sent: Some(u64::MAX - 1),
        ..bare.clone()
    };
    assert_eq!(answer.connections, [full, bare]);

    let wrong = proto::ListConnectionsRequest { limit: Some(0), ..Default::default() };
    let refused = list(wrong).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().starts_with("limit: "), "{}", refused.message());
    let unknown = proto::ListConnectionsRequest { dst_port: Some(UNKNOWN_PORT.into()), ..Default::default() };
    assert_eq!(list(unknown).await.unwrap_err().code(), Code::FailedPrecondition);
}
