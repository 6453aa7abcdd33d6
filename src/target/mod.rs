//! What is watched: all that fits every kind that is named, by one of its values. Programs ask before they count
//! (`bpf/include/target.bpf.h`).
//!
//! Containers and namespaces have their names from elsewhere, a moment after the kernel has seen their cgroup. What happens
//! in a cgroup until then is counted, and shown once it is known to be watched, or never.

mod config;
mod location;
mod skel;
mod watch;
mod workload;

pub use config::{Config, Invalid};
pub use location::Location;
pub use watch::{StartError, Target};
