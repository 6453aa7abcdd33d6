//! gRPC: the service of `proto/`, health for load balancers and reflection for tools.

mod events;
mod health;
mod service;
mod stream;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{Stream, unfold};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tonic::codec::CompressionEncoding;
use tonic::transport::Server;
use tonic_health::pb::health_server::HealthServer;

use super::listen::{Connection, Listener};
use super::{Context, TlsConfig, stopped};
use crate::proto::DESCRIPTORS;
use crate::proto::ebpf_metrics_server::EbpfMetricsServer;
use service::Service;

/// The preface of HTTP/2 in full: keepalive begins after it.
pub(super) const GREETING: usize = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len();

/// Requests are small: a filter, at most.
const REQUEST_BYTES: usize = 64 * 1024;

/// Calls that one connection may have open, streams included.
const CONCURRENT_CALLS: u32 = 32;

/// A client that has not answered for the sum of these is gone.
const KEEPALIVE: Duration = Duration::from_secs(20);
const KEEPALIVE_ANSWER: Duration = Duration::from_secs(10);

/// Section `server.grpc` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "snake_case")]
pub struct Config {
    /// Where to listen; other machines need something else than loopback.
    pub address: IpAddr,
    /// The port; 0 takes a free one.
    pub port: u16,
    /// Encryption.
    pub tls: TlsConfig,
}

impl Default for Config {
    fn default() -> Self {
        Config { address: Ipv4Addr::LOCALHOST.into(), port: 9090, tls: TlsConfig::default() }
    }
}

/// Accepts and answers until `stop`, then lets calls that have begun finish.
pub(super) async fn serve(
    listener: Listener,
    context: Arc<Context>,
    stream_interval: Duration,
    stop: watch::Receiver<bool>,
) {
    let limits = listener.limits();
    let service = Service::new(Arc::clone(&context), stream_interval, stop.clone());
    let metrics = EbpfMetricsServer::new(service)
        .accept_compressed(CompressionEncoding::Gzip)
        .send_compressed(CompressionEncoding::Gzip)
        .max_decoding_message_size(REQUEST_BYTES);
    let health =
        HealthServer::new(health::Service::new(context, stop.clone())).max_decoding_message_size(REQUEST_BYTES);
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let reflected = "the descriptors were written by the compiler of the protocol";

    let serving = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_ANSWER))
        .max_concurrent_streams(CONCURRENT_CALLS)
        .http2_max_header_list_size(16 * 1024)
        .add_service(metrics)
        .add_service(health)
        .add_service(reflection().build_v1().expect(reflected))
        // Clients in several languages still ask in the old way only.
        .add_service(reflection().build_v1alpha().expect(reflected))
        .serve_with_incoming_shutdown(incoming(listener), stopped(stop.clone()));
    let patience = async move {
        stopped(stop).await;
        tokio::time::sleep(limits.drain).await;
    };
    tokio::select! {
        served = serving => {
            if let Err(error) = served {
                tracing::error!(%error, "the gRPC server ended");
            }
        }
        () = patience => tracing::warn!("gRPC connections are still open; giving up on them"),
    }
}

fn incoming(listener: Listener) -> impl Stream<Item = Result<Connection, std::convert::Infallible>> {
    unfold(listener, |listener| async {
        let connection = listener.accept().await;
        Some((Ok(connection), listener))
    })
}
