//! The Prometheus text format, version 0.0.4. Nothing is allocated for a series.

use std::io::{self, Write};

use super::kind_name;
use crate::histogram::{Bound, Histogram};
use crate::snapshot::{Descriptor, Family, Labels, Sample, Snapshot, Value};

/// What an HTTP response calls it.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Writes all families.
///
/// # Errors
/// Those of the writer.
pub fn encode(snapshot: &Snapshot, out: &mut impl Write) -> io::Result<()> {
    snapshot.families.iter().try_for_each(|family| encode_family(family, &snapshot.bounds, out))
}

fn encode_family(family: &Family, bounds: &[Bound], out: &mut impl Write) -> io::Result<()> {
    let descriptor = family.descriptor;
    header(descriptor, out)?;
    for Sample { labels, value } in &family.samples {
        match value {
            Value::Integer(count) => {
                series(descriptor.name, "", labels, None, out)?;
                integer(*count, out)?;
            }
            Value::Number(quantity) => {
                series(descriptor.name, "", labels, None, out)?;
                number(*quantity, out)?;
            }
            Value::Histogram(histogram) => distribution(descriptor.name, labels, histogram, bounds, out)?,
        }
    }
    Ok(())
}

fn header(descriptor: &Descriptor, out: &mut impl Write) -> io::Result<()> {
    write!(out, "# HELP {} ", descriptor.name)?;
    escaped(descriptor.help, false, out)?;
    writeln!(out, "\n# TYPE {} {}", descriptor.name, kind_name(descriptor.kind))
}

fn distribution(
    name: &str,
    labels: &Labels,
    histogram: &Histogram,
    bounds: &[Bound],
    out: &mut impl Write,
) -> io::Result<()> {
    let count = histogram.count();
    for (bound, below) in histogram.cumulative(bounds).chain([(f64::INFINITY, count)]) {
        series(name, "_bucket", labels, Some(bound), out)?;
        integer(below, out)?;
    }
    series(name, "_sum", labels, None, out)?;
    number(histogram.sum(), out)?;
    series(name, "_count", labels, None, out)?;
    integer(count, out)
}

/// Name and labels, up to and with the space before the value.
fn series(name: &str, suffix: &str, labels: &Labels, le: Option<f64>, out: &mut impl Write) -> io::Result<()> {
    out.write_all(name.as_bytes())?;
    out.write_all(suffix.as_bytes())?;
    let mut opener: &[u8] = b"{";
    for (label, value) in labels.iter() {
        out.write_all(opener)?;
        out.write_all(label.as_bytes())?;
        out.write_all(b"=\"")?;
        escaped(value, true, out)?;
        opener = b"\",";
    }
    if let Some(bound) = le {
        out.write_all(opener)?;
        out.write_all(b"le=\"")?;
        float(bound, out)?;
        opener = b"\",";
    }
    // The opener tells whether anything was opened.
    out.write_all(if opener == b"{" { b" " } else { b"\"} " })
}

fn integer(value: u64, out: &mut impl Write) -> io::Result<()> {
    out.write_all(itoa::Buffer::new().format(value).as_bytes())?;
    out.write_all(b"\n")
}

fn number(value: f64, out: &mut impl Write) -> io::Result<()> {
    float(value, out)?;
    out.write_all(b"\n")
}

fn float(value: f64, out: &mut impl Write) -> io::Result<()> {
    if value.is_nan() {
        out.write_all(b"NaN")
    } else if value.is_infinite() {
        out.write_all(if value > 0.0 { b"+Inf" } else { b"-Inf" })
    } else {
        // As the encoder of OpenMetrics does it: Prometheus compares boundaries as text.
        out.write_all(dtoa::Buffer::new().format_finite(value).as_bytes())
    }
}

/// Help text escapes backslash and newline; label values escape the quote as well.
fn escaped(text: &str, quoted: bool, out: &mut impl Write) -> io::Result<()> {
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|byte| matches!(byte, b'\\' | b'\n') || (quoted && *byte == b'"')) {
        out.write_all(&rest[..at])?;
        out.write_all(match rest[at] {
            b'\n' => b"\\n",
            b'"' => b"\\\"",
            _ => b"\\\\",
        })?;
        rest = &rest[at + 1..];
    }
    out.write_all(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> String {
        let mut out = Vec::new();
        write(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn label_values_and_help_are_escaped() {
        let odd = "a\\b\"c\nd é";
        assert_eq!(written(|out| escaped(odd, true, out)), r#"a\\b\"c\nd é"#);
        assert_eq!(written(|out| escaped(odd, false, out)), r#"a\\b"c\nd é"#);
        assert_eq!(written(|out| escaped("", true, out)), "");
    }

    #[test]
    fn floats_that_are_not_finite_have_names() {
        let shown =
            [f64::INFINITY, f64::NEG_INFINITY, f64::NAN, 0.1, 1.0].map(|value| written(|out| float(value, out)));
        assert_eq!(shown, ["+Inf", "-Inf", "NaN", "0.1", "1.0"]);
    }
}
