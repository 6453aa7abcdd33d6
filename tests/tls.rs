//! Both servers behind TLS.

mod common;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use common::client::proto::GetHealthRequest;
use common::client::proto::ebpf_metrics_client::EbpfMetricsClient;
use common::client::{Reply, converse, send};
use common::{file, sampler, snapshot, start, within};
use ebpf_sidecar::server::{Config, Limits, Servers, TlsConfig};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tonic::transport::Endpoint;

/// An authority, with what it signed in files for the server and in memory for a client.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    tls: TlsConfig,
}

impl Authority {
    fn new(name: &str) -> Authority {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let cert = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        let written = |what: &str, pem: String| -> Option<PathBuf> { Some(file(&format!("{name}-{what}.pem"), &pem)) };
        let tls = TlsConfig {
            cert_file: written("cert", cert.pem()),
            key_file: written("key", key.serialize_pem()),
            client_ca_file: None,
        };
        Authority { issuer, tls }
    }

    fn file(&self, name: &str) -> Option<PathBuf> {
        Some(file(&format!("{name}-ca.pem"), &self.issuer.pem()))
    }

    /// A client that trusts this authority and, if wanted, shows a certificate of it.
    fn client(&self, known: bool, protocol: &[u8]) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
        let mut client = if known {
            let key = KeyPair::generate().unwrap();
            let cert =
                CertificateParams::new(vec!["client".to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
            let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
            builder.with_client_auth_cert(vec![cert.der().clone()], key).unwrap()
        } else {
            builder.with_no_client_auth()
        };
        client.alpn_protocols = vec![protocol.to_vec()];
        TlsConnector::from(Arc::new(client))
    }
}

async fn connect(client: TlsConnector, to: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(to).await?;
    client.connect("localhost".try_into().unwrap(), stream).await
}

async fn get(client: TlsConnector, to: SocketAddr, path: &str) -> Reply {
    let mut stream = connect(client, to).await.unwrap();
    converse(&mut stream, &format!("GET {path} HTTP/1.1"), &[]).await
}

fn config(tls: &TlsConfig) -> Config {
    let mut config = Config::default();
    (config.http.tls, config.grpc.tls) = (tls.clone(), tls.clone());
    config
}

#[tokio::test]
async fn http_is_encrypted() {
    let authority = Authority::new("http");
    let server = start(config(&authority.tls), Limits::default(), sampler(|n| common::large(n, 20_000))).await;
    let reply = get(authority.client(false, b"http/1.1"), server.http, "/metrics").await;
    assert_eq!((reply.status, reply.text().lines().count()), (200, 20_002));
    let stranger = Authority::new("stranger");
    assert!(connect(stranger.client(false, b"http/1.1"), server.http).await.is_err());
}

#[tokio::test]
async fn grpc_is_encrypted() {
    let authority = Authority::new("grpc");
    let server = start(config(&authority.tls), Limits::default(), sampler(snapshot)).await;
    let (client, to) = (authority.client(false, b"h2"), server.grpc);
    let connector = tower::service_fn(move |_| {
        let client = client.clone();
        async move { connect(client, to).await.map(TokioIo::new) }
    });
    let channel = Endpoint::from_static("http://localhost").connect_with_connector(connector).await.unwrap();
    let health = within(EbpfMetricsClient::new(channel).get_health(GetHealthRequest {})).await.unwrap();
    assert!(health.into_inner().ready);
}

#[tokio::test]
async fn clients_may_have_to_show_a_certificate() {
    let authority = Authority::new("mutual");
    let tls = TlsConfig { client_ca_file: authority.file("mutual"), ..authority.tls.clone() };
    let server = start(config(&tls), Limits::default(), sampler(snapshot)).await;
    let reply = get(authority.client(true, b"http/1.1"), server.http, "/health").await;
    assert_eq!(reply.status, 200);
    // With TLS 1.3 the client learns of the refusal when it reads.
    let mut refused = connect(authority.client(false, b"http/1.1"), server.http).await.unwrap();
    let mut answer = Vec::new();
    assert!(within(refused.read_to_end(&mut answer)).await.is_err() && answer.is_empty());
}

#[tokio::test]
async fn who_does_not_encrypt_gets_nothing_and_holds_nothing() {
    let authority = Authority::new("plain");
    let limits = Limits { connections: 1, greeting: Duration::from_millis(200), ..Limits::default() };
    let server = start(config(&authority.tls), limits, sampler(snapshot)).await;
    // A handshake that is begun and left alone.
    let mut idle = TcpStream::connect(server.http).await.unwrap();
    idle.write_all(b"\x16\x03\x01").await.unwrap();
    let reply = within(get(authority.client(false, b"http/1.1"), server.http, "/health")).await;
    assert_eq!(reply.status, 200);
    let plain = tokio::spawn(async move { send(server.http, "GET /health HTTP/1.1", &[]).await.status });
    assert!(within(plain).await.is_err(), "there is no answer to parse");
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named_with_their_key() {
    let authority = Authority::new("broken");
    let refused = async |tls: TlsConfig, key: &str, file: &str| {
        let error = Servers::bind(&config(&tls), Limits::default()).await.unwrap_err().to_string();
        assert!(error.starts_with(&format!("server.http.tls.{key}: ")) && error.contains(file), "{error}");
    };
    let good = &authority.tls;
    refused(TlsConfig { cert_file: Some("/none.pem".into()), ..good.clone() }, "cert_file", "/none.pem").await;
    refused(TlsConfig { key_file: good.cert_file.clone(), ..good.clone() }, "key_file", "broken-cert.pem").await;
    let empty = Some(file("empty.pem", ""));
    refused(TlsConfig { client_ca_file: empty, ..good.clone() }, "client_ca_file", "empty.pem").await;
}
