"""Start the servers to be measured, each pinned to one core, and know what CPU time they use."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import msgspec
import psutil

HERE = Path(__file__).parent
PATH = "/v2/models/digits/infer"
_PATIENCE_S = 60


class Contestant(msgspec.Struct, frozen=True):
    """A server to measure. ``command`` may hold ``{port}``; ``toml`` is its ``fairway.toml``, if it reads one."""

    name: str
    command: tuple[str, ...]
    toml: str = ""


class Running(msgspec.Struct, frozen=True):
    """A started contestant."""

    name: str
    url: str
    process: psutil.Process

    def cpu_s(self) -> float:
        """CPU time used so far, user and system."""
        times = self.process.cpu_times()
        return float(times.user + times.system)


@contextlib.contextmanager
def started(contestant: Contestant, folder: Path, body: bytes, core: int) -> Iterator[Running]:
    """The contestant on ``core``, answering; stopped on exit."""
    folder.mkdir()
    (folder / "fairway.toml").write_text(contestant.toml)
    port = _free_port()
    command = ["taskset", "-c", str(core), *(part.format(port=port) for part in contestant.command)]
    with (folder / "log").open("wb") as log:
        child = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{port}{PATH}"
        _await(url, body, child, folder / "log")
        yield Running(contestant.name, url, psutil.Process(child.pid))
    finally:
        child.terminate()
        child.terminate()  # the second signal: do not wait for load balancers to take notice
        child.wait(30)


def environment(name: str) -> tuple[str | None, str]:
    """The Python of an environment with what ``NAME.txt`` pins, made on first use; else ``None`` and the reason."""
    python = HERE / ".venv" / name / "bin" / "python"
    pinned = HERE / f"{name}.txt"
    stamp = HERE / ".venv" / name / "installed.txt"
    if stamp.is_file() and stamp.read_bytes() == pinned.read_bytes():
        return str(python), ""
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if uv is None:
        return None, "uv is not installed"
    for command in (
        [uv, "venv", "-q", "--clear", "--python", sys.executable, str(HERE / ".venv" / name)],
        [uv, "pip", "install", "-q", "--python", str(python), "-r", str(pinned)],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            return None, f"{pinned.name} could not be installed: {done.stderr.strip().splitlines()[-1:]}"
    shutil.copy(pinned, stamp)
    return str(python), ""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _await(url: str, body: bytes, child: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    status: object = "no answer"
    while time.monotonic() < deadline:
        if child.poll() is not None:
            break
        try:
            answer = httpx.post(url, content=body, headers={"content-type": "application/json"})
        except httpx.TransportError:
            time.sleep(0.05)
            continue
        status = answer.status_code
        if answer.is_success and len(answer.json()["outputs"][0]["data"]) == 10:
            return
        time.sleep(0.05)
    raise SystemExit(f"{child.args!r} did not become ready ({status}):\n{log.read_text()}")


def of(commands: Sequence[str], *, model: Path) -> tuple[str, ...]:
    """A peer's command: its Python, its file here, the model and the port."""
    python, file = commands
    return (python, str(HERE / file), str(model), "{port}")
