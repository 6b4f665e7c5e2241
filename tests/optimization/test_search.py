"""The search on a real model: rows held out, going on after a kill, starting from earlier searches."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from fairway.bundle.format import Bundle
from fairway.core.gate import Limit
from fairway.core.metrics import Measurement
from fairway.core.tensors import Tensors
from fairway.evaluation.settings import EvaluationSettings
from fairway.model import Model
from fairway.optimization import explore, probe
from fairway.optimization.cost import measure_cost
from fairway.optimization.optimize import optimize
from fairway.optimization.passes.base import Sample
from fairway.optimization.probe import cost_ratio
from fairway.optimization.report import Optimization, Status
from fairway.optimization.rows import corrected, divide, rungs
from fairway.optimization.scoring import Examiner
from fairway.optimization.search.journal import Made, read_journal
from fairway.optimization.settings import OptimizationSettings
from fairway.sources.tables import Table, make_table
from tests.conftest import Digits
from tests.optimization.conftest import bundle_of

FAST = EvaluationSettings(resamples=100)
GATE = {"accuracy_score": Limit(min=0.9, max_drop=0.02)}


def table(x: Any, y: Any, columns: tuple[str, ...]) -> Table:
    return make_table({**dict(zip(columns, x.T, strict=True)), "digit": y})


def milliseconds(bundle: Bundle) -> float:
    """As fast as it is small."""
    return bundle.size_bytes / 20_000


def measure(bundle: Bundle) -> list[Measurement]:
    value = milliseconds(bundle)
    return [Measurement("latency_p50_ms", value, value * 0.99, value * 1.01, n=100)]


@pytest.fixture
def mlp_bundle(mlp_graph: Path, digits: Digits, tmp_path: Path) -> Bundle:
    return bundle_of(tmp_path / "mlp.fairway", mlp_graph, digits.columns)


@pytest.fixture(autouse=True)
def _ratios_without_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    def ratio(ours: Bundle, theirs: Bundle, *_: Any) -> float:
        return milliseconds(ours) / milliseconds(theirs)

    monkeypatch.setattr(explore, "cost_ratio", ratio)


Run = Callable[..., Optimization]


@pytest.fixture
def run(mlp_bundle: Bundle, digits: Digits, tmp_path: Path) -> Run:
    """Many test rows, few that calibrate."""

    def call(rows: int = 1347, **changes: Any) -> Optimization:
        settings = {"candidates": ("graph", "int8-dynamic"), "trials": 0, "repeats": 5, **changes.pop("settings", {})}
        given: dict[str, Any] = {"gate": GATE, "workdir": tmp_path / "work", "evaluation": FAST, "label": "digit"}
        given["table"] = table(digits.x_train[:rows], digits.y_train[:rows], digits.columns)
        given["reference"] = table(digits.x_test, digits.y_test, digits.columns)
        given |= {"measure": measure, "settings": OptimizationSettings(**settings)}
        return optimize(mlp_bundle, **{**given, **changes})

    return call


# --- rows held out ------------------------------------------------------------------------------------------------


def test_rows_are_divided_once_and_for_all() -> None:
    whole = make_table({"x": np.arange(1000)})
    search, held_out = divide(whole, 0.3, seed=0)
    assert held_out is not None
    ours, theirs = (set(part.column("x").tolist()) for part in (search, held_out))
    assert ours | theirs == set(range(1000))
    assert not ours & theirs
    assert len(theirs) == 300
    again = divide(whole, 0.3, seed=0)[1]
    assert again is not None
    assert again.digest == held_out.digest


def test_too_few_rows_are_not_divided() -> None:
    whole = make_table({"x": np.arange(600)})
    assert divide(whole, 0.3, seed=0) == (whole, None)


def test_every_rung_holds_the_one_before() -> None:
    parts = [set(part.column("x").tolist()) for part in rungs(make_table({"x": np.arange(2700)}), seed=0)]
    assert [len(part) for part in parts] == [300, 900, 2700]
    assert parts[0] < parts[1] < parts[2]


def test_intervals_for_several_looks_are_wider_and_drawn_more_often() -> None:
    assert corrected(FAST, 1) == FAST
    wide = corrected(FAST, 4)
    assert wide.confidence == pytest.approx(0.9875)
    assert wide.resamples == 400


def test_what_was_chosen_is_judged_on_rows_that_the_search_did_not_look_at(run: Run) -> None:
    found = run()
    winner, findings = found.winner, found.findings
    assert winner.name == "int8-dynamic"
    assert findings.held_out_rows == 404
    assert "404 held-out rows judge" in findings.judged
    searched = winner.measurement("accuracy_score")
    assert searched is not None
    assert searched.n == 1347 - 404
    held_out = [m for m in winner.held_out if m.metric == "accuracy_score"]
    assert {m.n for m in held_out} == {404}
    assert {m.versus for m in held_out} == {"", "original"}
    assert found.verdict.false_pass == pytest.approx(0.05 / 4 / 2)
    assert found.candidates[0].held_out
    text = found.as_text()
    assert "held-out" in text


def test_a_form_that_held_out_rows_refuse_is_not_chosen(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Examiner.quality

    def quality(self: Examiner, bundle: Bundle, given: Table | None = None, **options: Any) -> Any:
        found = real(self, bundle, given, **options)
        if given is None or given.rows != 404 or "int8-dynamic" not in bundle.path.name:
            return found
        worse = {"value": -0.1, "low": -0.11, "high": -0.09}
        return tuple(msgspec.structs.replace(m, **worse) if m.versus else m for m in found)

    monkeypatch.setattr(Examiner, "quality", quality)
    found = run(settings={"candidates": ("int8-dynamic", "int8-static")})
    refused = next(c for c in found.candidates if c.name == "int8-dynamic")
    assert refused.status is Status.REFUSED
    assert refused.reason.startswith("failed on held-out rows: change of accuracy_score is -0.1")
    assert found.winner.name == "int8-static"


def test_with_too_few_rows_all_judge_in_wider_intervals(run: Run) -> None:
    found = run(rows=450)
    assert found.findings.held_out_rows == 0
    assert found.findings.judged.startswith("there are too few rows to hold some out: all rows judge")
    assert found.winner.held_out == ()
    assert found.verdict.false_pass == pytest.approx(0.05 / 2 / 2)  # two forms were examined


def test_where_held_out_rows_could_not_settle_the_gate_none_are_held_out(run: Run) -> None:
    found = run(gate={"accuracy_score": Limit(max_drop=0.004)})
    assert "404 held-out rows could not settle the gate even for the original" in found.findings.judged
    assert found.findings.held_out_rows == 0


# --- beyond what was asked for ------------------------------------------------------------------------------------


def test_other_forms_are_tried_and_their_origin_is_told(run: Run) -> None:
    found = run(settings={"trials": 3})
    tried = {c.name: c.origin for c in found.candidates if c.origin not in ("", "informed")}
    assert len(tried) == 3
    assert set(tried.values()) <= {"scout", "neighbour", "model", "tpe"}
    assert "3 further forms" in found.findings.ended
    best = found.winner.measurement("latency_p50_ms")
    assert best is not None
    measured = [m.value for c in found.candidates if c.rungs and (m := c.measurement("latency_p50_ms"))]
    assert best.value == min(measured)


def test_where_nothing_asked_for_is_cheaper_nothing_else_is_tried(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explore, "cost_ratio", lambda *_: 1.0)
    found = run(settings={"trials": 20}, measure=lambda _: [Measurement("latency_p50_ms", 1.0, 0.9, 1.1, n=100)])
    assert [c.name for c in found.candidates] == ["original", "graph", "int8-dynamic"]
    assert "none of the forms tried is cheaper" in found.findings.ended


def test_first_sight_counts_what_a_request_costs_beside_the_engine(mlp_bundle: Bundle, digits: Digits) -> None:
    sample = Sample({"X": digits.x_train[:16]}, 16)

    def ratio(candidate_s: float, original_s: float) -> float:
        now, spent = 0.0, itertools.cycle([0.0, candidate_s, 0.0, original_s])

        def clock() -> float:
            nonlocal now
            now += next(spent)
            return now

        return cost_ratio(mlp_bundle, mlp_bundle, sample, "latency_p50_ms", clock=clock)

    assert ratio(0.01, 0.02) == pytest.approx(0.5, abs=0.01)
    assert ratio(5e-6, 1e-5) > 0.9
    assert cost_ratio(mlp_bundle, mlp_bundle, sample, "size_mb") == 1.0


@pytest.mark.parametrize("objective", ["load_ms", "first_request_ms"])
def test_first_sight_of_loading_opens_the_bundle_up_to_its_first_answer(
    mlp_bundle: Bundle, digits: Digits, monkeypatch: pytest.MonkeyPatch, objective: str
) -> None:
    seen: list[str] = []

    class Watched(Model):
        def __init__(self, bundle: Bundle) -> None:
            seen.append("open")
            super().__init__(bundle)

        def infer(self, feed: Tensors, *, raw: bool = False) -> Tensors:
            seen.append("ask")
            return super().infer(feed, raw=raw)

    monkeypatch.setattr(probe, "Model", Watched)
    ticks = itertools.count()
    ratio = cost_ratio(
        mlp_bundle, mlp_bundle, Sample({"X": digits.x_train[:16]}, 16), objective, clock=lambda: float(next(ticks))
    )
    assert ratio == pytest.approx(1.0)
    assert seen == ["open", "ask"] * (len(seen) // 2)
    assert len(seen) >= 2 * 2 * 5


@pytest.mark.parametrize(("batching", "calls"), [(True, [16]), (False, [1] * 16)])
def test_a_form_that_does_not_batch_is_timed_row_by_row(
    mlp_bundle: Bundle, digits: Digits, monkeypatch: pytest.MonkeyPatch, batching: bool, calls: list[int]
) -> None:
    engine = msgspec.structs.replace(mlp_bundle.manifest.engine, batching=batching)
    manifest = msgspec.structs.replace(mlp_bundle.manifest, engine=engine)
    asked: list[int] = []

    class Watched(Model):
        def infer(self, feed: Tensors, *, raw: bool = False) -> Tensors:
            if self.manifest is manifest:
                asked.append(len(feed["X"]))
            return super().infer(feed, raw=raw)

    monkeypatch.setattr(probe, "Model", Watched)
    alone = Bundle(mlp_bundle.path, manifest)
    cost_ratio(alone, mlp_bundle, Sample({"X": digits.x_train[:16]}, 16), "throughput_rps")
    assert asked[: len(calls)] == calls
    assert set(asked) == set(calls)


@pytest.mark.parametrize(("fixed", "rows"), [(None, {1}), (8, {8})])
def test_the_cost_of_what_does_not_batch_is_that_of_one_row_or_of_its_only_size(
    mlp_bundle: Bundle, digits: Digits, fixed: int | None, rows: set[int]
) -> None:
    engine = msgspec.structs.replace(mlp_bundle.manifest.engine, batching=False)
    asked: set[int] = set()

    class Watched(Model):
        def infer(self, feed: Tensors, *, raw: bool = False) -> Tensors:
            asked.add(len(feed["X"]))
            return super().infer(feed, raw=raw)

    with Watched(Bundle(mlp_bundle.path, msgspec.structs.replace(mlp_bundle.manifest, engine=engine))) as model:
        measure_cost(model, Sample({"X": digits.x_train[:16]}, 16, fixed))
    assert asked == rows


def test_the_front_is_marked(run: Run) -> None:
    found = run(settings={"candidates": ("graph", "int8-dynamic", "int8-static")})
    front = {c.name for c in found.candidates if c.front}
    assert found.winner.name in front
    assert front < {c.name for c in found.candidates}


def test_the_best_of_an_earlier_search_is_tried_first(run: Run, tmp_path: Path) -> None:
    run(settings={"candidates": ("graph", "int8-static")}, workdir=tmp_path / "earlier")
    found = run(settings={"trials": 1}, earlier=list((tmp_path / "earlier").glob("journal-*.jsonl")))
    assert [c.name for c in found.candidates][:4] == ["original", "int8-static", "graph", "int8-dynamic"]
    assert found.candidates[1].origin == "earlier"


def test_the_recipe_of_a_bundle_of_the_family_is_tried_first(run: Run, tmp_path: Path) -> None:
    champion = run(settings={"candidates": ("int8-static",)}, workdir=tmp_path / "earlier").chosen
    found = run(settings={"trials": 1}, known=[champion.manifest.recipe])
    assert [(c.name, c.origin) for c in found.candidates][1] == ("int8-static", "earlier")


def test_a_journal_of_another_version_is_passed_over(run: Run, tmp_path: Path) -> None:
    (tmp_path / "old.jsonl").write_text('{"type":"started"}\n')
    assert run(earlier=[tmp_path / "old.jsonl"]).winner.name == "int8-dynamic"


# --- going on -----------------------------------------------------------------------------------------------------

KILLED = """
import os, signal, sys
from pathlib import Path
from fairway.bundle.format import read_bundle
from fairway.core.gate import Limit
from fairway.core.metrics import Measurement
from fairway.evaluation.settings import EvaluationSettings
from fairway.optimization import explore
from fairway.optimization.optimize import optimize
from fairway.optimization.passes.base import Sample
from fairway.optimization import probe
from fairway.optimization.probe import cost_ratio
from fairway.optimization.settings import OptimizationSettings
from fairway.sources.tables import load_table

