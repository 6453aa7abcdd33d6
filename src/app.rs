//! Stand-in for the composer.

use thiserror::Error;

use crate::config::Config;
use crate::kernel::Kernel;
use crate::status::ModuleReport;

/// Why the daemon ended.
#[derive(Debug, Error)]
pub enum Error {}

/// What each module would use on this host.
pub fn plan(_config: &Config, _kernel: &Kernel) -> Vec<ModuleReport> {
    vec![]
}

/// Runs until asked to stop.
///
/// # Errors
/// None yet.
pub fn run(_config: Config) -> Result<(), Error> {
    Ok(())
}
