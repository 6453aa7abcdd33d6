//! Whom to ask for the names of containers: each source is a socket or a folder of one runtime.

mod containerd;
mod cri;
mod docker;
mod podman;
mod unix;

use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

use super::Config;
use super::store::{Answer, Unnamed};

/// A runtime that takes longer does not answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Larger answers are refused.
const MOST_BYTES: usize = 16 << 20;

/// What is asked, and how. Those who know more of Kubernetes come first: their word counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The runtime of the kubelet: containerd, CRI-O or cri-dockerd.
    Cri,
    /// Docker, or podman's stand-in for it.
    Docker,
    /// containerd, for containers of other people than the kubelet.
    Containerd,
    /// The files of podman, which has no daemon.
    Podman,
}

impl Kind {
    /// Its name in every output.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Cri => "cri",
            Kind::Docker => "docker",
            Kind::Containerd => "containerd",
            Kind::Podman => "podman",
        }
    }

    /// Where it is usually found. (A distribution's folder may be mounted under its older name.)
    fn well_known(self) -> &'static [&'static str] {
        match self {
            Kind::Cri => &[
                "/run/containerd/containerd.sock",
                "/run/crio/crio.sock",
                "/run/k3s/containerd/containerd.sock",
                "/run/k0s/containerd.sock",
                "/var/snap/microk8s/common/run/containerd.sock",
                "/run/cri-dockerd.sock",
            ],
            Kind::Docker => &["/var/run/docker.sock", "/run/podman/podman.sock"],
            Kind::Containerd => &["/run/containerd/containerd.sock"],
            Kind::Podman => &["/var/lib/containers/storage"],
        }
    }
}

/// One runtime at one place.
#[derive(Debug, Clone)]
pub struct Source {
    pub kind: Kind,
    pub path: PathBuf,
    /// Somebody said that it is there.
    pub named: bool,
}

/// Why a source has not answered.
#[derive(Debug, Error)]
pub enum AskError {
    /// There is nothing at its place, or something that does not speak this protocol.
    #[error("it is not there")]
    Absent,
    /// The configuration names a place, and there is nothing.
    #[error("there is nothing at this path")]
    Missing,
    /// It takes too long.
    #[error("it does not answer within {} s", PATIENCE.as_secs())]
    Silent,
    /// Something else is wrong.
    #[error("{0}")]
    Failed(String),
}

impl AskError {
    /// For `map_err`.
    fn failed(error: impl std::fmt::Display) -> AskError {
        AskError::Failed(error.to_string())
    }
}

/// Everybody who may be asked.
pub fn sources(config: &Config) -> Vec<Source> {
    let places = |kind, setting: &str| match setting {
        "off" => vec![],
        "" => Kind::well_known(kind).iter().map(|path| Source { kind, path: path.into(), named: false }).collect(),
        // What is missing is told once of each place.
        path => vec![Source { kind, path: path.into(), named: kind != Kind::Containerd }],
    };
    let sources = [
        (Kind::Cri, &config.cri_socket),
        (Kind::Docker, &config.docker_socket),
        (Kind::Containerd, &config.cri_socket),
        (Kind::Podman, &config.podman_storage),
    ];
    sources.into_iter().flat_map(|(kind, setting)| places(kind, setting)).collect()
}

impl Source {
    /// Lower ones know better.
    pub fn rank(&self) -> u8 {
        self.kind as u8
    }

    /// Asks who lives there.
    ///
    /// # Errors
    /// [`AskError`] if it does not tell.
    pub async fn ask(&self, unnamed: &Unnamed) -> Result<Answer, AskError> {
        let path: &Path = &self.path;
        if !path.exists() {
            return Err(if self.named { AskError::Missing } else { AskError::Absent });
        }
        let asking = async {
            match self.kind {
                Kind::Cri => cri::ask(path).await,
                Kind::Docker => docker::ask(path).await,
                Kind::Containerd => containerd::ask(path, unnamed).await,
                Kind::Podman => podman::ask(path),
            }
        };
        tokio::time::timeout(PATIENCE, asking).await.unwrap_or(Err(AskError::Silent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_is_named_is_the_only_one() {
        let config = Config { cri_socket: "/x.sock".into(), docker_socket: "off".into(), ..Config::default() };
        let found: Vec<_> = sources(&config).iter().map(|source| (source.kind, source.path.clone())).collect();
        assert_eq!(
            found,
            [
                (Kind::Cri, "/x.sock".into()),
                (Kind::Containerd, "/x.sock".into()),
                (Kind::Podman, "/var/lib/containers/storage".into())
            ]
        );
    }
}
