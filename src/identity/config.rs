//! Whom the operator wants to be asked, and what is known without asking.

use std::path::Path;

use serde::{Deserialize, Serialize};

/// Where runtimes are found: empty for the usual places, if something is there; `off` for nowhere. And who we are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Socket of containerd or CRI-O, or of another runtime of Kubernetes.
    pub cri_socket: String,
    /// Socket of Docker, or of podman's service.
    pub docker_socket: String,
    /// The folder in which podman stores its containers.
    pub podman_storage: String,
    /// Name of the pod that the daemon runs in; empty if in none.
    pub pod_name: String,
    /// Namespace of that pod.
    pub pod_namespace: String,
}

impl Config {
    /// # Errors
    /// The first key whose value is not allowed, with what is.
    pub fn validate(&self) -> Result<(), (&'static str, &'static str)> {
        let all = [
            ("identity.cri_socket", &self.cri_socket),
            ("identity.docker_socket", &self.docker_socket),
            ("identity.podman_storage", &self.podman_storage),
        ];
        let wrong =
            all.iter().find(|(_, value)| !(value.is_empty() || *value == "off" || Path::new(value).is_absolute()));
        wrong.map_or(Ok(()), |(key, _)| {
            Err((key, "expected a path from the root, off, or nothing for the usual places"))
        })
    }
}
