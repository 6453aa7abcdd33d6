//! Holds the drawing of the house to the code: which room of `src/` may name which, and which folder of `bpf/` may include
//! which. Paths are read from the text, so that every `use crate::...` and every path inside a function counts, in tests too.

use std::fs;
use std::path::{Path, PathBuf};

/// What may be named in a room.
enum Wing {
    /// Everything.
    All,
    /// Only what is called `...Config`: a room owns its settings, and the one that reads files gathers them.
    Configs,
}
use Wing::{All, Configs};

/// Every room and the rooms it may name. Arrows only go down; `lib.rs` is the list of the rooms and names nothing else.
const ROOMS: &[(&str, &[(&str, Wing)])] = &[
    ("main", &[("app", All), ("cli", All), ("config", All), ("telemetry", All)]),
    (
        "cli",
        &[
            ("app", All),
            ("collectors", All),
            ("config", All),
            ("exposition", All),
            ("histogram", All),
            ("kernel", All),
            ("proto", All),
            ("snapshot", All),
            ("status", All),
        ],
    ),
    (
        "app",
        &[
            ("collectors", All),
            ("config", All),
            ("exposition", All),
            ("kernel", All),
            ("sampler", All),
            ("server", All),
            ("shutdown", All),
            ("snapshot", All),
            ("status", All),
            ("telemetry", All),
        ],
    ),
    ("config", &[("collectors", Configs), ("histogram", All), ("server", Configs), ("telemetry", Configs)]),
    (
        "server",
        &[
            ("exposition", All),
            ("histogram", All),
            ("proto", All),
            ("sampler", All),
            ("shutdown", All),
            ("snapshot", All),
            ("status", All),
        ],
    ),
    ("exposition", &[("histogram", All), ("proto", All), ("snapshot", All), ("status", All)]),
    ("collectors", &[("bpf", All), ("histogram", All), ("kernel", All), ("snapshot", All), ("status", All)]),
    ("sampler", &[("snapshot", All), ("status", All)]),
    ("bpf", &[("kernel", All), ("status", All)]),
    ("snapshot", &[("histogram", All), ("status", All)]),
    ("proto", &[]),
    ("histogram", &[]),
    ("kernel", &[]),
    ("shutdown", &[]),
    ("status", &[]),
    ("telemetry", &[]),
];

#[test]
fn every_room_is_in_the_table() {
    for path in files(Path::new("src"), &[".rs"]) {
        let room = &module(&path)[0];
        assert!(
            room == "lib" || allowed(room).is_some(),
            "{} is in no room: add (\"{room}\", &[]) to ROOMS in {}, with the rooms that it may name",
            path.display(),
            file!()
        );
    }
}

#[test]
fn rooms_name_only_what_they_may() {
    let mut wrong = Vec::new();
    for path in files(Path::new("src"), &[".rs"]) {
        let from = module(&path);
        for (line, named) in paths(&fs::read_to_string(&path).expect("a source file is text"), &from) {
            if !may(&from, &named) {
                wrong.push(format!("{}:{line}: {} names {}", path.display(), from.join("::"), named.join("::")));
            }
        }
    }
    assert!(wrong.is_empty(), "edges that {} does not have:\n{}", file!(), wrong.join("\n"));
}

