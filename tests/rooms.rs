//! Holds the drawing of the house to the code: which room of `src/` may name which, and which folder of `bpf/` may include
//! which. Paths are read from the text, so that every `use crate::...` and every path inside a function counts, in tests too.

use std::fs;
use std::path::{Path, PathBuf};

/// Every room, and the rooms it may name. Arrows only go down. Where a room is followed by names in brackets, only what is
/// called so, or ends so, may be named of it: a room owns its settings, and the one that reads files gathers them. `lib.rs`
/// lists the rooms and names none.
const ROOMS: &str = "
    main       -> app check cli config kernel privileges telemetry
    app        -> bpf collectors config engine event_log events histogram identity kernel privileges sampler server shutdown status target
    check      -> kernel privileges status
    cli        -> config
    config     -> collectors(ALL,Config,resolve) duration event_log(Config) histogram identity(Config) server(Config) target(Config) telemetry(Config)
    server     -> connections events exposition histogram proto sampler shutdown snapshot status
    event_log  -> events exposition size
    exposition -> connections events histogram identity proto snapshot status
    engine     -> bpf collectors connections histogram identity kernel sampler snapshot status target
    collectors -> bpf connections duration events histogram identity kernel snapshot status target
    sampler    -> connections snapshot status
    events     -> identity
    bpf        -> kernel status
    snapshot   -> histogram status
    connections -> identity
    duration   ->
    histogram  ->
    identity   -> bpf kernel status
    kernel     ->
    privileges ->
    proto      ->
    shutdown   ->
    size       ->
    status     ->
    target     -> bpf identity
    telemetry  ->
";

#[test]
fn every_room_is_in_the_table() {
    for path in files(Path::new("src"), &[".rs"]) {
        let room = &module(&path)[0];
        assert!(
            room == "lib" || allowed(room).is_some(),
            "{} is in no room: add `{room} ->` to ROOMS in {}, and after it the rooms that it may name",
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
    let text = "crate::text \" //"; crate::bpf::load(super::hook, status::Status::Ok, other::status::f())
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
        "7 status::Status::Ok",
    ];
    assert_eq!(named, expected);
}

/// The row of a room, without its name.
fn allowed(room: &str) -> Option<impl Iterator<Item = &'static str>> {
    let mut rows = ROOMS.lines().filter_map(|row| row.split_once("->"));
    rows.find(|(name, _)| name.trim() == room).map(|(_, may)| may.split_whitespace())
}

fn may(from: &[String], named: &[String]) -> bool {
    let (here, there) = (&from[0], &named[0]);
    if here == there {
        return !another_collector(from, named);
    }
    allowed(here).is_some_and(|mut rooms| {
        rooms.any(|room| match room.trim_end_matches(')').split_once('(') {
            // Where only the room itself is named, the paths that begin with it are looked at in their turn.
            Some((room, ends)) => {
                let fits = |part: &String| ends.split(',').any(|end| part.ends_with(end));
                room == there && (named[1..].iter().all(|part| part == "self") || named.iter().any(fits))
            }
            None => room == there,
        })
    })
}

/// A collector is a folder; what lies beside the folders is theirs in common. `collectors` itself lists them all.
fn another_collector(from: &[String], named: &[String]) -> bool {
    let is_collector = |path: &[String]| {
        path.len() > 1 && path[0] == "collectors" && Path::new("src/collectors").join(&path[1]).is_dir()
    };
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
    let mut imported = Vec::new();
    let mut read = 0;
    for (at, _) in code.match_indices("::") {
        let word = word_before(&code[..at]);
        let before = &code[..at - word.len()];
        let mut rest = &code[at + 2..];
        let mut base = match word {
            _ if at < read || before.ends_with("::") => continue,
            "crate" => Vec::new(),
            "ebpf_sidecar" if module[0] == "main" => Vec::new(),
            "super" => module[..module.len() - 1].to_vec(),
            room if imported.iter().any(|name| name == room) => vec![room.to_owned()],
            _ => continue,
        };
        while let Some(further) = rest.strip_prefix("super::") {
            rest = further;
            base.pop();
        }
        let mut leaves = Vec::new();
        read = code.len() - expand(rest, &base, &mut leaves).len();
        leaves.retain(|path| word != "super" || path.first().is_some_and(|room| allowed(room).is_some()));
        for path in leaves {
            if path[1..].iter().all(|part| part == "self") {
                imported.push(path[0].clone());
            }
            found.push((code[..at].lines().count(), path));
        }
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
