"""Forms made several at a time are the same, and what happens to a process that makes them ends no search."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import psutil
import pytest

from fairway.bundle.format import Bundle, read_bundle
from fairway.core.launch import python
from fairway.optimization import explore, making
from fairway.optimization.build import build_candidate
from fairway.optimization.making import Job, Makers, Plan, Told
from fairway.optimization.passes.base import Sample
from fairway.optimization.recipes import Recipe, Stage, recipes
from fairway.optimization.settings import CANDIDATES, OptimizationSettings
from tests.conftest import Digits
from tests.optimization.conftest import bundle_of

STAGES = ".stages"
ROWS = {"rows": 256, "seed": 0, "data": "sha256:rows"}
RECIPES = (*recipes(OptimizationSettings(candidates=CANDIDATES), ROWS), Recipe("narrow", (Stage("narrow"),)))


@pytest.fixture
def source(mlp_graph: Path, digits: Digits, tmp_path: Path) -> Bundle:
    return bundle_of(tmp_path / "mlp.fairway", mlp_graph, digits.columns)


@pytest.fixture
def makers(source: Bundle, sample: Sample, tmp_path: Path) -> Iterator[Makers]:
    with Makers(source, sample, tmp_path, tmp_path / STAGES, cores=2) as found:
        assert found.count == 2
        yield found


def jobs(folder: Path) -> list[Job]:
    return [Job(recipe, str(folder / recipe.name)) for recipe in RECIPES]


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children()}


def test_forms_made_elsewhere_have_the_same_digests_and_what_cannot_be_made_says_why(
    makers: Makers, source: Bundle, sample: Sample, tmp_path: Path
) -> None:
    told = makers.make(jobs(tmp_path))
    assert list((tmp_path / STAGES).iterdir())  # which whoever makes the next form goes on from
    here = {}
    (tmp_path / "here").mkdir()
    for recipe in RECIPES[:-1]:
        here[recipe.name] = build_candidate(source, recipe, sample, tmp_path / "here" / recipe.name).digest
    assert {name: read_bundle(tmp_path / name).digest for name in here} == here
    assert told[:-1] == [Told()] * len(here)
    assert told[-1] is not None
    assert told[-1].reason
    assert not told[-1].failed


def test_a_process_that_is_killed_is_started_again_for_the_next_form(makers: Makers, tmp_path: Path) -> None:
    before = children()
    first, *rest = jobs(tmp_path)
    assert makers.make([first, first]) == [Told(), Told()]
    for pid in children() - before:
        os.kill(pid, signal.SIGKILL)
        psutil.Process(pid).wait(20)
    assert set(makers.make(rest[:2])) == {None}
    assert set(makers.make(rest[:2])) == {Told()}


def test_processes_end_with_the_search_and_leave_nothing(source: Bundle, sample: Sample, tmp_path: Path) -> None:
    before = children()
    (tmp_path / ".makers.killed").mkdir()
    with Makers(source, sample, tmp_path, tmp_path / STAGES, cores=2) as found:
        found.make(jobs(tmp_path)[:2])
        assert len(children() - before) == 2
    assert children() == before
    assert not list(tmp_path.glob(".makers.*"))


def test_a_process_ends_with_the_search_in_the_middle_of_a_form(source: Bundle, tmp_path: Path) -> None:
    graph = source.file("model.onnx")
    graph.unlink()
    os.mkfifo(graph)
    plan = Plan(str(source.path), {}, 0, None, (), str(tmp_path / "stages"), ())
    said = [msgspec.json.encode(each) + b"\n" for each in (plan, jobs(tmp_path)[0])]
    with subprocess.Popen(python("fairway.optimization.making"), stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.writelines(said)
        process.stdin.flush()
        with graph.open("wb", buffering=0):  # from here on the form waits for its graph
            process.stdin.close()  # as the kernel does for a search that is killed
            try:
                assert process.wait(20) == 0
            finally:
                process.kill()


def test_whoever_is_interrupted_waits_for_nobody(
    makers: Makers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    before = children()
    monkeypatch.setattr(ThreadPoolExecutor, "map", interrupted)
    with pytest.raises(KeyboardInterrupt):
        makers.make(jobs(tmp_path))
    assert children() == before


@pytest.mark.parametrize(
    ("available", "cores", "count"), [(10**11, 2, 2), (10**11, 64, 8), (10**9, 64, 1), (10**11, 1, 1)]
)
def test_there_are_no_more_processes_than_cores_and_memory(
    available: int,
    cores: int,
    count: int,
    source: Bundle,
    sample: Sample,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Memory:
        pass

    memory = Memory()
    memory.available = available  # type: ignore[attr-defined]
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    assert Makers(source, sample, tmp_path, tmp_path / STAGES, cores=cores).count == count


def test_where_there_is_no_room_for_the_sample_nothing_is_made_here(
    makers: Makers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    assert makers.make(jobs(tmp_path)[:2]) == [None, None]
    assert makers.count == 1


def test_texts_are_not_handed_over(source: Bundle, tmp_path: Path) -> None:
    texts = Sample({"text": np.array([b"a", b"b"], dtype=object)}, 2)
    assert Makers(source, texts, tmp_path, tmp_path / STAGES, cores=2).count == 1


# --- within a search ----------------------------------------------------------------------------------------------


@pytest.fixture
def search(source: Bundle, digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """A search on two cores."""
    from fairway.core.gate import Limit
    from fairway.core.metrics import Measurement
    from fairway.evaluation.settings import EvaluationSettings
    from fairway.optimization.optimize import optimize
    from fairway.sources.tables import make_table

    def rows(x: Any, y: Any) -> Any:
        return make_table({**dict(zip(digits.columns, x.T, strict=True)), "digit": y})

    def run(name: str, **changes: Any) -> Any:
        return optimize(
            source,
            table=rows(digits.x_test, digits.y_test),
            reference=rows(digits.x_train, digits.y_train),
            label="digit",
            gate={"accuracy_score": Limit(min=0.9)},
            workdir=tmp_path / name,
            measure=lambda b: [Measurement("latency_p50_ms", b.size_bytes, b.size_bytes, b.size_bytes, n=9)],
            evaluation=EvaluationSettings(resamples=100),
            **changes,
        )

    monkeypatch.setattr(making, "available", lambda: 2)
    return run


Go = Callable[[], bool]


def test_a_search_that_makes_ahead_ends_as_one_that_does_not_and_measures_while_nothing_is_made(
    search: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    at_work, together = list[str](), list[int]()
    make = Makers.make

    def watched(self: Makers, given: list[Job], may_begin: Go) -> list[Told | None]:
        together.append(len(given))
        at_work.append("making")
        try:
            return make(self, given, may_begin)
        finally:
            at_work.pop()

    def ratio(ours: Bundle, theirs: Bundle, *_: Any) -> float:
        assert not at_work
        return ours.size_bytes / theirs.size_bytes

    monkeypatch.setattr(Makers, "make", watched)
    monkeypatch.setattr(explore, "cost_ratio", ratio)
    found = []
    for name, worth_s in (("ahead", 0.0), ("alone", float("inf"))):
        monkeypatch.setattr(explore, "_WORTH_S", worth_s)
        found.append(search(name, settings=OptimizationSettings(trials=3)))
    ahead, alone = ([(c.name, c.status, c.digest, c.reason) for c in each.candidates] for each in found)
    assert ahead == alone
    assert together[0] == len(CANDIDATES)  # every start, and then as many as there are cores
    assert set(together[1:]) <= {2}


def test_what_was_made_ahead_is_tried_when_no_time_is_left(
    search: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    now, make = [0.0], Makers.make

    def slow(self: Makers, given: list[Job], may_begin: Go) -> list[Told | None]:
        try:
            return make(self, given, may_begin)
        finally:
            now[0] = 1e6

    monkeypatch.setattr(Makers, "make", slow)
    monkeypatch.setattr(explore, "_WORTH_S", 0.0)
    found = search("late", settings=OptimizationSettings(trials=3), clock=lambda: now[0])
    assert [c.name for c in found.candidates] == ["original", *CANDIDATES]


def test_when_no_time_is_left_nothing_is_begun(makers: Makers, tmp_path: Path) -> None:
    assert makers.make(jobs(tmp_path)[:2], lambda: False) == [None, None]
    assert not (tmp_path / RECIPES[0].name).exists()
