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

from benchmarks.serving.environments import environment

_READY = "Started HTTPService"
_PATIENCE_S = 120


def installed() -> Path:
    """Its Python environment, which is the benchmarks', made on first use: PyTriton needs another NumPy than Fairway.

    Where it cannot be made, a test is skipped; in CI it fails.
    """
    python, reason = environment("triton")
    if python is None:
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return Path(python).parents[1]


@contextmanager
def serving(repository: Path, scratch: Path) -> Iterator[str]:
    """``host:port`` of a server of ``repository``, once it is ready."""
    place = installed()
    packages = next((place / "lib").glob("python3*/site-packages"))
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
    variables = {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(libraries)}
    variables["PATH"] = f"{place / 'bin'}{os.pathsep}{variables['PATH']}"
    command = [
        *(str(wheel / "bin" / "tritonserver"), f"--model-repository={repository}"),
        *(f"--backend-directory={backend.parent}", "--http-address=127.0.0.1", f"--http-port={port}"),
        *("--allow-grpc=false", "--allow-metrics=false", "--exit-timeout-secs=5"),
    ]
    process = subprocess.Popen(command, env=variables, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
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