folder, countdown = Path(sys.argv[1]), int(sys.argv[2])
real = os.fsync

def fsync(file):
    global countdown
    countdown -= 1
    if countdown == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(file)

os.fsync = fsync
explore.cost_ratio = lambda ours, theirs, *_: ours.size_bytes / theirs.size_bytes

def measure(bundle):
    value = bundle.size_bytes / 20_000
    return [Measurement("latency_p50_ms", value, value * 0.99, value * 1.01, n=100)]

found = optimize(
    read_bundle(folder / "mlp.fairway"), table=load_table(folder / "test.npz"),
    reference=load_table(folder / "reference.npz"), label="digit",
    gate={"accuracy_score": Limit(min=0.9, max_drop=0.02)},
    workdir=folder / sys.argv[3], measure=measure, evaluation=EvaluationSettings(resamples=100),
    settings=OptimizationSettings(candidates=("graph", "int8-dynamic"), trials=1),
)
print(found.as_json().decode())
"""


def test_killed_again_and_again_it_goes_on_and_ends_the_same(
    mlp_bundle: Bundle, digits: Digits, tmp_path: Path
) -> None:
    np.savez(tmp_path / "test.npz", X=digits.x_train[:700], digit=digits.y_train[:700])
    np.savez(tmp_path / "reference.npz", X=digits.x_test, digit=digits.y_test)

    def child(when: int, where: str) -> subprocess.CompletedProcess[bytes]:
        arguments = [sys.executable, "-c", KILLED, str(tmp_path), str(when), where]
        return subprocess.run(arguments, check=False, capture_output=True)

    def journal() -> bytes:
        return b"".join(path.read_bytes() for path in (tmp_path / "work").glob("journal-*.jsonl"))

    before = b""
    for when in (12, 17):
        done = child(when, "work")
        assert done.returncode == -signal.SIGKILL, done.stderr.decode()
        assert journal().startswith(before)
        before = journal()
    assert before
    last, whole = child(0, "work"), child(0, "other")
    assert last.returncode == whole.returncode == 0, last.stderr.decode()
    assert journal().startswith(before)  # nothing that was finished is done again
    (path,) = (tmp_path / "work").glob("journal-*.jsonl")
    made = [json.dumps(event.point) for event in read_journal(path) if isinstance(event, Made)]
    assert len(made) == len(set(made))
    ours, theirs = (json.loads(done.stdout) for done in (last, whole))
    assert ours["chosen"] == theirs["chosen"]
    told = [
        [(c["name"], c["status"], c.get("reason", ""), c.get("digest")) for c in f["candidates"]]
        for f in (ours, theirs)
    ]
    assert told[0] == told[1]


def test_after_the_end_nothing_is_measured_again(run: Run) -> None:
    first = run()

    def never(_: Bundle) -> list[Measurement]:
        raise AssertionError("measured again")

    again = run(measure=never)
    assert again.chosen.digest == first.chosen.digest
    assert again.findings.candidates == first.findings.candidates
