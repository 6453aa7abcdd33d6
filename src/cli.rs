//! The command line. Flags that set a key only say which: the configuration judges their values, as it does those of
//! the environment.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::Flag;

/// Shows what the Linux kernel knows about TCP connections, retransmissions, drops, the page cache and reclaim.
#[derive(Debug, Parser)]
#[command(name = "ebpf-sidecar", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do; `run` if nothing is said.
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    settings: Settings,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon (the default)
    Run(Settings),
    /// Tell what this host supports: exit code 0 if everything, 1 if less, 2 if the daemon cannot run
    Check {
        #[command(flatten)]
        settings: Settings,
        /// Form of the report
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
    /// Print the effective configuration, and where each value came from
    Config(Settings),
    /// Print name, version and architecture
    Version,
}

/// Form of a report.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Human,
    /// For machines.
    Json,
}

/// Flags that set keys of the configuration.
#[derive(Debug, Default, Args)]
pub struct Settings {
    /// Configuration file (or name it in EBPF_SIDECAR_CONFIG)
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Modules to run, separated by commas
    #[arg(long, value_name = "NAMES")]
    modules: Option<String>,
    /// Watch only these processes, by their ids
    #[arg(long, value_name = "PIDS", value_parser = something)]
    pid: Option<String>,
    /// Watch only processes of these names
    #[arg(long, value_name = "NAMES", value_parser = something)]
    comm: Option<String>,
    /// Watch only connections to these ports
    #[arg(long, value_name = "PORTS", value_parser = something)]
    ports: Option<String>,
    /// Watch only a cgroup, with those below it
    #[arg(long, value_name = "PATH", value_parser = something)]
    cgroup: Option<String>,
    /// Watch only these containers, by name or id
    #[arg(long, value_name = "NAMES", value_parser = something)]
    container: Option<String>,
    /// Watch only these namespaces of Kubernetes
    #[arg(long, value_name = "NAMES", value_parser = something)]
    namespace: Option<String>,
    /// Port of /metrics and the rest of HTTP
    #[arg(long, value_name = "PORT")]
    metrics_port: Option<String>,
    /// Port of gRPC
    #[arg(long, value_name = "PORT")]
    grpc_port: Option<String>,
    /// Same as --log-level debug
    #[arg(long, conflicts_with = "log_level")]
    debug: bool,
    /// error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// text or json
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
}

/// An empty filter would watch everything, as when a variable of a script is not set.
fn something(text: &str) -> Result<String, &'static str> {
    let empty = text.split(',').all(|part| part.trim().is_empty());
    if empty { Err("it names nothing; leave it out to watch everything") } else { Ok(text.to_owned()) }
}

impl Cli {
    /// The command that was given or meant.
    pub fn into_command(self) -> Command {
        self.command.unwrap_or(Command::Run(self.settings))
    }
}

impl Settings {
    /// The keys that were set.
    pub fn flags(&self) -> Vec<Flag> {
        let debug = self.debug.then(|| "debug".to_owned());
        [
            ("--modules", "collector.modules", &self.modules),
            ("--pid", "target.pids", &self.pid),
            ("--comm", "target.comms", &self.comm),
            ("--ports", "target.ports", &self.ports),
            ("--cgroup", "target.cgroup", &self.cgroup),
            ("--container", "target.containers", &self.container),
            ("--namespace", "target.namespaces", &self.namespace),
            ("--metrics-port", "server.http.port", &self.metrics_port),
            ("--grpc-port", "server.grpc.port", &self.grpc_port),
            ("--debug", "log.level", &debug),
            ("--log-level", "log.level", &self.log_level),
            ("--log-format", "log.format", &self.log_format),
        ]
        .into_iter()
        .filter_map(|(flag, key, value)| Some(Flag { flag, key, value: value.clone()? }))
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn flags(line: &str) -> Vec<Flag> {
        match Cli::try_parse_from(line.split(' ')).unwrap().into_command() {
            Command::Run(settings) => settings.flags(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_filter_that_names_nothing_is_refused() {
        for flag in ["--pid", "--comm", "--ports", "--cgroup", "--container", "--namespace"] {
            for nothing in ["", " ", ","] {
                assert!(Cli::try_parse_from(["ebpf-sidecar", flag, nothing]).is_err(), "{flag} {nothing:?}");
            }
        }
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn run_need_not_be_said() {
        let port = Flag { flag: "--metrics-port", key: "server.http.port", value: "1".to_owned() };
        assert_eq!(flags("ebpf-sidecar --metrics-port 1"), flags("ebpf-sidecar run --metrics-port 1"));
        assert_eq!(flags("ebpf-sidecar run --metrics-port 1"), [port]);
        assert_eq!(flags("ebpf-sidecar"), []);
    }

    #[test]
    fn debug_is_short_for_a_level() {
        assert_eq!(flags("ebpf-sidecar --debug")[0].value, "debug");
        assert!(Cli::try_parse_from(["ebpf-sidecar", "--debug", "--log-level", "info"]).is_err());
    }
}
