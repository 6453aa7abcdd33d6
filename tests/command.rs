//! The command as shells and supervisors meet it: output, messages and exit codes.

use std::env;
use std::process::{Command, Output};
use std::thread;

use caps::CapSet;

/// Runs what cargo has built or, if that is set, what `SIDECAR` names: a program, and what comes before it to emulate it.
fn sidecar(arguments: &[&str]) -> Output {
    let named = env::var("SIDECAR").unwrap_or_else(|_| env!("CARGO_BIN_EXE_ebpf-sidecar").to_owned());
    let mut words = named.split(' ');
    let mut command = Command::new(words.next().expect("even nothing has a first word"));
    command.env_clear().args(words).args(arguments).output().expect("the command starts")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("the command prints UTF-8")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("the command prints UTF-8")
}

#[test]
fn version_says_what_runs_where() {
    let output = sidecar(&["version"]);
    let expected = format!("ebpf-sidecar {} {}\n", env!("CARGO_PKG_VERSION"), env::consts::ARCH);
    assert_eq!((output.status.code(), stdout(&output)), (Some(0), expected));

    let output = sidecar(&["--version"]);
    assert_eq!(stdout(&output), format!("ebpf-sidecar {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn config_prints_what_holds_and_why() {
    let output = sidecar(&["config", "--metrics-port", "81"]);
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""));
    let text = stdout(&output);
    let line = |key: &str| {
        let line = text.lines().find(|line| line.trim_start().starts_with(key)).expect("it prints every key");
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(line("interval"), "interval: 10s # default");
    assert!(text.contains("port: 81 "), "{text}");
    assert!(text.contains("# --metrics-port"), "{text}");
}

#[test]
fn a_wrong_configuration_ends_with_2_and_one_line() {
    for command in [&["config"][..], &["run"], &["check"], &[]] {
        let output = sidecar(&[command, &["--grpc-port", "x"]].concat());
        assert_eq!(output.status.code(), Some(2), "{command:?}");
        assert_eq!(
            stderr(&output),
            "ebpf-sidecar: server.grpc.port = x (--grpc-port): expected a whole number from 0 to 65535\n"
        );
        assert_eq!(stdout(&output), "");
    }
    let output = sidecar(&["--config", "/does/not/exist.yaml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output)
            .starts_with("ebpf-sidecar: cannot read the configuration file /does/not/exist.yaml (--config): ")
    );
}

#[test]
fn wrong_usage_ends_with_2() {
    for arguments in [&["--no-such-flag"][..], &["no-such-command"], &["--debug", "--log-level", "info"]] {
        assert_eq!(sidecar(arguments).status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn check_reports_for_people_and_machines() {
    let output = sidecar(&["check"]);
    assert!(stdout(&output).starts_with("kernel "), "{output:?}");
    let json: serde_json::Value = serde_json::from_slice(&sidecar(&["check", "--output", "json"]).stdout).unwrap();
    let codes = [("available", 0), ("degraded", 1), ("unavailable", 2)];
    let (_, code) = codes.into_iter().find(|(name, _)| json["verdict"] == *name).expect("there are three verdicts");
    assert_eq!(output.status.code(), Some(code));
}

#[test]
fn no_permission_ends_with_3_and_says_what_is_missing() {
    // Capabilities belong to threads, and children get those of the thread that starts them. Root's child would regain
    // them all but for the bounding set; who is not root cannot change that, and has nothing to lose.
    let unprivileged = thread::spawn(|| {
        let _ = caps::clear(None, CapSet::Bounding);
        (sidecar(&[]), sidecar(&["check"]))
    });
    let (run, check) = unprivileged.join().expect("the thread ends");
    assert_eq!(run.status.code(), Some(3));
    assert!(stderr(&run).starts_with("ebpf-sidecar: missing CAP_BPF and CAP_PERFMON: run as root, "), "{run:?}");
    assert_eq!((check.status.code(), stderr(&check).as_str()), (Some(2), ""));
    assert!(stdout(&check).contains("\ncapabilities  lacking CAP_BPF and CAP_PERFMON\n"), "{check:?}");
}
