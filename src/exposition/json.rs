//! The bodies of the HTTP API, written while walking the snapshot. Histograms appear in full resolution; an upper end
//! that is infinite, and a quantity that is not a number, is `null`.

use std::io;
use std::sync::Arc;

use serde::Serialize;
use serde::ser::Serializer;

use super::{HealthReport, QUANTILES, kind_name, since_epoch};
use crate::histogram::Histogram;
use crate::snapshot::{Family, Sample, Snapshot, Value};
use crate::status::{HookReport, MapReport, ModuleReport, ProgramReport, Status, health as rolled_up};

/// What an HTTP response calls it.
pub const CONTENT_TYPE: &str = "application/json";

/// Writes the body of `/api/v1/stats`: everything, by module.
///
/// # Errors
/// Those of the writer.
pub fn stats(snapshot: &Snapshot, out: &mut impl io::Write) -> io::Result<()> {
    #[derive(Serialize)]
    struct Stats<'a, M> {
        status: &'static str,
        node: &'a str,
        uptime_seconds: f64,
        total_modules: usize,
        total_metrics: usize,
        modules: M,
    }
    let modules = Map(|| {
        let reported = snapshot.modules.iter().map(|report| (report.name, report.status, &report.hooks[..]));
        reported.chain(own(snapshot)).map(|(name, status, hooks)| (name, module(snapshot, name, status, hooks)))
    });
    let body = Stats {
        status: rolled_up(&snapshot.modules).as_str(),
        node: &snapshot.node,
        uptime_seconds: snapshot.uptime.as_secs_f64(),
        total_modules: snapshot.modules.len(),
        total_metrics: snapshot.families.len(),
        modules,
    };
    Ok(serde_json::to_writer(out, &body)?)
}

/// Writes the body of `/api/v1/modules`: states, hooks, reasons and costs.
///
/// # Errors
/// Those of the writer.
pub fn modules(snapshot: &Snapshot, out: &mut impl io::Write) -> io::Result<()> {
    #[derive(Serialize)]
    struct Modules<M, H> {
        modules: M,
        helpers: H,
    }
    let modules = Seq(|| snapshot.modules.iter().map(state));
    let helpers = Seq(|| snapshot.helpers.iter().map(state));
    Ok(serde_json::to_writer(out, &Modules { modules, helpers })?)
}

fn state(report: &ModuleReport) -> impl Serialize + '_ {
    #[derive(Serialize)]
    struct State<'a, H, P, M> {
        name: &'a str,
        summary: &'a str,
        status: &'static str,
        reason: &'a str,
        hooks: H,
        programs: P,
        maps: M,
    }
    let ModuleReport { name, summary, status, reason, hooks, programs, maps, .. } = report;
    State {
        name,
        summary,
        status: status.as_str(),
        reason,
        hooks: Seq(|| hooks.iter().map(hook)),
        programs: Seq(|| programs.iter().map(program)),
        maps: Seq(|| maps.iter().map(map)),
    }
}

/// Writes the body of `/health` and its relatives.
///
/// # Errors
/// Those of the writer.
pub fn health(report: &HealthReport, out: &mut impl io::Write) -> io::Result<()> {
    #[derive(Serialize)]
    struct Body<M> {
        status: &'static str,
        ready: bool,
        alive: bool,
        timestamp: u64,
        modules: M,
    }
    let body = Body {
        status: report.status.as_str(),
        ready: report.ready,
        alive: report.alive,
        timestamp: since_epoch(report.timestamp).as_secs(),
        modules: Map(|| {
            let reports = report.snapshot.iter().flat_map(|snapshot| &snapshot.modules);
            reports.map(|module| (module.name, module.status.as_str()))
        }),
    };
    Ok(serde_json::to_writer(out, &body)?)
}

/// Families of the daemon itself belong to a module that has no report, and runs as long as it answers.
fn own(snapshot: &Snapshot) -> Option<(&'static str, Status, &[HookReport])> {
    let reported = |name| snapshot.modules.iter().any(|report| report.name == name);
    let family = snapshot.families.iter().find(|family| !reported(family.descriptor.module))?;
    Some((family.descriptor.module, Status::Running, &[]))
}

