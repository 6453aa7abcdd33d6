//! The two listeners and what they share. Sockets are bound before anything else starts, so that a port in use is an
//! error at once; serving begins later and ends when the connections have drained.

pub mod grpc;
mod health;
pub mod http;
mod listen;
mod tls;

use std::net::SocketAddr;
use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::connections::query::MAX_LIMIT;
use crate::connections::{Field, Listing, Query};
use crate::events::Events;
use crate::sampler::{ConnectionsError, SampleError, Sampler};
use crate::snapshot::Snapshot;
use health::Probe;
pub use listen::Limits;
use listen::Listener;
pub use tls::Config as TlsConfig;

/// Section `server` of the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "snake_case")]
pub struct Config {
    /// The gRPC server.
    pub grpc: grpc::Config,
    /// The HTTP server.
    pub http: http::Config,
}

/// A value that cannot work, and under which key.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{key}: {problem}")]
pub struct Invalid {
    /// The key in full, such as `server.http.metrics_path`.
    pub key: String,
    /// What is wrong, and what is allowed.
    pub problem: String,
}

/// Why the servers cannot start.
#[derive(Debug, Error)]
pub enum BindError {
    /// The address cannot be had.
    #[error("cannot listen on {address} ({key})")]
    Listen {
        /// The key that names the port.
        key: &'static str,
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// A file that the configuration names cannot be used.
    #[error(transparent)]
    File(#[from] Invalid),
}

/// Both servers, with their addresses taken and nobody answering yet.
#[derive(Debug)]
pub struct Servers {
    http: Listener,
    grpc: Listener,
    settings: http::Settings,
}

/// What the servers answer from.
#[derive(Debug)]
struct Context {
    sampler: Sampler,
    events: Events,
    probe: Probe,
    /// Encoding a large snapshot keeps a core busy: only as many at a time as there are.
    encoders: Semaphore,
    /// Rows of lists that are being made or sent, so that slow readers of long lists cannot fill the memory.
    rows: Arc<Semaphore>,
}

/// Rows of all lists together; the longest one has a quarter of them. A row takes about 1.5 kB until it is sent.
const ROWS: usize = 4 * MAX_LIMIT;

/// How long a reader of a list waits for room.
const ROOM: Duration = Duration::from_secs(10);

/// Values of a connection.
const NUMBERS: usize = Field::ALL.len();

/// Fewer values are encoded where they are asked for: handing them over would take longer.
const SMALL: usize = 1000;

impl Config {
    /// Checks what types alone cannot.
    ///
    /// # Errors
    /// The first value that cannot work.
    pub fn validate(&self) -> Result<(), Invalid> {
        self.http.validate("server.http")?;
        self.grpc.tls.validate("server.grpc.tls")?;
        let (http, grpc) = (&self.http, &self.grpc);
        let same_address =
            http.address == grpc.address || http.address.is_unspecified() || grpc.address.is_unspecified();
        if same_address && http.port == grpc.port && http.port != 0 {
            let problem = format!("{} is the port of server.grpc too; each needs its own", http.port);
            return Err(Invalid { key: "server.http.port".into(), problem });
        }
        Ok(())
    }
}

impl Servers {
    /// Takes the addresses and reads certificates and tokens.
    ///
    /// # Errors
    /// If an address is in use or a file cannot be used; the error names the key.
    pub async fn bind(config: &Config, limits: Limits) -> Result<Servers, BindError> {
        let Config { grpc, http } = config;
        config.validate()?;
        let settings = http::Settings::load(http)?;
        let tls = tls::acceptor(&http.tls, "server.http.tls", &[b"http/1.1"])?;
        let address = (http.address, http.port).into();
        let http = Listener::bind("server.http.port", address, tls, http::GREETING, limits).await?;

        let tls = tls::acceptor(&grpc.tls, "server.grpc.tls", &[b"h2"])?;
        let address = (grpc.address, grpc.port).into();
        let grpc = Listener::bind("server.grpc.port", address, tls, grpc::GREETING, limits).await?;
        Ok(Servers { http, grpc, settings })
    }

    /// Where HTTP is served.
    pub fn http_address(&self) -> SocketAddr {
        self.http.address()
    }

    /// Where gRPC is served.
    pub fn grpc_address(&self) -> SocketAddr {
        self.grpc.address()
    }

    /// Answers until `stop` becomes true or its sender is gone, then drains: streams end with UNAVAILABLE, requests
    /// that have begun are finished, for as long as [`Limits::drain`] allows.
    pub async fn serve(self, sampler: Sampler, events: Events, stream_interval: Duration, stop: watch::Receiver<bool>) {
        let context = Arc::new(Context::new(sampler, events));
        tokio::join!(
            http::serve(self.http, self.settings, Arc::clone(&context), stop.clone()),
            grpc::serve(self.grpc, context, stream_interval, stop),
        );
    }
}

impl Context {
    fn new(sampler: Sampler, events: Events) -> Context {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        Context {
            probe: Probe::new(sampler.clone()),
            sampler,
            events,
            encoders: Semaphore::new(cores),
            rows: Arc::new(Semaphore::new(ROWS)),
        }
    }

    async fn snapshot(&self) -> Result<Arc<Snapshot>, SampleError> {
        self.sampler.snapshot().await
    }

    /// A list of live connections, and the room that it takes for as long as it is there in some form.
    async fn connections(&self, query: Query) -> Result<(Listing, OwnedSemaphorePermit), ConnectionsError> {
        let rows = Arc::clone(&self.rows).acquire_many_owned(query.limit as u32);
        let room = tokio::time::timeout(ROOM, rows).await.map_err(|_| ConnectionsError::Busy)?;
        let mut room = room.expect("the semaphore is never closed");
        let listing = self.sampler.connections(query).await?;
        // Most lists are shorter than they might have been.
        drop(room.split(room.num_permits() - listing.connections.len()));
        Ok((listing, room))
    }

    /// Runs an encoder, away from the threads that serve connections if it will take long.
    async fn encode<T, F>(&self, snapshot: Arc<Snapshot>, encoder: F) -> T
    where
        T: Send + 'static,
        F: FnOnce(&Arc<Snapshot>) -> T + Send + 'static,
    {
        let size = snapshot.families.iter().map(|family| family.samples.len()).sum();
        self.work(size, move || encoder(&snapshot)).await
    }

    /// The same for a list.
    async fn encode_listing<T, F>(&self, listing: Listing, encoder: F) -> T
    where
        T: Send + 'static,
        F: FnOnce(&Listing) -> T + Send + 'static,
    {
        let size = listing.connections.len() * NUMBERS;
        self.work(size, move || encoder(&listing)).await
    }

    /// Does something about so many values.
    async fn work<T: Send + 'static>(&self, size: usize, work: impl FnOnce() -> T + Send + 'static) -> T {
        if size < SMALL {
            return work();
        }
        let _turn = self.encoders.acquire().await.expect("the semaphore is never closed");
        tokio::task::spawn_blocking(work).await.expect("encoders do not panic")
    }
}

/// Waits for the end.
async fn stopped(mut stop: watch::Receiver<bool>) {
    // An error means that the sender is gone, which is the end as well.
    let _ = stop.wait_for(|stop| *stop).await;
}
