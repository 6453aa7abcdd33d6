"""BPF objects as the kernel lists them."""

import os
from pathlib import Path

from tools import run_json

KINDS = ("prog", "map", "link")


def owned(pid):
    """The ids of the objects that a process holds, by kind: others on this machine may have some too."""
    ids = {kind: set() for kind in KINDS}
    for file in os.listdir(f"/proc/{pid}/fdinfo"):
        try:
            text = Path(f"/proc/{pid}/fdinfo/{file}").read_text()
        except FileNotFoundError:
            continue
        lines = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
        # A link names its program too, which need not have a descriptor of its own.
        for kind in KINDS:
            if f"{kind}_id" in lines:
                ids[kind].add(int(lines[f"{kind}_id"]))
    return ids


def listed(kind):
    """All of a kind, by id."""
    return {found["id"]: found for found in run_json("bpftool", "-j", kind, "show")}


def left(ids):
    """Those that are still there."""
    return {kind: found for kind in KINDS if (found := ids[kind] & listed(kind).keys())}
