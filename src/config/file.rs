//! The file layer.

use std::fs;
use std::path::Path;

use figment::value::{Dict, Value};

use super::error::ConfigError;
use super::keys::{Keys, join};
use super::setting::{Origin, Setting};
use super::{shape, yaml};

/// Reads a YAML file that `named_by` (a flag or a variable) names. Keys and sections without a value are as good as absent: that is what remains of a section when
/// all of it is commented out.
///
/// # Errors
/// [`ConfigError`] if it cannot be read, is not YAML, or has keys that nobody knows.
pub fn read(path: &Path, named_by: &str, keys: &Keys) -> Result<Vec<Setting>, ConfigError> {
    let unreadable = |reason| ConfigError::Unreadable { path: path.to_owned(), named_by: named_by.to_owned(), reason };
    let text = fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
    let not_yaml = |reason| ConfigError::NotYaml { path: path.to_owned(), reason };
    let mut settings = Vec::new();
    match yaml::parse(&text).map_err(not_yaml)? {
        Value::Dict(_, entries) => walk("", entries, keys, &Origin::File(path.to_owned()), &mut settings)?,
        Value::Empty(..) => {}
        other => return Err(not_yaml(format!("expected sections with keys, found {}", shape::show(&other)))),
    }
    Ok(settings)
}

fn walk(
    section: &str,
    entries: Dict,
    keys: &Keys,
    origin: &Origin,
    settings: &mut Vec<Setting>,
) -> Result<(), ConfigError> {
    for (name, value) in entries {
        let key = join(section, &name);
        let shape = keys.shape_of(&key);
        if shape.is_none() && !keys.is_section(&key) {
            return Err(ConfigError::UnknownKey { nearest: keys.nearest(&key), key, origin: origin.to_string() });
        }
        match (shape, value) {
            (_, Value::Empty(..)) => {}
            (Some(shape), value) => {
                settings.push(Setting { key, value: shape::fit(value, shape), origin: origin.clone() });
            }
            (None, Value::Dict(_, inner)) => walk(&key, inner, keys, origin, settings)?,
            (None, value) => {
                let allowed = format!("expected a section with {}", keys.names_in(&key).join(", "));
                let value = shape::show(&value);
                return Err(ConfigError::Invalid { key, value, origin: origin.to_string(), allowed });
            }
        }
    }
    Ok(())
}
