//! ebpf-sidecar: what the Linux kernel knows about a workload, read from the kernel's own counters.

pub mod app;
pub mod bpf;
pub mod check;
pub mod cli;
pub mod collectors;
pub mod config;
pub mod engine;
pub mod exposition;
pub mod histogram;
pub mod kernel;
pub mod privileges;
pub mod proto;
pub mod sampler;
pub mod server;
pub mod shutdown;
pub mod snapshot;
pub mod status;
pub mod telemetry;
