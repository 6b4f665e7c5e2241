"""NVIDIA's Triton, from PyTriton's wheel: the real server, with its Python backend and no other."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import IO

import pytest

ENVIRONMENT = Path(__file__).parents[2] / "benchmarks" / "peers" / ".venv" / "triton"
"""Made by the benchmarks of serving: PyTriton needs another NumPy than Fairway."""

_READY = "Started HTTPService"
_PATIENCE_S = 120


def installed() -> Path:
    """Its Python environment; a test that has none is skipped, and fails in CI."""
    if not (ENVIRONMENT / "installed.txt").is_file():
        reason = "no Triton here; install it with: make bench-serving"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return ENVIRONMENT


@contextmanager
def serving(repository: Path, scratch: Path) -> Iterator[str]:
    """``host:port`` of a server of ``repository``, once it is ready."""
    packages = next((installed() / "lib").glob("python3*/site-packages"))
    wheel = packages / "pytriton" / "tritonserver"
    backend = scratch / "backends" / "python"
    shutil.copytree(wheel / "backends" / "python", backend)
    shutil.copy(
        wheel / "python_backend_stubs" / "{}.{}".format(*sys.version_info) / "triton_python_backend_stub", backend
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    libraries = [sysconfig.get_config_var("LIBDIR"), str(packages / "nvidia_pytriton.libs")]
    environment = {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(libraries)}
    environment["PATH"] = f"{ENVIRONMENT / 'bin'}{os.pathsep}{environment['PATH']}"
    command = [
        *(str(wheel / "bin" / "tritonserver"), f"--model-repository={repository}"),
        *(f"--backend-directory={backend.parent}", "--http-address=127.0.0.1", f"--http-port={port}"),
        *("--allow-grpc=false", "--allow-metrics=false", "--exit-timeout-secs=5"),
    ]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    assert process.stderr is not None
    log, said = list[str](), Event()
    reader = Thread(target=_read, args=(process.stderr, log, said), daemon=True)
    reader.start()
    try:
        assert said.wait(_PATIENCE_S), "Triton did not say that it is ready"
        assert any(_READY in line for line in log), "".join(log)
        _reach(("127.0.0.1", port), process)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)
        reader.join(30)
        process.stderr.close()


def _reach(address: tuple[str, int], process: subprocess.Popen[str]) -> None:
    """Wait until it listens, which is a little after it says so."""
    while process.poll() is None:
        with suppress(ConnectionRefusedError), socket.create_connection(address, timeout=_PATIENCE_S):
            return
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.05)
    raise AssertionError("Triton ended")


def _read(stream: IO[str], log: list[str], said: Event) -> None:
    for line in stream:
        log.append(line)
        if _READY in line:
            said.set()
    said.set()
