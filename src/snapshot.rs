//! What was true at one moment: plain data between the collectors, which fill it, and the encoders, which only walk it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::histogram::{Bound, Histogram};
use crate::status::ModuleReport;

/// All metrics of one collection. Readers share it and cannot change it.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Grows by one with every collection.
    pub sequence: u64,
    /// When the collection ended.
    pub taken_at: SystemTime,
    /// For how long the daemon had been running.
    pub uptime: Duration,
    /// Name of this node, from the configuration; may be empty.
    pub node: Arc<str>,
    /// How the modules fare, in the order of the configuration's list of all modules.
    pub modules: Vec<ModuleReport>,
    /// How those fare that help the modules, in the same form.
    pub helpers: Vec<ModuleReport>,
    /// In the order of the modules, within a module in the order of its declarations. Families without samples are
    /// left out: what cannot be known is absent, never zero.
    pub families: Vec<Family>,
    /// The bucket boundaries that text formats show; the same for every histogram.
    pub bounds: Arc<[Bound]>,
}

/// What a family means: written once, beside the collector that fills it.
#[derive(Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// As `/metrics` shows it; counters end in `_total`.
    pub name: &'static str,
    /// One sentence a stranger can use.
    pub help: &'static str,
    /// Base unit, or empty for plain counts.
    pub unit: &'static str,
    /// What may be done with the values.
    pub kind: Kind,
    /// The module it belongs to; `self` for the daemon's own.
    pub module: &'static str,
}

/// Type of a family, as Prometheus knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only ever grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution of times.
    Histogram,
}

/// One family with its samples. No two samples have the same labels.
#[derive(Debug, Clone)]
pub struct Family {
    /// Name, help, unit and type.
    pub descriptor: &'static Descriptor,
    /// One for each label set.
    pub samples: Vec<Sample>,
}

/// One value with its labels.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Shared by all families that have a sample for the same thing.
    pub labels: Labels,
    /// The value.
    pub value: Value,
}

/// A value: an integer where things are counted, so that no byte is lost in a float.
#[derive(Debug, Clone)]
pub enum Value {
    /// A count.
    Integer(u64),
    /// A quantity, such as seconds.
    Number(f64),
    /// A distribution, in full resolution.
    Histogram(Arc<Histogram>),
}

/// Names and values in the order in which they are shown. Names are plain identifiers; values are any text.
pub type Labels = Arc<[(&'static str, Box<str>)]>;

/// Builds [`Labels`]; empty values are left out, as Prometheus does not tell them from absent ones.
pub fn labels<const N: usize>(pairs: [(&'static str, &str); N]) -> Labels {
    pairs.into_iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| (name, value.into())).collect()
}

impl Descriptor {
    /// A count, in `unit` or of plain things.
    pub const fn counter(module: &'static str, name: &'static str, unit: &'static str, help: &'static str) -> Self {
        Descriptor { name, help, unit, kind: Kind::Counter, module }
    }

    /// What goes up and down.
    pub const fn gauge(module: &'static str, name: &'static str, unit: &'static str, help: &'static str) -> Self {
        Descriptor { name, help, unit, kind: Kind::Gauge, module }
    }

    /// A distribution of times, in seconds.
    pub const fn histogram(module: &'static str, name: &'static str, help: &'static str) -> Self {
        Descriptor { name, help, unit: "seconds", kind: Kind::Histogram, module }
    }
}

impl Family {
    /// A family that has no samples yet.
    pub fn new(descriptor: &'static Descriptor) -> Self {
        Family { descriptor, samples: Vec::new() }
    }

    /// Adds a sample that counts whole things.
    pub fn integer(&mut self, labels: Labels, value: u64) {
        self.samples.push(Sample { labels, value: Value::Integer(value) });
    }

    /// Adds a sample that is a quantity.
    pub fn number(&mut self, labels: Labels, value: f64) {
        self.samples.push(Sample { labels, value: Value::Number(value) });
    }

    /// Adds a distribution.
    pub fn histogram(&mut self, labels: Labels, value: Histogram) {
        self.samples.push(Sample { labels, value: Value::Histogram(Arc::new(value)) });
    }
}
