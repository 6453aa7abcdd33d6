"""Network namespaces that undo themselves."""

import ctypes
import itertools
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from tools import run

_numbers = itertools.count()


class Place:
    """Where a client meets a server: their namespaces, and the address that the server listens on."""

    def __init__(self, client, server, ip):
        self.client, self.server, self.ip = client, server, ip

    @property
    def url_host(self):
        return f"[{self.ip}]" if ":" in self.ip else self.ip


@contextmanager
def namespaces(count):
    """New ones, with their loopback up."""
    names = [f"sidecar-e2e-{os.getpid()}-{next(_numbers)}" for _ in range(count)]
    made = []
    try:
        for name in names:
            run("ip", "netns", "add", name)
            made.append(name)
            run("ip", "-n", name, "link", "set", "lo", "up")
        yield names
    finally:
        for name in made:
            run("ip", "netns", "del", name)


@contextmanager
def pair():
    """Two namespaces joined by a veth, and the IPv4 and IPv6 addresses of the second."""
    with namespaces(2) as (a, b):
        # Addresses that no other network of this machine is likely to have.
        pid = os.getpid()
        v4, v6 = f"10.{200 + pid // 256 % 50}.{pid % 256}", f"fd5e:{pid % 65536:x}:"
        run("ip", "link", "add", "veth0", "netns", a, "type", "veth", "peer", "name", "veth0", "netns", b)
        for name, host in [(a, 1), (b, 2)]:
            run("ip", "-n", name, "addr", "add", f"{v4}.{host}/24", "dev", "veth0")
            run("ip", "-n", name, "addr", "add", f"{v6}:{host}/64", "dev", "veth0", "nodad")
            run("ip", "-n", name, "link", "set", "veth0", "up")
        yield a, b, f"{v4}.2", f"{v6}:2"


def within(namespace, action):
    """Does something in a thread that lives in a namespace. Sockets made there stay there, and can be used here."""
    clone_newnet = 0x40000000  # CLONE_NEWNET of sched.h

    def enter():
        with open(f"/run/netns/{namespace}") as file:
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.setns(file.fileno(), clone_newnet) != 0:
                raise OSError(ctypes.get_errno(), "setns")

    with ThreadPoolExecutor(1, initializer=enter) as thread:
        return thread.submit(action).result()


def lose(namespace, percent):
    """From now on, so many of 100 TCP segments that arrive there are lost."""
    rule = f"meta l4proto tcp numgen random mod 100 < {percent} counter drop"
    table = f"table inet loss {{ chain input {{ type filter hook input priority 0; {rule}; }}; }}\n"
    run("nft", "-f", "-", namespace=namespace, stdin=table)


def lose_nothing(namespace):
    run("nft", "delete", "table", "inet", "loss", namespace=namespace)


def kernel_counter(namespace, name):
    """The kernel's own count for a namespace, from /proc/net/snmp."""
    lines = run("cat", "/proc/net/snmp", namespace=namespace).splitlines()
    names, values = [line.split()[1:] for line in lines if line.startswith("Tcp:")]
    return int(dict(zip(names, values))[name])
