//! What every other test here takes for granted, and modules that need each other.

use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use caps::{CapSet, Capability};
use ebpf_sidecar::app::btf_names;
use ebpf_sidecar::collectors::{self, Config};
use ebpf_sidecar::kernel::{HELPERS, Kernel, LINUX_WITH_FETCH, Lockdown};
use ebpf_sidecar::status::Status;
use libbpf_rs::btf::Btf;
use libbpf_rs::btf::types::Struct;
use libbpf_rs::libbpf_sys::bpf_map_create_opts;
use libbpf_rs::{MapHandle, MapType};
use nix::sys::prctl::set_keepcaps;
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Gid, Uid, geteuid, setresgid, setresuid};
use serde_json::Value;

use crate::fixture::{Sidecar, Wish, drain, in_process, listen, planned, serve};

#[test]
fn we_are_root() {
    assert!(geteuid().is_root(), "these tests load BPF programs: run them through `make test-kernel`");
}

#[test]
fn the_kernel_describes_its_types() {
    let btf = Btf::from_vmlinux().expect("/sys/kernel/btf/vmlinux is readable");
    assert!(btf.type_by_name::<Struct>("tcp_sock").is_some(), "the kernel's BTF does not know struct tcp_sock");
}

/// A kernel that cannot run anything is refused by `check` and the daemon, with 2 and what it lacks; no other one is. What it
/// lacks is asked of the kernel here, not of us.
#[test]
fn a_kernel_is_refused_if_nothing_can_run_on_it() {
    const DAEMON: &str = env!("CARGO_BIN_EXE_ebpf-sidecar");
    let started = |arguments: &[&str]| Command::new(DAEMON).args(arguments).output().expect("it starts");
    let lacks = if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        Some("the kernel was built without BTF (CONFIG_DEBUG_INFO_BTF)")
    } else if !makes_ring_buffers() {
        Some("this kernel is older than Linux 5.8")
    } else {
        None
    };
    let check = started(&["check", "--output", "json"]);
    let report: Value = serde_json::from_slice(&check.stdout).expect("JSON");
    let conclusion = report["conclusion"].as_str().expect("it concludes");
    let Some(lacks) = lacks else {
        let fit = Kernel::probe([HELPERS]).fit();
        assert!(fit.is_ok() && ["BTF", "older"].iter().all(|word| !conclusion.contains(word)), "{fit:?}: {conclusion}");
        return;
    };
    assert!(conclusion.starts_with(&format!("it cannot run: {lacks}")), "{conclusion}");
    assert_eq!(check.status.code(), Some(2));
    let daemon = started(&["--metrics-port", "0", "--grpc-port", "0"]);
    let said = String::from_utf8_lossy(&daemon.stderr);
    assert_eq!(daemon.status.code(), Some(2), "{said}");
    assert!(said.lines().any(|line| line.starts_with(&format!("ebpf-sidecar: {lacks}"))), "{said}");
}

fn makes_ring_buffers() -> bool {
    let options = bpf_map_create_opts { sz: size_of::<bpf_map_create_opts>() as _, ..Default::default() };
    MapHandle::create(MapType::RingBuf, Some("ring"), 0, 0, 1 << 16, &options).is_ok()
}

/// What a module needs of another is not there, and it says so instead of showing less in silence.
#[test]
fn a_module_whose_neighbour_cannot_run_is_degraded() {
    let host = |kernel: &mut Kernel| _ = kernel.names.remove("btf_trace_inet_sock_set_state");
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

/// What `check` says before anything is loaded is what comes of it.
#[test]
fn what_is_planned_is_what_happens() {
    let kernel = Kernel::probe(btf_names());
    let sidecar = Sidecar::start(Wish::default());
    for spec in collectors::ALL {
        let plan = Config::default().plan(spec, &kernel, true);
        let report = sidecar.module(spec.name);
        match plan.check() {
            Ok(()) => assert_eq!(report.hooks, plan.reports(), "{}: {}", spec.name, report.reason),
            Err(missing) => {
                assert_eq!((report.status, report.reason), (Status::Unsupported, missing.to_string()));
                assert_eq!(report.hooks, missing.hooks, "{}", spec.name);
            }
        }
        if kernel.lockdown == Some(Lockdown::Confidentiality) {
            assert!(plan.missing().contains("locked down") || plan.check().is_err(), "{}", spec.name);
        }
    }
}

/// Interpreted programs call no function of the kernel. All others do, where it has it, so that a start takes less.
#[test]
fn programs_run_without_functions_of_the_kernel() {
    const CAST: &str = "bpf_rdonly_cast";
    let kernel = Kernel::probe(btf_names().chain([CAST.to_owned()]));
    let compiled = cfg!(not(target_arch = "riscv64")); // where Debian's kernel interprets
    assert_eq!(kernel.cast.is_some(), kernel.has_function(CAST) && compiled);
    let sidecar = Sidecar::start(Wish { host: |kernel| kernel.cast = None, ..Wish::default() });
    for spec in collectors::ALL {
        let report = sidecar.module(spec.name);
        assert_eq!((report.status, report.reason), planned(spec.name, &kernel), "{}", spec.name);
    }
}

/// Somebody without a name, who may do nothing else, sees as much as root does.
#[test]
fn two_capabilities_are_enough() {
    const SENT: usize = 54_321;
    let child = in_process("nobody", || {
        // Before 5.11 maps are locked memory.
        if !Kernel::probe([HELPERS]).is_since(LINUX_WITH_FETCH) {
            setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY).unwrap();
        }
        set_keepcaps(true).unwrap();
        let (user, group) = (Uid::from_raw(65534), Gid::from_raw(65534));
        setresgid(group, group, group).unwrap();
        setresuid(user, user, user).unwrap();
        let two = [Capability::CAP_BPF, Capability::CAP_PERFMON].into();
        caps::set(None, CapSet::Effective, &two).unwrap();
        caps::set(None, CapSet::Permitted, &two).unwrap();

        let kernel = Kernel::probe(btf_names());
        let sidecar = Sidecar::start(Wish::default());
        for spec in collectors::ALL {
            // Where there are neither fentry nor kprobes, fadvise needs tracefs, and that needs to be mounted.
            let report = sidecar.module(spec.name);
            assert_eq!(report.status, planned(spec.name, &kernel).0, "{}: {}", spec.name, report.reason);
        }
        let listener = listen("127.0.0.1");
        let to = listener.local_addr().unwrap();
        let server = serve(listener, 1, SENT, 1);
        let mut stream = TcpStream::connect(to).unwrap();
        stream.write_all(&vec![0; SENT]).unwrap();
        drain(&stream);
        server.join().unwrap();
        let port = to.port().to_string();
        let sent =
            sidecar.until(|metrics| metrics.sum("sidecar_connections_closed_total", &[("dst_port", &port)]) == 2);
        for (family, role) in [("sent", "client"), ("received", "server")] {
            let family = format!("sidecar_connection_bytes_{family}_total");
            assert_eq!(sent.sum(&family, &[("dst_port", &port), ("role", role)]), SENT as u64);
        }
    });
    assert!(matches!(waitpid(child, None), Ok(WaitStatus::Exited(_, 0))));
}
