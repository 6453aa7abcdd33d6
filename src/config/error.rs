//! What can be wrong with a configuration, in one line each.

use std::path::PathBuf;

use figment::Figment;
use figment::error::Kind;
use thiserror::Error;

use super::setting::Setting;
use super::shape;

/// Why there is no configuration.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// A value that is not allowed.
    #[error("{key} = {value} ({origin}): {allowed}")]
    Invalid {
        /// Such as `server.http.port`.
        key: String,
        /// As YAML.
        value: String,
        /// The file, the variable or the flag.
        origin: String,
        /// What would be.
        allowed: String,
    },
    /// A key in a file that does not exist.
    #[error("{key} ({origin}): there is no such key{}", suggestion(nearest))]
    UnknownKey {
        /// As written.
        key: String,
        /// The file.
        origin: String,
        /// What was probably meant.
        nearest: Option<String>,
    },
    /// An environment variable with our prefix that sets nothing.
    #[error("environment variable {name}: it sets no key{}", suggestion(nearest))]
    UnknownVariable {
        /// As written.
        name: String,
        /// What was probably meant.
        nearest: Option<String>,
    },
    /// The file cannot be read.
    #[error("cannot read the configuration file {} ({named_by}): {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The flag or the variable that names it.
        named_by: String,
        /// What the system says.
        reason: String,
    },
    /// The file is not what it should be.
    #[error("the configuration file {} is not valid YAML: {reason}", path.display())]
    NotYaml {
        /// The file.
        path: PathBuf,
        /// What is wrong, and mostly in which line.
        reason: String,
    },
}

/// A value that has the right type and is still not allowed.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused {
    /// The key.
    pub key: String,
    /// What would be allowed.
    pub allowed: String,
}

fn suggestion(nearest: &Option<String>) -> String {
    match nearest {
        Some(name) => format!("; did you mean {name}?"),
        None => "; `ebpf-sidecar config` lists the keys".to_owned(),
    }
}

impl Refused {
    /// Names the value and its origin.
    pub fn in_context(self, figment: &Figment) -> ConfigError {
        let Refused { key, allowed } = self;
        let value = figment.find_value(&key).map(|value| shape::show(&value)).unwrap_or_default();
        ConfigError::Invalid { value, origin: origin(figment, &key), key, allowed }
    }
}

impl ConfigError {
    /// Of a setting whose type figment found wrong.
    pub(super) fn of_setting(setting: &Setting, error: &figment::Error) -> Self {
        let allowed = match &error.kind {
            Kind::InvalidType(_, expected) | Kind::InvalidValue(_, expected) => {
                format!("expected {}", in_words(expected))
            }
            Kind::UnknownVariant(_, names) => format!("expected one of {}", names.join(", ")),
            other => other.to_string(),
        };
        let (key, value) = (setting.key.clone(), shape::show(&setting.value));
        ConfigError::Invalid { key, value, origin: setting.origin.to_string(), allowed }
    }
}

/// Who set a key.
pub fn origin(figment: &Figment, key: &str) -> String {
    figment.find_metadata(key).map(|origin| origin.name.to_string()).unwrap_or_default()
}

/// Serde names types as programmers do.
fn in_words(expected: &str) -> String {
    match expected {
        "u8" => format!("a whole number from 0 to {}", u8::MAX),
        "u16" => format!("a whole number from 0 to {}", u16::MAX),
        "u32" => format!("a whole number from 0 to {}", u32::MAX),
        "u64" | "usize" => "a whole number".to_owned(),
        "f32" | "f64" => "a number".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a string" | "path string" => "a string; one that looks like a fraction needs quotes".to_owned(),
        choice if choice.starts_with("enum ") => "a single name".to_owned(),
        other => other.to_owned(),
    }
}
