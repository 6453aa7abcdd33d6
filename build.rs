//! Compiles what is not Rust: every `bpf/<noun>/<noun>.bpf.c` to a skeleton, and `proto/` to messages and services.
//! Nothing is listed here; programs are found by walking. Needs clang, and neither protoc, bpftool, kernel headers nor
//! the BTF of the build machine.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use libbpf_cargo::SkeletonBuilder;
use prost::Message;

const PROTO: &str = "proto/ebpf_sidecar/v1/metrics.proto";

/// APIs of others, of which the daemon is a client.
const RUNTIMES: [&str; 3] = ["runtimes/cri.proto", "runtimes/containers.proto", "runtimes/namespaces.proto"];

fn main() -> Result<()> {
    let out = PathBuf::from(env::var_os("OUT_DIR").context("OUT_DIR is set by cargo")?);
    for noun in subfolders(Path::new("bpf"))? {
        build_programs(&noun, &out)?;
    }
    watch(Path::new("bpf"))?;
    build_proto(&out)
}

/// `bpf/<noun>/<noun>.bpf.c` becomes `OUT_DIR/<noun>.skel.rs`. `bpf/include` has no programs.
fn build_programs(folder: &Path, out: &Path) -> Result<()> {
    let noun = folder.file_name().context("a folder has a name")?.to_string_lossy().into_owned();
    let source = folder.join(format!("{noun}.bpf.c"));
    if !source.exists() {
        return Ok(());
    }
    // v3: atomics that return the old value. Later ones are unknown to clang 14.
    let mut args: Vec<OsString> =
        ["-mcpu=v3", "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter", "-Wno-sign-compare"]
            .map(OsString::from)
            .into();
    args.push("-Ibpf/include".into());
    args.push(format!("-I{}", folder.display()).into());
    SkeletonBuilder::new()
        .source(&source)
        .clang(clang()?)
        .clang_args(args)
        // Generated code needs no formatting, and rustup's stand-in for a missing rustfmt fails the build.
        .rustfmt("/nonexistent")
        .build_and_generate(out.join(format!("{noun}.skel.rs")))
        .with_context(|| format!("{} does not compile", source.display()))
}

/// `$CLANG`, else `clang`, else the newest `clang-<n>` (Debian's versioned packages bring only that name).
fn clang() -> Result<String> {
    println!("cargo:rerun-if-env-changed=CLANG");
    let named = env::var("CLANG").ok().into_iter().chain(["clang".to_owned()]);
    for name in named.chain((11..=25).rev().map(|version| format!("clang-{version}"))) {
        if Command::new(&name).arg("--version").output().is_ok_and(|found| found.status.success()) {
            return Ok(name);
        }
    }
    bail!("clang is needed to compile the BPF programs: install it (`make deps` does), or name it in $CLANG")
}

fn build_proto(out: &Path) -> Result<()> {
    watch(Path::new("proto"))?;
    let descriptors = protox::compile([PROTO], ["proto"])?;
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    // The daemon writes families and connections itself, piece by piece: see src/proto.rs.
    tonic_prost_build::configure()
        .build_client(false)
        .extern_path(".ebpf_sidecar.v1.MetricFamily", "crate::proto::Encoded")
        .extern_path(".ebpf_sidecar.v1.Connection", "crate::proto::Encoded")
        .compile_fds(descriptors.clone())?;
    // Tests are clients, and read what any client would.
    let client = out.join("client");
    fs::create_dir_all(&client)?;
    tonic_prost_build::configure()
        .build_server(false)
        .build_transport(false)
        .out_dir(client)
        .compile_fds(descriptors)?;
    tonic_prost_build::configure()
        .build_server(false)
        .build_client(false)
        .compile_fds(protox::compile(RUNTIMES, ["proto"])?)?;
    Ok(())
}

fn subfolders(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Cargo looks at the time of a folder, not of the files in it: name every one.
fn watch(folder: &Path) -> Result<()> {
    println!("cargo:rerun-if-changed={}", folder.display());
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            watch(&path)?;
        } else {
            println!("cargo:rerun-if-changed={}", path.display());
        }
    }
    Ok(())
}
