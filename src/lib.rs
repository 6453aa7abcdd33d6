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
pub mod sampler;
pub mod server;
pub mod shutdown;
pub mod snapshot;
pub mod status;
pub mod telemetry;

/// Messages and services generated from `proto/`.
pub mod proto {
    #![allow(missing_docs, missing_debug_implementations, clippy::all)]

    tonic::include_proto!("ebpf_sidecar.v1");

    /// The descriptors of the above, for server reflection.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
}
