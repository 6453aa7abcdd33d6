//! One value for one key, and where it was said. Each is a figment layer of its own, so that figment can tell
//! afterwards which of them won.

use std::fmt;
use std::path::PathBuf;

use figment::value::{Dict, Map, Value};
use figment::{Metadata, Profile, Provider, util};

use super::Config;
use super::keys::Keys;
use super::shape;

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// A configuration file.
    File(PathBuf),
    /// An environment variable.
    Variable(String),
    /// A flag on the command line.
    Flag(&'static str),
}

/// A flag that was given, and the key that it sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flag {
    /// As typed, such as `--grpc-port`.
    pub flag: &'static str,
    /// Such as `server.grpc.port`.
    pub key: &'static str,
    /// As typed.
    pub value: String,
}

/// A value for a known key.
#[derive(Debug)]
pub struct Setting {
    /// Such as `server.grpc.port`.
    pub key: String,
    /// In the shape of the key's default where it could be brought into it.
    pub value: Value,
    /// Who said so.
    pub origin: Origin,
}

/// The bottom layer.
#[derive(Debug)]
pub struct Defaults;

impl Setting {
    /// From text, as in the environment and on the command line.
    pub fn from_text(keys: &Keys, key: &str, text: &str, origin: Origin) -> Self {
        let shape = keys.shape_of(key).expect("flags and variables are named after keys");
        Setting { key: key.to_owned(), value: shape::fit(text.into(), shape), origin }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File(path) => write!(f, "{}", path.display()),
            Origin::Variable(name) => f.write_str(name),
            Origin::Flag(flag) => f.write_str(flag),
        }
    }
}

impl Provider for &Setting {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.origin.to_string())
    }

    fn data(&self) -> figment::Result<Map<Profile, Dict>> {
        let nested = util::nest(&self.key, self.value.clone()).into_dict().expect("a key has at least one part");
        Ok(Profile::Default.collect(nested))
    }
}

impl Provider for Defaults {
    fn metadata(&self) -> Metadata {
        Metadata::named(Origin::Default.to_string())
    }

    fn data(&self) -> figment::Result<Map<Profile, Dict>> {
        let defaults = Value::serialize(Config::default())?;
        Ok(Profile::Default.collect(defaults.into_dict().expect("a configuration is a map")))
    }
}
