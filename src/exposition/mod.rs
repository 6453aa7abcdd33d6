//! How a snapshot looks on the wire. Encoders walk the snapshot and compute nothing; every format shows the same
//! values.

pub mod connections;
mod container;
pub mod event;
pub mod event_filter;
pub mod filter;
pub mod json;
pub mod openmetrics;
pub mod proto;
pub mod text;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::snapshot::{Kind, Snapshot};
use crate::status::Health;

/// The quantiles that formats with full histograms show, with their names in JSON.
pub const QUANTILES: [(&str, f64); 6] =
    [("p50", 0.5), ("p75", 0.75), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99), ("p999", 0.999)];

/// How the daemon fares, as probes see it.
#[derive(Debug, Clone)]
pub struct HealthReport {
    /// All in one word.
    pub status: Health,
    /// Metrics can be had.
    pub ready: bool,
    /// A restart would not help.
    pub alive: bool,
    /// When this was found out.
    pub timestamp: SystemTime,
    /// The last snapshot that came through, if any did.
    pub snapshot: Option<Arc<Snapshot>>,
}

/// Time since the Unix epoch; zero for a clock that is set before it.
fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// Name of a type in text formats and JSON.
fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    }
}
