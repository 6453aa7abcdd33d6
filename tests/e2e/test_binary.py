"""The release build starts."""

import subprocess
from pathlib import Path

BINARY = Path(__file__).parents[2] / "target/release/ebpf-sidecar"


def test_version_succeeds():
    assert subprocess.run([BINARY, "version"], timeout=10).returncode == 0
