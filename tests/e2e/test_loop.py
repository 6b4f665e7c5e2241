"""The whole loop as a user lives it: the program's commands, a real server, callers that must never notice."""

from __future__ import annotations

import itertools
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Lock
from typing import Any, NamedTuple

import numpy as np
import pytest

import fairway
from fairway.core.errors import FairwayError
from tests.conftest import Digits
from tests.projects import Answer, edit, run_there, serving, without_settings


class Callers:
    """Four callers, each asking for one row after another; what answered is counted by version."""

    def __init__(self, url: str, rows: Any) -> None:
        self._rows = rows
        self._client = fairway.connect(url)
        self._stop, self._lock = Event(), Lock()
        self._numbers = itertools.count()
        self.answers: Counter[str] = Counter()
        self.failures: list[FairwayError] = []

    def until(self, enough: Callable[[Counter[str]], bool], *, most: int = 30_000) -> Counter[str]:
        """Ask until ``enough`` of the answers since now; which versions answered them."""
        before = Counter(self.answers)
        for _ in range(most):
            self._ask()
            since = self.answers - before
            if enough(since):
                return since
        raise AssertionError(f"after {most} requests more, only {since} answered")

    @contextmanager
    def asking(self) -> Iterator[None]:
        """All through the block."""
        with ThreadPoolExecutor(4) as pool:
            working = [pool.submit(self._work) for _ in range(4)]
            try:
                yield
            finally:
                self._stop.set()
        for each in working:
            each.result()
        self._stop.clear()

    def close(self) -> None:
        self._client.close()

    def _work(self) -> None:
        while not self._stop.is_set():
            self._ask()

    def _ask(self) -> None:
        number = next(self._numbers)
        row = number % len(self._rows)
        try:
            answer = self._client.infer("digits", {"x": self._rows[row : row + 1]}, key=f"caller-{number}")
        except FairwayError as error:
            with self._lock:
                self.failures.append(error)
            return
        assert answer.outputs["probabilities"].shape == (1, 10)
        with self._lock:
            self.answers[answer.version] += 1


class Place(NamedTuple):
    """A project, and what every process in it finds in its environment."""

    folder: Path
    environ: dict[str, str]


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def place(request: pytest.FixtureRequest) -> Place:
    """On SQLite, with nothing done yet; on PostgreSQL, which only a variable names, with the evaluations made."""
    if request.param == "sqlite":
        return Place(request.getfixturevalue("folder"), without_settings())
    folder = request.getfixturevalue("released")
    edit(folder, "other.onnx", "good.onnx")
    return Place(folder, without_settings({"FAIRWAY_REGISTRY_URL": request.getfixturevalue("postgres_url")}))


def test_from_checkpoint_to_watched_service_and_back(place: Place, digits: Digits) -> None:
    folder, environ = place

    def do(*arguments: str, code: int = 0) -> Answer:
        answer = run_there(folder, *arguments, environ=environ)
        assert answer.code == code, f"{arguments}: {answer}"
        assert "Traceback" not in answer.err
        return answer

    def observed() -> int:
        return run_there(folder, "observe", "digits", environ=environ).code

    assert do("run", "--json").document["version"] == 1
    with serving(folder, environ=environ) as (url, process):
        callers = Callers(url, digits.x_test)
        assert set(callers.until(lambda seen: seen.total() >= 20)) == {"1"}

        edit(folder, "good.onnx", "other.onnx")
        assert do("run", "--json").document["release"]["challenger"] == 2
        do("release", "digits", "--weight", "0.5")
        both = callers.until(lambda seen: seen["2"] >= 50)
        assert both["1"] > 0

        with callers.asking():  # the swap, under load
            do("release", "digits", "--promote", "--reason", "it answers well")
        callers.until(ends_with("2"))
        do("rollback", "digits", "--reason", "it stutters")
        callers.until(ends_with("1"))
        assert callers.failures == []

        callers.until(lambda seen: seen.total() >= 1_500)
        assert observed() in (0, 2)
        callers.close()
        faint = Callers(url, (digits.x_test * 0.3).astype(np.float32))
        with faint.asking():
            assert any(observed() == 1 for _ in range(30)), "no drift was reported"
        assert faint.failures == []
        faint.close()

        status = do("status", "--json").document
        assert status["servers"][0]["url"] == url
        happened = [event["action"] for event in status["events"]]
        assert happened == ["registered", "released", "registered", "released", "weighted", "promoted", "rolled_back"]

        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert do("status", "--json").document["servers"] == []
    assert "Traceback" not in (folder / "server.log").read_text()


def ends_with(version: str, *, streak: int = 50) -> Callable[[Counter[str]], bool]:
    """That many answers in a row, and so all from now on, come from ``version``."""
    last, length = Counter[str](), 0

    def enough(seen: Counter[str]) -> bool:
        nonlocal last, length
        newest = next(iter(seen - last), version)
        last, length = Counter(seen), length + 1 if newest == version else 0
        return length >= streak

    return enough


def test_watching_promotes_on_the_evidence_of_traffic(released: Path, digits: Digits) -> None:
    edit(released, "min_requests = 100", "min_requests = 100\nweight = 0.5")
    assert run_there(released, "release", "digits", "--weight", "0.5", environ=without_settings()).code == 0
    with serving(released, environ=without_settings()) as (url, _):
        callers = Callers(url, digits.x_test)
        with callers.asking():
            answer = run_there(released, "release", "digits", "--watch", "--json", environ=without_settings())
        callers.close()
    assert answer.code == 0, answer.err
    assert answer.document["release"]["champion"] == 2
    assert callers.failures == []
    with fairway.Project.find().registry(create=False) as registry:
        promoted = registry.events("digits", newest=True, limit=1)[0]
    assert promoted.action == "promoted"
    assert promoted.evidence


@pytest.mark.parametrize(
    "registry", ["none", "half made", pytest.param("empty PostgreSQL", marks=pytest.mark.postgres)]
)
def test_a_first_evaluation_needs_no_registry(
    registry: str, released: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = released / ".fairway" / "registry.db"
    database.unlink()
    if registry == "half made":  # as a process leaves it that is killed before the tables are there
        database.touch()
    if registry == "empty PostgreSQL":
        monkeypatch.setenv("FAIRWAY_REGISTRY_URL", request.getfixturevalue("postgres_url"))
    report = fairway.evaluate(next(released.glob(".fairway/work/digits/*/source.fairway")))
    assert report.verdict.passed
    assert report.champion is None
