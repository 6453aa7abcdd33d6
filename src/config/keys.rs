//! The keys that exist, read off the serialised defaults.

use std::collections::BTreeMap;

use figment::value::{Dict, Value};

use super::Config;

/// Below this a name is no slip of the pen but something else, and a suggestion would mislead.
const ALIKE: f64 = 0.55;

/// All keys with their defaults, and the sections that hold them.
#[derive(Debug)]
pub struct Keys {
    leaves: BTreeMap<String, Value>,
    shapes: Value,
    sections: Vec<String>,
}

impl Keys {
    /// All there are.
    pub fn known() -> Self {
        let shapes = Value::serialize(Config::sample()).expect("a sample serialises");
        let mut keys = Keys { leaves: BTreeMap::new(), shapes, sections: Vec::new() };
        let defaults = Value::serialize(Config::default()).expect("the defaults serialise");
        keys.walk("", defaults.as_dict().expect("a configuration is a map"));
        keys
    }

    fn walk(&mut self, section: &str, entries: &Dict) {
        for (name, value) in entries {
            let key = join(section, name);
            match value {
                Value::Dict(_, inner) => {
                    self.walk(&key, inner);
                    self.sections.push(key);
                }
                leaf => {
                    self.leaves.insert(key, leaf.clone());
                }
            }
        }
    }

    /// The keys, in alphabetical order.
    pub fn leaves(&self) -> impl Iterator<Item = &str> {
        self.leaves.keys().map(String::as_str)
    }

    /// The default of a key; `None` if there is no such key.
    pub fn default_of(&self, key: &str) -> Option<&Value> {
        self.leaves.get(key)
    }

    /// A value in the shape that the key's values have: its default, or a list of one where that is empty.
    pub fn shape_of(&self, key: &str) -> Option<&Value> {
        self.leaves.contains_key(key).then(|| self.shapes.find_ref(key))?
    }

    /// Whether this is a section.
    pub fn is_section(&self, key: &str) -> bool {
        self.sections.iter().any(|section| section == key)
    }

    /// The names directly in a section.
    pub fn names_in(&self, section: &str) -> Vec<&str> {
        let all = self.sections.iter().map(String::as_str).chain(self.leaves());
        let mut names: Vec<_> = all
            .filter_map(|key| key.strip_prefix(section)?.strip_prefix('.'))
            .filter(|name| !name.contains('.'))
            .collect();
        names.sort_unstable();
        names
    }

    /// The key or section that an unknown key was probably meant to be.
    pub fn nearest(&self, unknown: &str) -> Option<String> {
        nearest(unknown, self.sections.iter().map(String::as_str).chain(self.leaves()).map(str::to_owned))
    }
}

/// The candidate most like `unknown`, if any is much like it or ends with it.
pub fn nearest(unknown: &str, candidates: impl Iterator<Item = String>) -> Option<String> {
    let ends = |candidate: &str| candidate.strip_suffix(unknown).is_some_and(|rest| rest.ends_with(['.', '_']));
    candidates
        .map(|candidate| (strsim::normalized_damerau_levenshtein(unknown, &candidate), candidate))
        .filter(|(likeness, candidate)| *likeness >= ALIKE || ends(candidate))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// A name in a section; the root has no name.
pub fn join(section: &str, name: &str) -> String {
    if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") }
}
