//! What every other test here takes for granted, and modules that need each other.

use ebpf_sidecar::kernel::Kernel;
use ebpf_sidecar::status::Status;
use libbpf_rs::btf::Btf;
use libbpf_rs::btf::types::Struct;
use nix::unistd::geteuid;

use crate::fixture::{Sidecar, Wish};

#[test]
fn we_are_root() {
    assert!(geteuid().is_root(), "these tests load BPF programs: run them through `make test-kernel`");
}

#[test]
fn the_kernel_describes_its_types() {
    let btf = Btf::from_vmlinux().expect("/sys/kernel/btf/vmlinux is readable");
    assert!(btf.type_by_name::<Struct>("tcp_sock").is_some(), "the kernel's BTF does not know struct tcp_sock");
}

/// What a module needs of another is not there, and it says so instead of showing less in silence.
#[test]
fn a_module_whose_neighbour_cannot_run_is_degraded() {
    let host = |kernel: &mut Kernel| _ = kernel.names.remove("bpf_iter__bpf_sk_storage_map");
    let sidecar = Sidecar::start(Wish { modules: vec!["retransmit", "drops"], host, ..Wish::default() });
    let metrics = sidecar.snapshot();
    for module in &metrics.0.modules {
        match module.name {
            "retransmit" | "drops" => {
                assert_eq!(module.status, Status::Degraded, "{}", module.name);
                assert!(
                    module.reason.starts_with("processes are not known, as tcp is unsupported"),
                    "{}",
                    module.reason
                );
            }
            "tcp" => assert_eq!(module.status, Status::Unsupported),
            _ => assert_eq!(module.status, Status::Disabled, "{}", module.name),
        }
    }
}
