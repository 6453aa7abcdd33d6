//! Stand-in for the collectors.

use serde::{Deserialize, Serialize};

pub mod tcp;

/// What a collector is.
#[derive(Debug)]
pub struct Spec {
    /// Its noun.
    pub name: &'static str,
}

/// Every collector.
pub const ALL: &[&Spec] = &[&Spec { name: "tcp" }];

/// A section for each collector.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// TCP.
    pub tcp: tcp::Config,
}

/// What plans ask the kernel's types for.
pub fn btf_names() -> Vec<String> {
    vec![]
}
