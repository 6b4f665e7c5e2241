"""The peers' environments: each its own, pinned, installed on first use."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

PEERS = Path(__file__).parents[1] / "peers"
_PATIENCE_S = 600


def environment(name: str) -> tuple[str | None, str]:
    """The Python of an environment with what ``NAME.txt`` pins, made on first use; else ``None`` and the reason."""
    python = PEERS / ".venv" / name / "bin" / "python"
    pinned = PEERS / f"{name}.txt"
    stamp = PEERS / ".venv" / name / "installed.txt"
    if stamp.is_file() and stamp.read_bytes() == pinned.read_bytes():
        return str(python), ""
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if uv is None:
        return None, "uv is not installed"
    print(f"installing {pinned.name}")
    for command in (
        [uv, "venv", "-q", "--clear", "--python", sys.executable, str(PEERS / ".venv" / name)],
        [uv, "pip", "install", "-q", "--python", str(python), "-r", str(pinned)],
    ):
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_PATIENCE_S)
        except subprocess.TimeoutExpired:
            return None, f"{pinned.name} could not be installed within {_PATIENCE_S} s"
        if done.returncode:
            return None, f"{pinned.name} could not be installed: {' '.join(done.stderr.strip().splitlines()[-1:])}"
    shutil.copy(pinned, stamp)
    return str(python), ""


def pinned_version(name: str, package: str) -> str:
    """What ``NAME.txt`` pins ``package`` to."""
    lines = (PEERS / f"{name}.txt").read_text().splitlines()
    return next(line.partition("==")[2] for line in lines if line.startswith(f"{package}=="))
