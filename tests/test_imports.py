"""What is loaded, and what is not: a fresh process tells."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.projects import without_settings

HEAVY = {
    "torch",
    "pandas",
    "sklearn",
    "scipy",
    "onnx",
    "pyarrow",
    "duckdb",
    "matplotlib",
    "jinja2",
    "transformers",
    "keras",
    "openvino",
}
"""Never where a model is served."""

SERVERS = {"sqlalchemy", "alembic", "onnxruntime", "uvicorn", "uvloop", "httptools", "starlette", "prometheus_client"}
"""Not before something is served."""

OTHERS = {"numpy", "msgspec", "orjson", "httpx", "typer", "click", "rich", "fsspec", "datasketches", "psutil"}

SERVED = """
import sys, tempfile
import numpy as np
import fairway
project = fairway.Project.find(sys.argv[1])
with fairway.serve(project=project, port=0, access_log=False) as server, fairway.connect(server.url) as client:
    answer = client.infer("digits", {"x": np.zeros((1, 64), np.float32)})
    assert answer.outputs["probabilities"].shape == (1, 10)
"""

TELL = "\nimport sys; print(*sorted({name.partition('.')[0] for name in sys.modules}))"


def loaded(code: str, *arguments: str) -> set[str]:
    """The packages that a process has loaded after ``code``."""
    done = subprocess.run(
        [sys.executable, "-c", code + TELL, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=without_settings(),
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split("\n")[-2].split())


def test_importing_fairway_loads_nothing_else() -> None:
    assert loaded("import fairway") & (HEAVY | SERVERS | OTHERS) == set()


@pytest.mark.parametrize(
    "name", ["Bundle", "Model", "FairwayError", "Project", "connect", "load", "evaluate", "pack", "run"]
)
def test_naming_a_verb_loads_nothing_heavy(name: str) -> None:
    assert loaded(f"import fairway; fairway.{name}") & (HEAVY | SERVERS - {"sqlalchemy"}) == set()


def test_help_loads_what_the_command_line_needs() -> None:
    code = "import fairway.cli\ntry: fairway.cli.main(['--help'])\nexcept SystemExit: pass"
    assert loaded(code) & (HEAVY | SERVERS) == set()


def test_a_server_that_answers_has_loaded_nothing_heavy(released: Path) -> None:
    packages = loaded(SERVED, str(released))
    assert packages & (HEAVY | {"alembic", "typer", "pydantic", "pytest"}) == set()
    assert packages >= {"onnxruntime", "uvicorn", "sqlalchemy"}
