//! The module `tcp`.

use serde::{Deserialize, Serialize};

/// Settings of the module.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Labels beside the usual ones.
    pub labels: Vec<Label>,
}

/// A label that connections carry when asked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Label {
    /// Address of the client.
    SrcIp,
    /// Port of the client.
    SrcPort,
    /// The process.
    Pid,
}
