//! Stand-in for the configuration types of the servers.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Both listeners.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// gRPC.
    pub grpc: grpc::Config,
    /// HTTP.
    pub http: http::Config,
}

/// A value that cannot work.
#[derive(Debug)]
pub struct Invalid {
    /// The key.
    pub key: String,
    /// What is wrong.
    pub problem: String,
}

impl Config {
    /// Checks.
    ///
    /// # Errors
    /// None here.
    pub fn validate(&self) -> Result<(), Invalid> {
        Ok(())
    }
}

/// Files of a TLS listener.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// Certificate chain.
    pub cert_file: Option<PathBuf>,
    /// Its key.
    pub key_file: Option<PathBuf>,
    /// Whose clients are let in.
    pub client_ca_file: Option<PathBuf>,
}

/// gRPC.
pub mod grpc {
    use super::*;

    /// Settings.
    #[derive(Debug, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct Config {
        /// Address.
        pub address: IpAddr,
        /// Port.
        pub port: u16,
        /// TLS.
        pub tls: Tls,
    }

    impl Default for Config {
        fn default() -> Self {
            Config { address: Ipv4Addr::LOCALHOST.into(), port: 9090, tls: Tls::default() }
        }
    }
}

/// HTTP.
pub mod http {
    use super::*;

    /// Settings.
    #[derive(Debug, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct Config {
        /// Address.
        pub address: IpAddr,
        /// Port.
        pub port: u16,
        /// Path.
        pub metrics_path: String,
        /// TLS.
        pub tls: Tls,
        /// Who may ask.
        pub auth: Auth,
    }

    /// Settings.
    #[derive(Debug, Default, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct Auth {
        /// Token.
        pub bearer_token_file: Option<PathBuf>,
    }

    impl Default for Config {
        fn default() -> Self {
            Config {
                address: Ipv4Addr::LOCALHOST.into(),
                port: 8080,
                metrics_path: "/metrics".to_owned(),
                tls: Tls::default(),
                auth: Auth::default(),
            }
        }
    }
}
