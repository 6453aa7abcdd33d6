//! A header that both sides of a wire include must parse on its own, in any C program: it can then be read, and used, alone.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

#[test]
fn every_wire_header_parses_on_its_own() {
    let headers = wire_headers(Path::new("bpf"));
    assert!(headers.iter().any(|header| header.ends_with("include/types.h")), "found only {headers:?}");
    let clang = env::var("CLANG").unwrap_or_else(|_| "clang".to_owned());
    for header in headers {
        let output = Command::new(&clang)
            .args(["-fsyntax-only", "-xc", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-Ibpf/include"])
            .arg(&header)
            .output()
            .unwrap_or_else(|error| panic!("{clang}: {error}"));
        assert!(output.status.success(), "{}:\n{}", header.display(), String::from_utf8_lossy(&output.stderr));
    }
}

/// Every `.h` but the `.bpf.h` ones, which hold code for BPF programs, and `kernel.h`, which describes the kernel to them.
fn wire_headers(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("bpf can be listed") {
        let path = entry.expect("bpf can be listed").path();
        let name = path.file_name().expect("an entry has a name").to_string_lossy().into_owned();
        if path.is_dir() {
            found.extend(wire_headers(&path));
        } else if name.ends_with(".h") && !name.ends_with(".bpf.h") && name != "kernel.h" {
            found.push(path);
        }
    }
    found
}
