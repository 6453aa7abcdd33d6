//! Holds the tables of the README to the code. A failure prints what the table should be.

use std::fs;

use ebpf_sidecar::snapshot::Kind;
use ebpf_sidecar::{config, engine};

#[track_caller]
fn table_is(name: &str, rows: &[String]) {
    let readme = fs::read_to_string("README.md").expect("tests run where Cargo.toml is");
    let start = readme.find(&format!("<!-- {name}:")).expect("the table is marked");
    let table = &readme[start..start + readme[start..].find("<!-- end -->").expect("its end too")];
    let found: Vec<_> = table.lines().skip(3).collect();
    assert!(found == rows, "this table of the README should be:\n{}", rows.join("\n"));
}

#[test]
fn every_family_is_listed() {
    let row = |family: &ebpf_sidecar::snapshot::Descriptor| {
        let kind = match family.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        format!("| `{}` | {kind} | {} |", family.name, family.help)
    };
    table_is("metrics", &engine::descriptors().map(row).collect::<Vec<_>>());
}

#[test]
fn every_key_is_listed() {
    let defaults = config::load(None, [], &[]).expect("the defaults are sound").effective;
    let row = |key: String| {
        let default = defaults.value_of(&key).unwrap_or_default();
        format!("| `{key}` | `{default}` |")
    };
    table_is("keys", &config::keys().into_iter().map(row).collect::<Vec<_>>());
}
