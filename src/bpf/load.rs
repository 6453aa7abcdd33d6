//! Loading an object by its plan: what the verifier or the host's policy refuses is replaced by the next way or left
//! out, and the reason kept.

use std::cell::RefCell;
use std::sync::Once;

use libbpf_rs::{PrintLevel, set_print};
use thiserror::Error;

use crate::bpf::plan::{Missing, Plan};
use crate::kernel::Kernel;

/// Why a collector is not running.
#[derive(Debug, Error)]
pub enum LoadError {
    /// This kernel cannot run it.
    #[error("{0}")]
    Unsupported(#[from] Missing),
    /// It should run here, and something went wrong.
    #[error("{context}{}", if log.is_empty() { String::new() } else { format!(" (the kernel says: {log})") })]
    Failed {
        /// What was being done.
        context: &'static str,
        /// What libbpf or the kernel returned.
        source: libbpf_rs::Error,
        /// The end of libbpf's and the verifier's log.
        log: String,
    },
}

impl LoadError {
    /// For `map_err`: says what was being done.
    pub fn during(context: &'static str) -> impl Fn(libbpf_rs::Error) -> LoadError {
        move |source| LoadError::Failed { context, source, log: String::new() }
    }
}

/// Lines of the log that are kept: the verifier gives its verdict last.
const LOG_LINES: usize = 12;

thread_local! {
    /// What libbpf says, as long as this thread loads something.
    static LOG: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// Whom libbpf speaks to is the same for all threads, and they load at the same time.
fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        set_print(Some((PrintLevel::Warn, |_, line| {
            LOG.with_borrow_mut(|log| match log {
                Some(log) => log.push(line),
                None => eprint!("{line}"),
            });
        })));
    });
}

/// Lets `attempt` load what the plan takes until it succeeds or a hook is missing that cannot be done without.
/// Whatever program an attempt fails on is refused in the plan before the next one.
///
/// # Errors
/// [`LoadError::Unsupported`] if an indispensable hook is absent; [`LoadError::Failed`] if loading fails for a reason
/// that is no program's.
pub fn load<S>(
    plan: &mut Plan,
    kernel: &Kernel,
    mut attempt: impl FnMut(&Plan) -> libbpf_rs::Result<S>,
) -> Result<S, LoadError> {
    loop {
        plan.check()?;
        listen();
        LOG.set(Some(Vec::new()));
        let outcome = attempt(plan);
        let log = LOG.take().unwrap_or_default();
        let source = match outcome {
            Ok(loaded) => return Ok(loaded),
            Err(source) => source,
        };
        let tail = tail(&log);
        let refused = log.iter().rev().find_map(|line| failed_program(line));
        match refused {
            Some(program) if plan.refuse(program, &format!("{source} {tail}"), kernel) => (),
            _ => return Err(LoadError::Failed { context: "loading the BPF programs", source, log: tail }),
        }
    }
}

fn tail(log: &[String]) -> String {
    let lines: Vec<_> = log.iter().flat_map(|text| text.lines()).filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join(" | ")
}

/// The program of a message such as `libbpf: prog 'tcp_state': failed to load: -13`.
fn failed_program(line: &str) -> Option<&str> {
    let rest = line.trim_start().strip_prefix("libbpf: prog '")?;
    let (program, rest) = rest.split_once('\'')?;
    rest.contains("failed").then_some(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refused_program_is_found_in_libbpfs_words() {
        assert_eq!(failed_program("libbpf: prog 'tcp_state': failed to load: -13\n"), Some("tcp_state"));
        assert_eq!(failed_program("libbpf: prog 'tcp_state': BPF program load failed: -13\n"), Some("tcp_state"));
        assert_eq!(failed_program("libbpf: failed to load object 'tcp_bpf'\n"), None);
    }

    #[test]
    fn the_verdict_is_kept_of_a_log_of_any_length() {
        let steps = (0..100_000).map(|at| format!("{at}: (bf) r1 = r2\n")).collect::<String>();
        let verdict =
            "R6 invalid mem access 'scalar'\nprocessed 100000 insns (limit 1000000)\n-- END PROG LOAD LOG --\n";
        let log = [
            "libbpf: prog 'tcp_state': BPF program load failed: -EACCES\n".to_owned(),
            format!("libbpf: prog 'tcp_state': -- BEGIN PROG LOAD LOG --\n{steps}{verdict}"),
            "libbpf: prog 'tcp_state': failed to load: -EACCES\n".to_owned(),
        ];
        let kept = tail(&log);
        assert!(kept.len() < 1000 && kept.contains("R6 invalid mem access 'scalar'"), "{kept}");
        assert!(kept.ends_with("failed to load: -EACCES"), "{kept}");
    }
}
