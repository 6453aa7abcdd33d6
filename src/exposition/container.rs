//! What is known of a container, by the same names wherever it is shown.

use serde::{Serialize, Serializer};

use crate::identity::Workload;

/// Names and values; what is not known is empty.
pub fn names(workload: Option<&Workload>) -> [(&'static str, &str); 4] {
    [
        ("container_id", workload.map_or("", |workload| &workload.container_id)),
        ("container_name", workload.map_or("", |workload| &workload.container)),
        ("pod_name", workload.map_or("", |workload| &workload.pod)),
        ("pod_namespace", workload.map_or("", |workload| &workload.namespace)),
    ]
}

/// An object of those that are known.
pub struct Names<'a>(pub [(&'static str, &'a str); 4]);

impl Serialize for Names<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().filter(|(_, text)| !text.is_empty()).copied())
    }
}
