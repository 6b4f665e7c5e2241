"""KServe's clients against Fairway."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.conformance.conftest import Served


def test_its_rest_and_grpc_clients_work_unchanged(served: Served) -> None:
    program = Path(__file__).with_name("kserve_clients.py")
    done = subprocess.run(
        [sys.executable, program, served.url, served.grpc], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
