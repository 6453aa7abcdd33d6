//! The typed messages of gRPC.

use prost::encoding;

use super::filter::Filter;
use super::{HealthReport, QUANTILES, since_epoch};
use crate::histogram::Histogram;
use crate::proto;
use crate::snapshot::{Family, Kind, Labels, Sample, Snapshot, Value};
use crate::status::{Health, HookReport, MapReport, ModuleReport, ProgramReport, Status};

/// What of a snapshot a filter lets through. Families without a matching sample are left out.
pub fn snapshot(snapshot: &Snapshot, filter: &Filter) -> proto::Snapshot {
    let wanted = snapshot.families.iter().filter(|family| filter.admits(family.descriptor));
    proto::Snapshot {
        sequence: snapshot.sequence,
        // Nanoseconds fit until the year 2554.
        timestamp_unix_nano: since_epoch(snapshot.taken_at).as_nanos() as u64,
        node: snapshot.node.to_string(),
        families: wanted.filter_map(|each| family(each, filter)).collect(),
    }
}

/// The modules with their hooks, programs and maps.
pub fn modules(snapshot: &Snapshot) -> proto::ListModulesResponse {
    proto::ListModulesResponse {
        modules: snapshot.modules.iter().map(module).collect(),
        helpers: snapshot.helpers.iter().map(module).collect(),
    }
}

/// How the daemon fares.
pub fn health(report: &HealthReport) -> proto::GetHealthResponse {
    let modules = report.snapshot.iter().flat_map(|snapshot| &snapshot.modules);
    let status = match report.status {
        Health::Healthy => proto::Health::Healthy,
        Health::Degraded => proto::Health::Degraded,
        Health::Unhealthy => proto::Health::Unhealthy,
    };
    proto::GetHealthResponse {
        status: status.into(),
        ready: report.ready,
        alive: report.alive,
        timestamp: since_epoch(report.timestamp).as_secs(),
        modules: modules.map(|module| (module.name.to_owned(), module_status(module.status).into())).collect(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_seconds: report.snapshot.as_ref().map_or(0.0, |snapshot| snapshot.uptime.as_secs_f64()),
    }
}

/// A family in its bytes, sample by sample; `None` if no sample is wanted.
fn family(Family { descriptor, samples }: &Family, filter: &Filter) -> Option<proto::Encoded> {
    let kind = match descriptor.kind {
        Kind::Counter => proto::MetricType::Counter,
        Kind::Gauge => proto::MetricType::Gauge,
        Kind::Histogram => proto::MetricType::Histogram,
    };
    let mut wanted = samples.iter().filter(|sample| filter.admits_sample(&sample.labels)).peekable();
    wanted.peek()?;
    // The tags are those of MetricFamily in proto/; a client in tests/ reads them back.
    let mut bytes = Vec::new();
    for (tag, text) in [(1, descriptor.name), (2, descriptor.help), (3, descriptor.unit), (5, descriptor.module)] {
        encoding::string::encode(tag, &text.to_owned(), &mut bytes);
    }
    encoding::int32::encode(4, &kind.into(), &mut bytes);
    wanted.for_each(|each| encoding::message::encode(6, &sample(each), &mut bytes));
    Some(proto::Encoded(bytes))
}

fn sample(Sample { labels, value }: &Sample) -> proto::Sample {
    let value = match value {
        Value::Integer(value) => proto::sample::Value::Integer(*value),
        Value::Number(value) => proto::sample::Value::Number(*value),
        Value::Histogram(value) => proto::sample::Value::Histogram(histogram(value)),
    };
    proto::Sample { labels: label_map(labels), value: Some(value) }
}

fn label_map(labels: &Labels) -> std::collections::HashMap<String, String> {
    labels.iter().map(|(name, value)| ((*name).to_owned(), value.to_string())).collect()
}

fn histogram(histogram: &Histogram) -> proto::Histogram {
    let quantiles = QUANTILES
        .iter()
        .filter_map(|&(_, quantile)| histogram.quantile(quantile).map(|value| proto::Quantile { quantile, value }));
    proto::Histogram {
        count: histogram.count(),
        sum: histogram.sum(),
        buckets: histogram.buckets().map(|(lower, upper, count)| proto::Bucket { lower, upper, count }).collect(),
        quantiles: quantiles.collect(),
    }
}

fn module(report: &ModuleReport) -> proto::Module {
    proto::Module {
        name: report.name.to_owned(),
        summary: report.summary.to_owned(),
        status: module_status(report.status).into(),
        reason: report.reason.clone(),
        hooks: report.hooks.iter().map(hook).collect(),
        programs: report.programs.iter().map(program).collect(),
        maps: report.maps.iter().map(map).collect(),
    }
}

fn module_status(status: Status) -> proto::ModuleStatus {
    match status {
        Status::Running => proto::ModuleStatus::Running,
        Status::Degraded => proto::ModuleStatus::Degraded,
        Status::Unsupported => proto::ModuleStatus::Unsupported,
        Status::Failed => proto::ModuleStatus::Failed,
        Status::Disabled => proto::ModuleStatus::Disabled,
    }
}

fn hook(report: &HookReport) -> proto::Hook {
    proto::Hook {
        name: report.name.to_owned(),
        kind: report.kind.map_or("", |kind| kind.as_str()).to_owned(),
        target: report.target.to_owned(),
        cost: report.cost().as_str().to_owned(),
        tax: report.tax.to_owned(),
        forced: report.forced,
        reason: report.reason.clone(),
    }
}

fn program(report: &ProgramReport) -> proto::Program {
    let run_seconds = report.run_ns as f64 / 1e9;
    proto::Program { name: report.name.clone(), runs: report.runs, run_seconds, missed: report.missed }
}

fn map(report: &MapReport) -> proto::Map {
    proto::Map { name: report.name.clone(), entries: report.entries, bytes: report.bytes, full: report.full }
}