#[test]
fn programs_include_only_the_shared_headers_and_their_own() {
    let mut wrong = Vec::new();
    for path in files(Path::new("bpf"), &[".c", ".h"]) {
        let folder = path.parent().expect("a file is in a folder");
        for (number, line) in fs::read_to_string(&path).expect("a source file is text").lines().enumerate() {
            let Some(included) = line.trim_start().strip_prefix("#include ").map(str::trim) else { continue };
            let here = included.trim_matches('"');
            let fine = included.starts_with("<bpf/")
                || (!here.contains('/')
                    && (folder.join(here).exists() || Path::new("bpf/include").join(here).exists()));
            if !fine {
                wrong.push(format!("{}:{}: includes {included}", path.display(), number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "only bpf/include, the own folder and <bpf/...> may be included:\n{}", wrong.join("\n"));
}

#[test]
fn the_reader_of_paths_misses_none() {
    let source = r#"
use crate::snapshot::Snapshot;
use crate::{histogram::{self, Bound}, status};
// crate::comment
/// [`crate::link`]
pub(crate) fn f() -> super::super::kernel::Kernel {
    let text = "crate::text \" //"; crate::bpf::load(super::hook)
}
"#;
    let named: Vec<_> = paths(source, &["collectors".to_owned(), "tcp".to_owned()])
        .into_iter()
        .map(|(line, path)| format!("{line} {}", path.join("::")))
        .collect();
    let expected = [
        "2 snapshot::Snapshot",
        "3 histogram::self",
        "3 histogram::Bound",
        "3 status",
        "6 kernel::Kernel",
        "7 bpf::load",
        "7 collectors::hook",
    ];
    assert_eq!(named, expected);
}

fn allowed(room: &str) -> Option<&'static [(&'static str, Wing)]> {
    ROOMS.iter().find(|(name, _)| *name == room).map(|(_, may)| *may)
}

fn may(from: &[String], named: &[String]) -> bool {
    if from[0] == named[0] {
        return from[0] != "collectors" || !another_collector(from, named);
    }
    match allowed(&from[0]).and_then(|rooms| rooms.iter().find(|(room, _)| *room == named[0])) {
        Some((_, All)) => true,
        Some((_, Configs)) => named.iter().any(|part| part.ends_with("Config")),
        None => false,
    }
}

/// A collector is a folder; what lies beside the folders is theirs in common. `collectors` itself lists them all.
fn another_collector(from: &[String], named: &[String]) -> bool {
    let is_collector = |path: &[String]| path.len() > 1 && Path::new("src/collectors").join(&path[1]).is_dir();
    is_collector(from) && is_collector(named) && from[1] != named[1]
}

/// `src/server/http.rs` is `server::http`, `src/server/mod.rs` and `src/server.rs` are `server`.
fn module(path: &Path) -> Vec<String> {
    let inside = path.strip_prefix("src").expect("a source file is in src").with_extension("");
    let mut parts: Vec<_> = inside.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if parts.len() > 1 && parts.last().is_some_and(|last| last == "mod") {
        parts.pop();
    }
    parts
}

/// The paths into this crate that a source names, counted from the root of the crate, each with its line.
///
/// In an inline module a `super` is taken for one level more than it climbs; that this may look like the root is why a path
/// found so counts only if it then enters a room.
fn paths(source: &str, module: &[String]) -> Vec<(usize, Vec<String>)> {
    let code = without_comments_and_text(source);
    let mut found = Vec::new();
    for (at, _) in code.match_indices("::") {
        let word = word_before(&code[..at]);
        let (mut rest, base) = match word {
            "crate" => (&code[at + 2..], &module[..0]),
            "ebpf_sidecar" if module[0] == "main" => (&code[at + 2..], &module[..0]),
            "super" if !code[..at - word.len()].ends_with("super::") => {
                (&code[at + 2..], &module[..module.len().saturating_sub(1)])
            }
            _ => continue,
        };
        let mut base = base.to_vec();
        while let Some(further) = rest.strip_prefix("super::") {
            rest = further;
            base.pop();
        }
        let line = code[..at].lines().count();
        let mut leaves = Vec::new();
        expand(rest, &base, &mut leaves);
        leaves.retain(|path| word != "super" || path.first().is_some_and(|room| allowed(room).is_some()));
        found.extend(leaves.into_iter().map(|path| (line, path)));
    }
    found
}

/// Reads `a::b` or `a::{b, c::{d}}` and returns what follows it.
fn expand<'a>(text: &'a str, base: &[String], leaves: &mut Vec<Vec<String>>) -> &'a str {
    let mut text = text.trim_start();
    if let Some(mut list) = text.strip_prefix('{') {
        loop {
            list = expand(list, base, leaves);
            // Past `as other` and white space, to the end of this entry.
            list = &list[list.find([',', '}']).expect("a list of imports is closed")..];
            let last = list.starts_with('}');
            list = list[1..].trim_start();
            if last {
                return list;
            }
            if let Some(after) = list.strip_prefix('}') {
                return after;
            }
        }
    }
    let end = text.find(|c: char| !is_word(c) && c != '*').unwrap_or(text.len());
    let mut path = base.to_vec();
    path.push(text[..end].to_owned());
    text = &text[end..];
    match text.strip_prefix("::") {
        Some(more) if more.starts_with(|c: char| is_word(c) || c == '{' || c == '*') => expand(more, &path, leaves),
        _ => {
            leaves.push(path);
            text
        }
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn word_before(code: &str) -> &str {
    &code[code.rfind(|c| !is_word(c)).map_or(0, |at| at + 1)..]
}

/// Line comments and the inside of string literals become nothing; lines keep their numbers.
fn without_comments_and_text(source: &str) -> String {
    let mut code = String::new();
    let mut rest = source;
    while let Some(at) = rest.find(['"', '/', '\'']) {
        code.push_str(&rest[..at]);
        rest = &rest[at..];
        let end = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with('"') {
            end_of_text(rest)
        } else if rest.starts_with("'\"'") {
            3
        } else {
            code.push_str(&rest[..1]);
            1
        };
        code.extend(rest[..end].matches('\n'));
        rest = &rest[end..];
    }
    code + rest
}

fn end_of_text(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        if c == '"' && !escaped {
            return at + 1;
        }
        escaped = c == '\\' && !escaped;
    }
    text.len()
}

/// All files below a folder whose names end so, in order.
fn files(folder: &Path, ends: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.expect("a folder can be listed").path();
        if path.is_dir() {
            found.extend(files(&path, ends));
        } else if ends.iter().any(|end| path.to_string_lossy().ends_with(end)) {
            found.push(path);
        }
    }
    found.sort();
    found
}
