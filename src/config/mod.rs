//! What the operator asked for: defaults, then a file, then the environment, then flags; the later beat the earlier.
//!
//! ```text
//! file, environment, flags --keys::Keys--> Setting { key, value, origin } --figment--> Config, checked, and Effective
//! ```
//!
//! The defaults are the only list of keys. Serialised, they say which keys exist, how the environment spells them and
//! whether the text `1` means a number, a string or a list of one. Each room of the house owns the type of its section.

mod effective;
mod environment;
mod error;
mod file;
mod keys;
mod limits;
mod sections;
mod setting;
mod shape;
mod yaml;

use std::path::Path;

use figment::Figment;
use serde::{Deserialize, Serialize};

pub use effective::Effective;
pub use environment::{CONFIG_VARIABLE, variable_of};
pub use error::ConfigError;
pub use sections::{Collector, Metrics, Node};
pub use setting::{Flag, Origin};

use crate::{collectors, event_log, identity, server, target, telemetry};
use keys::Keys;
use setting::{Defaults, Setting};

/// The whole configuration. Only the composer sees it; rooms get their section.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Listeners.
    pub server: server::Config,
    /// What is collected, and when.
    pub collector: Collector,
    /// What is watched.
    pub target: target::Config,
    /// How collected numbers become series.
    pub metrics: Metrics,
    /// The connection log.
    pub events: event_log::Config,
    /// Who works in a cgroup, and who is asked for that.
    pub identity: identity::Config,
    /// Where this daemon runs.
    pub node: Node,
    /// The daemon's own log.
    pub log: telemetry::Config,
}

impl Config {
    /// The defaults, with an item in the lists that are empty: it shows what such a list is made of.
    fn sample() -> Config {
        Config { target: target::Config::sample(), ..Config::default() }
    }
}

/// A configuration and the story of how it came to be.
#[derive(Debug)]
pub struct Loaded {
    /// What holds.
    pub config: Config,
    /// Each key with its value and where that came from.
    pub effective: Effective,
}

/// Loads and checks the configuration. `file` is what `--config` names; without it `EBPF_SIDECAR_CONFIG` may name one.
///
/// The environment is an argument, so that tests need not change that of their process.
///
/// # Errors
/// [`ConfigError`] for the first thing that is wrong, in one line.
pub fn load(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
    flags: &[Flag],
) -> Result<Loaded, ConfigError> {
    let keys = Keys::known();
    let environment = environment::read(environment, &keys)?;

    let mut settings = Vec::new();
    if let Some(path) = file {
        settings.extend(file::read(path, "--config", &keys)?);
    } else if let Some(path) = environment.file {
        settings.extend(file::read(&path, CONFIG_VARIABLE, &keys)?);
    }
    settings.extend(environment.settings);
    settings.extend(flags.iter().map(|flag| Setting::from_text(&keys, flag.key, &flag.value, Origin::Flag(flag.flag))));

    let figment = settings.iter().fold(Figment::from(Defaults), |layers, setting| layers.merge(setting));
    let mut config = figment.extract::<Config>().map_err(|error| blame(&settings, error))?;
    config.collector.modules = collectors::resolve(&config.collector.modules);
    config.collector.named = settings.iter().any(|setting| names_modules(setting, &keys));
    limits::check(&config).map_err(|refused| refused.in_context(&figment))?;
    Ok(Loaded { config, effective: Effective::new(&figment, &keys) })
}

/// Whether the operator has named modules, rather than copied the file that lists every key with its default.
fn names_modules(setting: &Setting, keys: &Keys) -> bool {
    let copied = matches!(setting.origin, Origin::File(_)) && keys.default_of(&setting.key) == Some(&setting.value);
    setting.key == "collector.modules" && !copied
}

/// Finds the setting that has the wrong type: the one that spoils the defaults. (The error alone does not always know
/// the key, because flattened sections lose it.)
fn blame(settings: &[Setting], error: figment::Error) -> ConfigError {
    let spoils = |setting| Figment::from(Defaults).merge(setting).extract::<Config>().err();
    settings
        .iter()
        .rev()
        .find_map(|setting| spoils(setting).map(|error| ConfigError::of_setting(setting, &error)))
        .unwrap_or_else(|| unreachable!("defaults have the right types, but: {error}"))
}

/// Every key there is, such as `server.http.port`, in alphabetical order.
pub fn keys() -> Vec<String> {
    Keys::known().leaves().map(str::to_owned).collect()
}

/// The environment of this process. What is not UTF-8 is shown with replacement characters, in errors as well.
pub fn process_environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
        .collect()
}
