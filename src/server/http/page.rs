//! The page for people: what is here, how the modules fare, and the busiest connections.

use std::fmt;
use std::io::{self, Write};

use super::answer::FIXED_PATHS;
use crate::snapshot::{Sample, Snapshot, Value};
use crate::status::health;

/// Rows of the table of connections.
const ROWS: usize = 50;

/// Its columns of numbers, each a family that has one sample for every series, in the same order.
const COLUMNS: [(&str, &str); 4] = [
    ("Open", "sidecar_active_connections"),
    ("Bytes sent", "sidecar_connection_bytes_sent_total"),
    ("Bytes received", "sidecar_connection_bytes_received_total"),
    ("Retransmits", "sidecar_connection_retransmits_total"),
];

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
.n { text-align: right; font-variant-numeric: tabular-nums }
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
    out.write_all(b"</table>\n")?;
    write_connections(&busiest(snapshot), out)
}

/// One series of connections.
struct Row<'a> {
    sample: &'a Sample,
    numbers: [u64; COLUMNS.len()],
}

impl Row<'_> {
    fn label(&self, name: &str) -> Escaped<'_> {
        Escaped(self.sample.labels.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value))
    }
}

/// The series with open connections first, then those that moved most.
fn busiest(snapshot: &Snapshot) -> Vec<Row<'_>> {
    let columns = COLUMNS.map(|(_, name)| {
        let family = snapshot.families.iter().find(|family| family.descriptor.name == name);
        family.map_or(&[][..], |family| &family.samples)
    });
    let number = |sample: &Sample| if let Value::Integer(number) = sample.value { number } else { 0 };
    let row = |index: usize| Row {
        sample: &columns[0][index],
        numbers: columns.map(|column| column.get(index).map_or(0, number)),
    };
    let mut rows: Vec<_> = (0..columns[0].len()).map(row).collect();
    rows.sort_by_key(|Row { numbers: [open, sent, received, _], .. }| std::cmp::Reverse((*open > 0, sent + received)));
    rows.truncate(ROWS);
    rows
}

fn write_connections(rows: &[Row<'_>], out: &mut impl Write) -> io::Result<()> {
    out.write_all(b"<h2>Connections</h2>\n<table>\n<tr><th>Process<th>Role<th>Server")?;
    COLUMNS.iter().try_for_each(|(title, _)| write!(out, "<th class=n>{title}"))?;
    for row in rows {
        let [comm, role, ip, port] = ["comm", "role", "dst_ip", "dst_port"].map(|name| row.label(name));
        write!(out, "\n<tr><td>{comm}<td>{role}<td>{ip} port {port}")?;
        row.numbers.iter().try_for_each(|number| write!(out, "<td class=n>{number}"))?;
    }
    out.write_all(b"\n</table>\n")
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
    use crate::snapshot::{Descriptor, Family, Kind, labels};

    #[test]
    fn text_cannot_become_markup() {
        assert_eq!(Escaped("a<b>&\"c\" é").to_string(), "a&lt;b&gt;&amp;&quot;c&quot; é");
    }

    #[test]
    fn open_connections_come_first_then_the_busy_ones() {
        let family = |name, values: [u64; 3]| {
            let kind = Kind::Gauge;
            let descriptor = Box::leak(Box::new(Descriptor { name, help: "", unit: "", kind, module: "tcp" }));
            let mut family = Family::new(descriptor);
            for (comm, value) in ["quiet", "idle", "busy"].iter().zip(values) {
                family.integer(labels([("comm", comm)]), value);
            }
            family
        };
        let numbers = [[1, 0, 0], [5, 10, 20], [0, 0, 1], [0, 0, 0]];
        let families = COLUMNS.iter().zip(numbers).map(|((_, name), values)| family(name, values)).collect();
        let snapshot = Snapshot {
            sequence: 1,
            taken_at: std::time::SystemTime::UNIX_EPOCH,
            uptime: std::time::Duration::ZERO,
            node: "".into(),
            modules: vec![],
            helpers: vec![],
            families,
            bounds: [].into(),
        };
        let rows = busiest(&snapshot);
        assert_eq!(rows.iter().map(|row| row.label("comm").0).collect::<Vec<_>>(), ["quiet", "busy", "idle"]);
        assert_eq!(rows[1].numbers, [0, 20, 1, 0]);
    }
}
