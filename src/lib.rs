//! ebpf-sidecar: what the Linux kernel knows about a workload, read from the kernel's own counters.
//!
//! Data goes one way. Nothing on the right is known on the left; `tests/rooms.rs` holds the rooms to it.
//!
//! ```text
//! bpf/*.bpf.c --> collectors --> engine --> sampler --> snapshot --> exposition --> server
//!                     |                    (one thread,   (plain      (text, JSON,   (HTTP, gRPC)
//!                    bpf                  many readers)    data)       protobuf)
//! ```
//!
//! Beside that, [`events`] go from the tcp collector's ring to [`event_log`] and to the streams of the server.
//!
//! [`app`] puts it together from a [`config`]; [`cli`] and [`check`] are the commands; [`kernel`], [`privileges`],
//! [`status`], [`histogram`] and [`connections`] are what several rooms speak of; [`identity`] has names for what the kernel numbers.

pub mod app;
pub mod bpf;
pub mod check;
pub mod cli;
pub mod collectors;
pub mod config;
pub mod connections;
mod duration;
pub mod engine;
pub mod event_log;
pub mod events;
pub mod exposition;
pub mod histogram;
pub mod identity;
pub mod kernel;
pub mod privileges;
pub mod proto;
pub mod sampler;
pub mod server;
pub mod shutdown;
mod size;
pub mod snapshot;
pub mod status;
pub mod target;
pub mod telemetry;
