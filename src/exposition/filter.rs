//! Which samples a reader wants.

use thiserror::Error;

use crate::proto::MetricFilter;
use crate::snapshot::{Descriptor, Labels, Snapshot};

/// A filter that was found valid.
#[derive(Debug, Clone, Default)]
pub struct Filter(MetricFilter);

/// A filter that makes no sense, and where.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field}: {problem}")]
pub struct FilterError {
    /// Path of the field in the request.
    pub field: &'static str,
    problem: String,
}

impl FilterError {
    pub(super) fn new(field: &'static str, problem: String) -> FilterError {
        FilterError { field, problem }
    }
}

impl Filter {
    /// Checks a filter against what there is.
    ///
    /// # Errors
    /// If no snapshot of this daemon could ever match it.
    pub fn new(filter: MetricFilter, snapshot: &Snapshot) -> Result<Filter, FilterError> {
        let known = || {
            let own = snapshot.families.iter().map(|family| family.descriptor.module);
            snapshot.modules.iter().map(|module| module.name).chain(own)
        };
        if let Some(unknown) = filter.modules.iter().find(|module| !known().any(|name| name == **module)) {
            let mut names: Vec<_> = known().collect();
            names.sort_unstable();
            names.dedup();
            let problem = format!("there is no module {unknown:?}; there are {}", names.join(", "));
            return Err(FilterError { field: "filter.modules", problem });
        }
        if !filter.name_prefix.is_empty() && !is_name(&filter.name_prefix) {
            let problem = format!("no metric name begins with {:?}", filter.name_prefix);
            return Err(FilterError { field: "filter.name_prefix", problem });
        }
        if let Some(name) = filter.labels.keys().find(|name| !is_name(name)) {
            return Err(FilterError { field: "filter.labels", problem: format!("{name:?} is not a label name") });
        }
        Ok(Filter(filter))
    }

    /// Whether the family is wanted.
    pub fn admits(&self, descriptor: &Descriptor) -> bool {
        let MetricFilter { modules, name_prefix, .. } = &self.0;
        (modules.is_empty() || modules.iter().any(|module| module == descriptor.module))
            && descriptor.name.starts_with(name_prefix)
    }

    /// Whether a sample of such a family is wanted. As in Prometheus, an absent label equals an empty one.
    pub fn admits_sample(&self, labels: &Labels) -> bool {
        self.0.labels.iter().all(|(wanted, value)| {
            labels.iter().find(|(name, _)| name == wanted).map_or("", |(_, value)| value) == value
        })
    }
}

/// Label names may be written as metric names without a colon, and we use none there either.
fn is_name(text: &str) -> bool {
    !text.starts_with(|first: char| first.is_ascii_digit())
        && !text.is_empty()
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_identifiers() {
        assert!(is_name("dst_ip") && is_name("_x9"));
        assert!(!is_name("") && !is_name("9x") && !is_name("bad-label") && !is_name("é"));
    }
}
