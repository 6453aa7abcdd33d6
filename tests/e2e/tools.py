"""What every test needs: programs that must succeed, and waiting for something instead of for a while."""

import itertools
import json
import socket
import subprocess
import time


def inside(namespace, command):
    """The command as it runs in a network namespace; `ip` replaces itself by it, so its pid is the command's."""
    prefix = ["ip", "netns", "exec", namespace] if namespace else []
    return [*prefix, *map(str, command)]


def run(*command, namespace=None, timeout=60, stdin=None):
    """Runs a program that has to succeed, and returns what it printed."""
    done = subprocess.run(inside(namespace, command), input=stdin, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, f"{command} ended with {done.returncode}: {done.stdout}{done.stderr}"
    return done.stdout


def run_json(*command, **options):
    return json.loads(run(*command, **options))


def until(condition, timeout=20, interval=0.02):
    """Asks until the answer is true, and returns it; fails with the last answer."""
    deadline = time.monotonic() + timeout
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"not within {timeout} s; the last answer was {answer!r}"
        time.sleep(interval)
    return answer


def free_port():
    """A port that nobody listens on, below those that the kernel gives to clients. None comes twice, so that the series
    of different tests stay apart."""
    while True:
        port = 10_000 + next(_ports) % 20_000
        with socket.socket() as probe:
            try:
                probe.bind(("0.0.0.0", port))
                return port
            except OSError:
                continue


# Runs of the tests that follow each other begin at different ports.
_ports = itertools.count(time.time_ns() // 1_000_000)
