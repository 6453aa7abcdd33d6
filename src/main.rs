//! The `ebpf-sidecar` command.

fn main() {}
