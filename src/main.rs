//! The `ebpf-sidecar` command.

use std::env::consts::ARCH;
use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::{Context, Error, Result};
use clap::Parser;
use ebpf_sidecar::check::{self, Report};
use ebpf_sidecar::cli::{Cli, Command, Output, Settings};
use ebpf_sidecar::config::{self, ConfigError, Loaded};
use ebpf_sidecar::kernel::Kernel;
use ebpf_sidecar::privileges::{self, Missing};
use ebpf_sidecar::{app, telemetry};

fn main() -> ExitCode {
    give_memory_back();
    let code = dispatch(Cli::parse().into_command()).unwrap_or_else(|error| {
        eprintln!("ebpf-sidecar: {error:#}");
        exit_code(&error)
    });
    ExitCode::from(code)
}

/// Whoever frees a large block once makes glibc keep such blocks from then on, for each thread: a page and its compressor
/// are large, and rare. Once the threshold is set, it stays where it is. And a thread that encodes now and then needs no
/// arena of its own.
fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: each takes two integers, and there is no other thread yet.
    unsafe {
        libc::mallopt(libc::M_TRIM_THRESHOLD, 128 << 10);
        libc::mallopt(libc::M_ARENA_MAX, 2);
    }
}

fn dispatch(command: Command) -> Result<u8> {
    match command {
        Command::Run(settings) => {
            let config = load(&settings)?.config;
            telemetry::start(&config.log);
            privileges::require(&privileges::held()?)?;
            app::run(config)?;
            Ok(0)
        }
        Command::Check { settings, output } => {
            let config = load(&settings)?.config;
            let (kernel, held) = (Kernel::probe(app::btf_names()), privileges::held()?);
            let (modules, helpers) = (app::plan(&config, &kernel), app::helpers(&kernel));
            let report = Report::new(&kernel, &held, config.target.to_string(), &modules, &helpers);
            match output {
                Output::Human => print(&report.to_string())?,
                Output::Json => print(&format!("{:#}\n", report.to_json()))?,
            };
            Ok(check::verdict(&report))
        }
        Command::Config(settings) => print(&load(&settings)?.effective.to_string()),
        Command::Version => print(&format!("ebpf-sidecar {} {ARCH}\n", env!("CARGO_PKG_VERSION"))),
    }
}

fn load(settings: &Settings) -> Result<Loaded, ConfigError> {
    config::load(settings.config.as_deref(), config::process_environment(), &settings.flags())
}

/// A reader that has seen enough, such as `head`, is no failure.
fn print(text: &str) -> Result<u8> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("cannot write to stdout"),
        _ => Ok(0),
    }
}

fn exit_code(error: &Error) -> u8 {
    match error {
        error if error.is::<ConfigError>() => 2,
        error if error.is::<Missing>() => 3,
        error if error.downcast_ref().is_some_and(app::Error::is_configuration) => 2,
        error if error.downcast_ref().is_some_and(app::Error::is_unfit) => 2,
        _ => 1,
    }
}
