//! When to stop.

use std::future::Future;
use std::io;
use std::process;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Duration, Instant};

/// Some send the same request twice in a row: to the process and to its group.
const SAME_REQUEST: Duration = Duration::from_secs(1);

/// Waits for a request to stop and tells its name. Signals count from the call on, not from the first poll, so that
/// none is lost while the daemon starts. A request that comes again later ends the process at once: whoever asks twice
/// does not want to wait for the first.
///
/// # Errors
/// If the handlers cannot be installed.
pub fn requested() -> io::Result<impl Future<Output = &'static str>> {
    // Sent by Kubernetes, container runtimes and systemd.
    let mut terminate = signal(SignalKind::terminate())?;
    // Sent by the terminal on Ctrl-C.
    let mut interrupt = signal(SignalKind::interrupt())?;
    // What log rotation and closed terminals send means nothing here, and must not end it: a handler is never taken back.
    for ignored in [SignalKind::hangup(), SignalKind::user_defined1(), SignalKind::user_defined2()] {
        drop(signal(ignored)?);
    }
    Ok(async move {
        let name = either(&mut terminate, &mut interrupt).await;
        let asked = Instant::now();
        tokio::spawn(async move {
            loop {
                either(&mut terminate, &mut interrupt).await;
                if asked.elapsed() > SAME_REQUEST {
                    process::exit(1);
                }
            }
        });
        name
    })
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::{Signal, raise};

    use super::*;

    #[tokio::test]
    async fn a_signal_before_the_first_look_is_not_lost() {
        let stop = requested().unwrap();
        raise(Signal::SIGTERM).unwrap();
        assert_eq!(stop.await, "SIGTERM");
    }

    #[tokio::test]
    async fn log_rotation_does_not_end_it() {
        let _stop = requested().unwrap();
        [Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2].into_iter().for_each(|ignored| raise(ignored).unwrap());
    }
}
