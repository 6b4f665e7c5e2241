"""A small project on scikit-learn's digits: data files, checkpoints, a ``fairway.toml``, and the program run in it."""

from __future__ import annotations

import atexit
import json
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from fairway.testing.builders import linear_bundle
from tests.conftest import Digits

FAIRWAY = (sys.executable, "-W", "error", "-m", "fairway")

TOML = """\
[model]
name = "digits"
source = "{source}"

[data]
test = "test.parquet"
label = "digit"
features = ["pixel_*"]

[[slices]]
name = "faint"
where = "ink < 0.25"

[gate]
accuracy_score = {{ min = {floor} }}
latency_p99_ms = {{ max = 5000, at_rps = 1000 }}
error_rate = {{ max = 0.05 }}

[evaluate]
resamples = 100
analyses = ["errors"]
processes = 1

[serve]
port = 0
stop_delay_s = 0.0
poll_s = 0.05

[release]
min_requests = 100
interval_s = 0.2

[monitor]
window_s = 0.2
min_rows = 200
"""
"""Limits that no machine is too slow for, at loads that take two seconds."""

TRAIN = """\
import pickle
from pathlib import Path

def fit():
    return pickle.loads((Path(__file__).parent / "model.pkl").read_bytes())

def broken():
    raise RuntimeError("no such day")
"""


class Answer(NamedTuple):
    """What a command left: its exit code, and what it printed."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """Of a command with ``--json``: one document, and nothing else."""
        return json.loads(self.out)


def write_files(folder: Path, digits: Digits) -> None:
    """``test.parquet``, ``train.parquet``, ``model.pkl``, ``train.py``, and models ``good``, ``other``, ``bad`` as ONNX."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for name, rows, labels in (("train", digits.x_train, digits.y_train), ("test", digits.x_test, digits.y_test)):
        columns: dict[str, Any] = {column: rows[:, i] for i, column in enumerate(digits.columns)}
        columns |= {"ink": rows.mean(axis=1), "digit": labels}
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    (folder / "model.pkl").write_bytes(pickle.dumps(digits.model))
    (folder / "train.py").write_text(TRAIN)
    weights, bias = digits.model.coef_.T, digits.model.intercept_
    models = {"good": weights, "other": weights * 1.01, "bad": np.zeros_like(weights)}
    for name, matrix in models.items():
        bundle = linear_bundle(folder / f"{name}.fairway", name=name, weights=matrix, bias=bias)
        bundle.file("model.onnx").rename(folder / f"{name}.onnx")
        bundle.path.joinpath("manifest.json").unlink()
        bundle.path.rmdir()


def write_toml(folder: Path, *, source: str = "good.onnx", floor: float = 0.9, extra: str = "") -> Path:
    """The project's settings; ``extra`` is added at the end."""
    path = folder / "fairway.toml"
    path.write_text(TOML.format(source=source, floor=floor) + extra)
    return path


def edit(folder: Path, old: str, new: str) -> None:
    """Change ``fairway.toml`` as in an editor. What is to be changed must be there."""
    path = folder / "fairway.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def run_here(capfd: pytest.CaptureFixture[str], *arguments: str | Path) -> Answer:
    """Run a command in this process: as the program does, without the second that starting it takes."""
    from fairway.cli import main

    capfd.readouterr()
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    printed = capfd.readouterr()
    code = ended.value.code
    assert isinstance(code, int)
    return Answer(code, printed.out, printed.err)


def run_there(folder: Path, *arguments: str | Path, environ: dict[str, str] | None = None) -> Answer:
    """Run a command in a process of its own."""
    done = subprocess.run(
        [*FAIRWAY, *map(str, arguments)], cwd=folder, capture_output=True, text=True, check=False, env=environ
    )
    return Answer(done.returncode, done.stdout, done.stderr)


@contextmanager
def serving(
    folder: Path, *arguments: str, environ: dict[str, str] | None = None
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """``fairway serve`` in the background: its URL, once it says that it is ready, and its process."""
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(
            [*FAIRWAY, "serve", "--port", "0", "--json", *arguments],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environ,
        )
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            assert line, (folder / "server.log").read_text()
            yield json.loads(line)["url"], process
        finally:
            process.terminate()
            process.wait(30)
            process.stdout.close()


def rows_of(digits: Digits, start: int = 0, stop: int = 450) -> dict[str, NDArray[np.float32]]:
    return {"x": digits.x_test[start:stop]}


def without_settings(environ: dict[str, str] | None = None) -> dict[str, str]:
    """The environment without ``FAIRWAY_*``, and with ``environ``. Programs find modules compiled by those before."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FAIRWAY_")}
    if kept.pop("PYTHONDONTWRITEBYTECODE", ""):  # each start would else take twice as long
        kept["PYTHONPYCACHEPREFIX"] = _compiled()
    return kept | (environ or {})


@cache
def _compiled() -> str:
    folder = tempfile.TemporaryDirectory(prefix="fairway-compiled-")
    atexit.register(folder.cleanup)
    return folder.name


def one_line(text: str) -> bool:
    return text.count("\n") == 1 and text.endswith("\n")


def errors_of(err: str) -> Sequence[str]:
    """The lines that tell an error, without progress."""
    return [line for line in err.splitlines() if not line.startswith(("- ", "  "))]
