//! HTTP/1.1: `/metrics` for Prometheus, probes for Kubernetes, JSON for programs and a page for people.

mod answer;
mod body;
mod negotiate;
mod page;
mod parameters;

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;

use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::listen::Listener;
use super::{Context, Invalid, TlsConfig, stopped};
use answer::Server;

/// Once a request has begun, its headers have a time limit of their own.
pub(super) const GREETING: usize = 1;

/// Room for the request line and headers; beyond it is 431.
const HEADER_BYTES: usize = 16 * 1024;
const HEADERS: usize = 64;

/// Responses are one piece each; this is for reading ahead.
const BUFFER_BYTES: usize = 32 * 1024;

/// Section `server.http` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "snake_case")]
pub struct Config {
    /// Where to listen; other machines need something else than loopback.
    pub address: IpAddr,
    /// The port; 0 takes a free one.
    pub port: u16,
    /// Path of the metrics.
    pub metrics_path: String,
    /// Encryption.
    pub tls: TlsConfig,
    /// Who may ask.
    pub auth: AuthConfig,
}

/// Section `server.http.auth` of the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "snake_case")]
pub struct AuthConfig {
    /// A file with the token that every request but probes must carry. Read at start.
    pub bearer_token_file: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            address: Ipv4Addr::LOCALHOST.into(),
            port: 8080,
            metrics_path: "/metrics".to_owned(),
            tls: TlsConfig::default(),
            auth: AuthConfig::default(),
        }
    }
}

impl Config {
    /// Checks what types alone cannot. `section` is the key of this section.
    ///
    /// # Errors
    /// The first value that cannot work.
    pub fn validate(&self, section: &str) -> Result<(), Invalid> {
        let path = &self.metrics_path;
        let plain = |c: char| c.is_ascii_alphanumeric() || "/-._~".contains(c);
        let problem = if !path.starts_with('/') || !path.chars().all(plain) {
            format!("{path:?} is not a path: it begins with / and has letters, digits and -._~ only")
        } else if let Some(taken) = answer::FIXED_PATHS.iter().find(|(taken, _)| taken == path) {
            format!("{} is taken by another page", taken.0)
        } else {
            return self.tls.validate(&format!("{section}.tls"));
        };
        Err(Invalid { key: format!("{section}.metrics_path"), problem })
    }
}

/// What is read before the sockets are bound.
#[derive(Debug)]
pub(super) struct Settings {
    metrics_path: String,
    token: Option<Token>,
}

/// What a request must carry. Not to be printed.
struct Token(Vec<u8>);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

impl Settings {
    pub(super) fn load(config: &Config) -> Result<Settings, Invalid> {
        let token = config.auth.bearer_token_file.as_deref().map(|path| {
            let invalid = |problem: &dyn std::fmt::Display| Invalid {
                key: "server.http.auth.bearer_token_file".into(),
                problem: format!("{}: {problem}", path.display()),
            };
            let token = std::fs::read(path).map_err(|error| invalid(&error))?;
            match token.trim_ascii() {
                // An empty token would let everybody in.
                [] => Err(invalid(&"the file is empty")),
                token => Ok(Token(token.to_vec())),
            }
        });
        Ok(Settings { metrics_path: config.metrics_path.clone(), token: token.transpose()? })
    }
}

/// Accepts and answers until `stop`, then lets requests that have begun finish.
pub(super) async fn serve(listener: Listener, settings: Settings, context: Arc<Context>, stop: watch::Receiver<bool>) {
    let limits = listener.limits();
    let server = Arc::new(Server { settings, context });
    let mut protocol = http1::Builder::new();
    protocol
        .timer(TokioTimer::new())
        .header_read_timeout(limits.headers)
        .max_header_size(HEADER_BYTES)
        .max_headers(HEADERS)
        .max_buf_size(BUFFER_BYTES);
    let graceful = GracefulShutdown::new();
    let crowd = listener.crowd();
    let mut end = pin!(stopped(stop));
    loop {
        let connection = tokio::select! {
            connection = listener.accept() => connection,
            () = &mut end => break,
        };
        let server = Arc::clone(&server);
        let crowd = crowd.clone();
        let service = service_fn(move |request| {
            let (server, crowd) = (Arc::clone(&server), crowd.clone());
            async move {
                let mut answer = server.answer(request).await;
                // Clients that sit idle on answered connections must not keep others out.
                if let (true, Ok(response)) = (crowd.is_dense(), &mut answer) {
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                answer
            }
        });
        let conversation = graceful.watch(protocol.serve_connection(TokioIo::new(connection), service));
        tokio::spawn(async move {
            if let Err(error) = conversation.await {
                tracing::debug!(%error, "HTTP connection ended early");
            }
        });
    }
    drop(listener);
    let open = graceful.count();
    if tokio::time::timeout(limits.drain, graceful.shutdown()).await.is_err() {
        tracing::warn!(open, "HTTP connections are still open; giving up on them");
    }
}
