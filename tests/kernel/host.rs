//! What every other test here takes for granted.

use libbpf_rs::btf::Btf;
use libbpf_rs::btf::types::Struct;
use nix::unistd::geteuid;

#[test]
fn we_are_root() {
    assert!(geteuid().is_root(), "these tests load BPF programs: run them through `make test-kernel`");
}

#[test]
fn the_kernel_describes_its_types() {
    let btf = Btf::from_vmlinux().expect("/sys/kernel/btf/vmlinux is readable");
    assert!(btf.type_by_name::<Struct>("tcp_sock").is_some(), "the kernel's BTF does not know struct tcp_sock");
}
