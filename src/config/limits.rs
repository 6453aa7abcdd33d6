//! What is allowed beyond the right type.

use std::time::Duration;

use super::error::Refused;
use super::{Collector, Config, Metrics};
use crate::collectors;
use crate::event_log;
use crate::histogram::Bound;

/// More often than this, the ticks would cost more than what they look after.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);

/// A hundred CPUs.
const MOST_CPU: f64 = 10_000.0;

/// Nothing that was evicted comes back sooner.
const SHORTEST_WINDOW: Duration = Duration::from_millis(1);

const MOST_SERIES: u32 = 1_000_000;

/// Each boundary is a line of text for each series of a histogram.
const MOST_BUCKETS: usize = 64;

/// # Errors
/// [`Refused`] for the first value that is not allowed.
pub fn check(config: &Config) -> Result<(), Refused> {
    config.server.validate().map_err(|invalid| Refused { key: invalid.key, allowed: invalid.problem })?;
    config.target.validate().map_err(|invalid| Refused { key: invalid.key.to_owned(), allowed: invalid.allowed })?;
    config
        .identity
        .validate()
        .map_err(|(key, allowed)| Refused { key: key.to_owned(), allowed: allowed.to_owned() })?;
    collector(&config.collector)?;
    metrics(&config.metrics, config.collector.interval)?;
    events(&config.events)
}

fn collector(collector: &Collector) -> Result<(), Refused> {
    if collector.interval < SHORTEST_INTERVAL {
        return refuse("collector.interval", format!("it must be at least {}", human(SHORTEST_INTERVAL)));
    }
    if !(0.0..=MOST_CPU).contains(&collector.max_cpu_percent) {
        return refuse("collector.max_cpu_percent", format!("expected a number from 0 to {MOST_CPU}"));
    }
    if collector.max_cpu_window < SHORTEST_INTERVAL {
        return refuse("collector.max_cpu_window", format!("it must be at least {}", human(SHORTEST_INTERVAL)));
    }
    if collector.sections.fadvise.own.read_back_window < SHORTEST_WINDOW {
        return refuse("collector.fadvise.read_back_window", format!("it must be at least {}", human(SHORTEST_WINDOW)));
    }
    collector.sections.validate().map_err(|invalid| Refused { key: invalid.key, allowed: invalid.allowed })?;
    let names: Vec<_> = collectors::ALL.iter().map(|spec| spec.name).collect();
    let known = || names.join(", ");
    // An empty list is more likely a template that was not filled in than the wish to watch nothing.
    if collector.modules.is_empty() {
        return refuse("collector.modules", format!("name at least one of {}", known()));
    }
    for (position, module) in collector.modules.iter().enumerate() {
        if !names.contains(&module.as_str()) {
            return refuse("collector.modules", format!("there is no module {module}; there are {}", known()));
        }
        if collector.modules[..position].contains(module) {
            return refuse("collector.modules", format!("{module} is named twice"));
        }
    }
    Ok(())
}

fn metrics(metrics: &Metrics, interval: Duration) -> Result<(), Refused> {
    if !(1..=MOST_SERIES).contains(&metrics.max_series) {
        return refuse("metrics.max_series", format!("expected a whole number from 1 to {MOST_SERIES}"));
    }
    if metrics.idle_ttl < interval {
        let allowed = format!("it must be at least collector.interval, which is {}", human(interval));
        return refuse("metrics.idle_ttl", allowed);
    }
    let buckets = &metrics.histogram_buckets;
    if buckets.len() > MOST_BUCKETS {
        return refuse(
            "metrics.histogram_buckets",
            format!("expected at most {MOST_BUCKETS}, found {}", buckets.len()),
        );
    }
    for &bucket in buckets {
        if let Err(not_recorded) = Bound::new(bucket) {
            return refuse("metrics.histogram_buckets", not_recorded.to_string());
        }
    }
    if let Some(pair) = buckets.windows(2).find(|pair| pair[0] >= pair[1]) {
        return refuse("metrics.histogram_buckets", format!("they must ascend, and {} follows {}", pair[1], pair[0]));
    }
    Ok(())
}

fn events(events: &event_log::Config) -> Result<(), Refused> {
    if matches!(&*events.output, "" | "-" | "stderr") {
        let allowed = "expected stdout, or the path of a file; what the daemon says of itself goes to stderr";
        return refuse("events.output", allowed.to_owned());
    }
    if (1..event_log::Config::SMALLEST).contains(&events.max_size) {
        return refuse("events.max_size", "expected 0, for no bound, or at least 1MiB".to_owned());
    }
    if events.max_files > event_log::Config::MOST_FILES {
        let allowed = format!("expected a whole number from 0 to {}", event_log::Config::MOST_FILES);
        return refuse("events.max_files", allowed);
    }
    Ok(())
}

fn refuse(key: &'static str, allowed: String) -> Result<(), Refused> {
    Err(Refused { key: key.to_owned(), allowed })
}

fn human(duration: Duration) -> humantime::FormattedDuration {
    humantime::format_duration(duration)
}
