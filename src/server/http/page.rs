//! The page for people: what is here and how the modules fare.

use std::fmt;
use std::io::{self, Write};

use super::answer::FIXED_PATHS;
use crate::snapshot::Snapshot;
use crate::status::health;

const HEAD: &str = "<!doctype html>
<html lang=\"en\">
<meta charset=\"utf-8\">
<meta name=\"viewport\" content=\"width=device-width\">
<title>ebpf-sidecar</title>
<style>
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem; border-bottom: 1px solid #8884 }
</style>
";

/// Writes the page.
///
/// # Errors
/// Those of the writer.
pub(super) fn write(snapshot: &Snapshot, metrics_path: &str, out: &mut impl Write) -> io::Result<()> {
    out.write_all(HEAD.as_bytes())?;
    write!(out, "<h1>ebpf-sidecar {}</h1>\n<p>", env!("CARGO_PKG_VERSION"))?;
    if !snapshot.node.is_empty() {
        write!(out, "Node {}. ", Escaped(&snapshot.node))?;
    }
    let uptime = humantime::format_duration(std::time::Duration::from_secs(snapshot.uptime.as_secs()));
    writeln!(out, "It is {} and has been running for {uptime}.", health(&snapshot.modules).as_str())?;

    out.write_all(b"<ul>\n")?;
    for path in [metrics_path].into_iter().chain(FIXED_PATHS.iter().map(|(path, _)| *path)).filter(|path| *path != "/")
    {
        writeln!(out, "<li><a href=\"{0}\">{0}</a>", Escaped(path))?;
    }
    out.write_all(b"</ul>\n<table>\n<tr><th>Module<th>Status<th>What it shows\n")?;
    for module in &snapshot.modules {
        let (name, status, summary) = (Escaped(module.name), module.status, Escaped(module.summary));
        write!(out, "<tr><td>{name}<td>{status}<td>{summary}")?;
        if !module.reason.is_empty() {
            write!(out, "<br>{}", Escaped(&module.reason))?;
        }
        out.write_all(b"\n")?;
    }
    out.write_all(b"</table>\n")
}

/// Text that is safe in content and in quoted attributes.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for piece in self.0.split_inclusive(['&', '<', '>', '"']) {
            let (plain, entity) = match piece.as_bytes().last() {
                Some(b'&') => (&piece[..piece.len() - 1], "&amp;"),
                Some(b'<') => (&piece[..piece.len() - 1], "&lt;"),
                Some(b'>') => (&piece[..piece.len() - 1], "&gt;"),
                Some(b'"') => (&piece[..piece.len() - 1], "&quot;"),
                _ => (piece, ""),
            };
            f.write_str(plain)?;
            f.write_str(entity)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_become_markup() {
        assert_eq!(Escaped("a<b>&\"c\" é").to_string(), "a&lt;b&gt;&amp;&quot;c&quot; é");
    }
}
