//! The sections that belong to no other room.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{collectors, duration};

/// Doubling from 20 us to 41 ms, where most round trips are; then four times as far each, to 10 s.
const DEFAULT_BUCKETS: [f64; 16] = [
    0.00002, 0.00004, 0.00008, 0.00016, 0.00032, 0.00064, 0.00128, 0.00256, 0.00512, 0.01024, 0.02048, 0.04096,
    0.16384, 0.65536, 2.62144, 10.48576,
];

/// What is collected, and when.
#[derive(Debug, Serialize, Deserialize)]
pub struct Collector {
    /// Time between ticks: stream messages, expiry of idle series, renewed looks at who owns what.
    #[serde(with = "duration")]
    pub interval: Duration,
    /// Readers within this time share one collection.
    #[serde(with = "duration")]
    pub freshness: Duration,
    /// Names of the modules that run; at least one.
    pub modules: Vec<String>,
    /// Whether the operator has named them, and so accepts what hooks take from unrelated work.
    #[serde(skip)]
    pub named: bool,
    /// Programs that together take more of a CPU than this are paused, module by module; 0 for no bound.
    pub max_cpu_percent: f64,
    /// The time over which that is measured, and the shortest pause.
    #[serde(with = "duration")]
    pub max_cpu_window: Duration,
    /// A section for each module, beside the keys above and owned by it.
    #[serde(flatten)]
    pub sections: collectors::Config,
}

/// How collected numbers become series.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metrics {
    /// Bound on the label sets of each family.
    pub max_series: u32,
    /// A series without live connections disappears after this time.
    #[serde(with = "duration")]
    pub idle_ttl: Duration,
    /// Upper bounds of the buckets that `/metrics` shows, in seconds.
    pub histogram_buckets: Vec<f64>,
}

/// Where this daemon runs.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Name of the machine; empty if nobody told.
    pub name: String,
}

impl Default for Collector {
    fn default() -> Self {
        Collector {
            interval: Duration::from_secs(10),
            freshness: Duration::from_secs(1),
            modules: collectors::ALL.iter().map(|spec| spec.name.to_owned()).collect(),
            named: false,
            max_cpu_percent: 1.0,
            max_cpu_window: Duration::from_secs(60),
            sections: collectors::Config::default(),
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics { max_series: 10_000, idle_ttl: Duration::from_secs(300), histogram_buckets: DEFAULT_BUCKETS.to_vec() }
    }
}