fn module<'a>(snapshot: &'a Snapshot, name: &'a str, status: Status, hooks: &'a [HookReport]) -> impl Serialize + 'a {
    #[derive(Serialize)]
    struct Module<H, M> {
        status: &'static str,
        hooks: H,
        metrics: M,
    }
    Module {
        status: status.as_str(),
        hooks: Seq(move || hooks.iter().map(hook)),
        metrics: Seq(move || {
            snapshot.families.iter().filter(move |family| family.descriptor.module == name).map(metric)
        }),
    }
}

fn metric(Family { descriptor, samples }: &Family) -> impl Serialize + '_ {
    #[derive(Serialize)]
    struct Metric<'a, S> {
        name: &'a str,
        r#type: &'a str,
        help: &'a str,
        unit: &'a str,
        samples: S,
    }
    Metric {
        name: descriptor.name,
        r#type: kind_name(descriptor.kind),
        help: descriptor.help,
        unit: descriptor.unit,
        samples: Seq(|| samples.iter().map(sample)),
    }
}

fn sample(Sample { labels, value }: &Sample) -> impl Serialize + '_ {
    #[derive(Serialize)]
    struct Flat<L, V> {
        labels: L,
        #[serde(flatten)]
        value: V,
    }
    #[derive(Serialize)]
    #[serde(untagged)]
    enum Shown<D> {
        Integer { value: u64 },
        Number { value: f64 },
        Distribution(D),
    }
    Flat {
        labels: Map(|| labels.iter().map(|(name, value)| (*name, &**value))),
        value: match value {
            Value::Integer(value) => Shown::Integer { value: *value },
            Value::Number(value) => Shown::Number { value: *value },
            Value::Histogram(histogram) => Shown::Distribution(distribution(histogram)),
        },
    }
}

fn distribution(histogram: &Arc<Histogram>) -> impl Serialize + '_ {
    #[derive(Serialize)]
    struct Distribution<Q, B> {
        count: u64,
        sum: f64,
        quantiles: Q,
        buckets: B,
    }
    #[derive(Serialize)]
    struct Bucket {
        lower: f64,
        upper: f64,
        count: u64,
    }
    Distribution {
        count: histogram.count(),
        sum: histogram.sum(),
        quantiles: Map(|| QUANTILES.iter().map(|(name, q)| (*name, histogram.quantile(*q)))),
        buckets: Seq(|| histogram.buckets().map(|(lower, upper, count)| Bucket { lower, upper, count })),
    }
}

fn hook(report: &HookReport) -> impl Serialize + '_ {
    let HookReport { name, kind, target, tax, enters: _, forced, reason } = report;
    #[derive(Serialize)]
    struct Hook<'a> {
        name: &'a str,
        kind: Option<&'static str>,
        target: &'static str,
        cost: &'static str,
        tax: &'a str,
        forced: &'a bool,
        reason: &'a str,
    }
    Hook { name, kind: kind.map(|kind| kind.as_str()), target, cost: report.cost().as_str(), tax, forced, reason }
}

fn program(ProgramReport { name, runs, run_ns, missed, .. }: &ProgramReport) -> impl Serialize + '_ {
    #[derive(Serialize)]
    struct Program<'a> {
        name: &'a str,
        runs: u64,
        run_seconds: f64,
        missed: Option<u64>,
    }
    Program { name, runs: *runs, run_seconds: *run_ns as f64 / 1e9, missed: *missed }
}

fn map(MapReport { name, entries, bytes, full }: &MapReport) -> impl Serialize + '_ {
    #[derive(Serialize)]
    struct Map<'a> {
        name: &'a str,
        entries: Option<u64>,
        bytes: u64,
        full: Option<u64>,
    }
    Map { name, entries: *entries, bytes: *bytes, full: *full }
}

/// An array that is written from an iterator.
struct Seq<F>(F);

impl<F, I> Serialize for Seq<F>
where
    F: Fn() -> I,
    I: IntoIterator<Item: Serialize>,
{
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq((self.0)())
    }
}

/// An object that is written from an iterator.
struct Map<F>(F);

impl<F, I, K, V> Serialize for Map<F>
where
    F: Fn() -> I,
    I: IntoIterator<Item = (K, V)>,
    K: Serialize,
    V: Serialize,
{
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map((self.0)())
    }
}
