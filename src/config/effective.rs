//! The configuration that holds, for people: each key, its value and where that came from.

use std::fmt;

use figment::Figment;

use super::error::origin;
use super::keys::Keys;
use super::shape;

/// Where the comments begin, if the value leaves room.
const COMMENT_COLUMN: usize = 44;

/// Displays as a configuration file with the origin of each value as a comment. It holds no secrets: those are named
/// by the files that hold them.
#[derive(Debug)]
pub struct Effective {
    lines: Vec<Line>,
}

#[derive(Debug)]
struct Line {
    key: String,
    value: String,
    origin: String,
}

impl Effective {
    pub(super) fn new(figment: &Figment, keys: &Keys) -> Self {
        let line = |key: &str| {
            let value = figment.find_value(key).expect("defaults have every key");
            Line { key: key.to_owned(), value: shape::show(&value), origin: origin(figment, key) }
        };
        Effective { lines: keys.leaves().map(line).collect() }
    }

    /// The origin of a key's value as it is shown; `None` if there is no such key.
    pub fn origin_of(&self, key: &str) -> Option<&str> {
        self.lines.iter().find(|line| line.key == key).map(|line| line.origin.as_str())
    }

    /// The value of a key as it is shown; `None` if there is no such key.
    pub fn value_of(&self, key: &str) -> Option<&str> {
        self.lines.iter().find(|line| line.key == key).map(|line| line.value.as_str())
    }
}

impl fmt::Display for Effective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut open: Vec<&str> = Vec::new();
        for line in &self.lines {
            let mut sections: Vec<&str> = line.key.split('.').collect();
            let name = sections.pop().expect("a key has at least one part");
            let shared = open.iter().zip(&sections).take_while(|(a, b)| a == b).count();
            for (depth, section) in sections.iter().enumerate().skip(shared) {
                writeln!(f, "{:indent$}{section}:", "", indent = 2 * depth)?;
            }
            let entry = format!("{:indent$}{name}: {}", "", line.value, indent = 2 * sections.len());
            writeln!(f, "{entry:COMMENT_COLUMN$}  # {}", line.origin)?;
            open = sections;
        }
        Ok(())
    }
}
