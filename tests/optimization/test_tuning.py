"""How the chosen form is served best: what is tried, and what is taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.bundle.format import Bundle, write_bundle
from fairway.core.errors import InferenceFailed
from fairway.core.gate import Limit
from fairway.core.manifest import Cost, EngineSpec
from fairway.core.metrics import Measurement
from fairway.evaluation.settings import EvaluationSettings
from fairway.optimization.cells import way_cells
from fairway.optimization.optimize import optimize
from fairway.optimization.report import Optimization, Tuned, Tuning
from fairway.optimization.search.journal import Journal
from fairway.optimization.settings import OptimizationSettings
from fairway.optimization.tuning import tune, tunings
from fairway.sources.tables import Table, make_table
from tests.conftest import Digits
from tests.optimization.conftest import bundle_of

OWN, SPLIT, SMALL = Tuning(2, 1, 64), Tuning(1, 2, 64), Tuning(2, 1, 8)


class Served:
    """Measures as told: milliseconds of p50 by way, with noise; p99 is ten times as much."""

    def __init__(self, p50: dict[Tuning, float], noise: float = 0.02) -> None:
        self.p50, self.noise = p50, noise
        self.calls: list[Tuning] = []
        self._random = np.random.default_rng(0)

    def __call__(self, way: Tuning) -> list[Measurement]:
        self.calls.append(way)
        value = self.p50[way] * (1 + self.noise * float(self._random.normal()))
        return [
            Measurement("latency_p50_ms", value, value * 0.99, value * 1.01, n=400),
            Measurement("latency_p99_ms", 10 * value, 9.9 * value, 10.1 * value, n=400),
        ]


class Budget:
    """Seconds that are left: one less for every measurement."""

    def __init__(self, served: Served, seconds: float) -> None:
        self.served, self.seconds = served, seconds

    def __call__(self) -> float:
        return self.seconds - len(self.served.calls)


def tuned(
    served: Served,
    journal: Path,
    *,
    seconds: float = 1e6,
    measure: Any = None,
    subject: str = "sha256:1",
    objective: str = "latency_p50_ms",
    **limits: Limit,
) -> Tuned:
    return tune(
        tuple(served.p50),
        measure or served,
        subject=subject,
        gate={"accuracy_score": Limit(min=0.9), **limits},
        settings=OptimizationSettings(objective=objective),
        cores=2,
        journal=Journal(journal),
        time_left=Budget(served, seconds),
        expected_s=1.0,
        progress=lambda *_: None,
    )


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "journal.jsonl"


# --- what is tried ------------------------------------------------------------------------------------------------


@given(
    threads=st.integers(0, 64),
    max_batch=st.integers(1, 512),
    batching=st.booleans(),
    base_us=st.floats(0, 1e5),
    row_us=st.floats(0, 1e5),
    cores=st.integers(1, 128),
)
def test_ways_differ_begin_with_the_bundles_own_and_take_no_more_cores_than_there_are(
    threads: int, max_batch: int, batching: bool, base_us: float, row_us: float, cores: int
) -> None:
    spec = EngineSpec(threads=threads, max_batch=max_batch, batching=batching)
    ways = tunings(spec, Cost(base_us, row_us), cores)
    assert ways[0].max_batch == max_batch
    assert ways[0].threads == min(threads or cores, cores)
    assert len({str(way) for way in ways}) == len(ways)
    assert all(1 <= way.workers * way.threads <= cores for way in ways)
    assert batching or {way.max_batch for way in ways} == {max_batch}


def test_a_call_that_is_over_at_once_is_not_shared_between_threads() -> None:
    assert {way.threads for way in tunings(EngineSpec(), Cost(6, 0.1), 8)} == {1}
    assert {way.threads for way in tunings(EngineSpec(), Cost(100, 4000), 6)} == {1, 2, 4, 6}


def test_what_an_accelerator_computes_has_one_worker() -> None:
    ways = tunings(EngineSpec("torch", "model.pt2", options={"device": "cuda"}), Cost(2000, 20), 16)
    assert {(way.workers, way.threads) for way in ways} == {(1, 1)}
    assert {way.max_wait_us for way in ways} == {0.0, 2020.0}


def test_more_rows_are_tried_where_they_still_save_and_fewer_where_they_do_not() -> None:
    assert {way.max_batch for way in tunings(EngineSpec(), Cost(3000, 10), 1)} == {64, 256}
    assert {way.max_batch for way in tunings(EngineSpec(), Cost(100, 2000), 1)} == {64, 1}


def test_waiting_is_tried_where_two_rows_cost_hardly_more_than_one() -> None:
    assert {way.max_wait_us for way in tunings(EngineSpec(), Cost(2000, 20), 1)} == {0.0, 2020.0}
    assert {way.max_wait_us for way in tunings(EngineSpec(), Cost(200, 2000), 1)} == {0.0}


def test_keeping_answers_is_tried_with_any_number_of_threads_where_requests_repeat() -> None:
    ways = tunings(EngineSpec(), Cost(100, 4000), 2, repeats=True)
    assert {(way.threads, way.cache_bytes > 0) for way in ways} == {(1, False), (1, True), (2, False), (2, True)}
    assert not any(way.cache_bytes for way in tunings(EngineSpec(), Cost(100, 4000), 2))
    assert {way.cache_bytes for way in tunings(EngineSpec(cache_bytes=5), Cost(6, 1), 1, repeats=True)} == {5, 0}


# --- what is taken ------------------------------------------------------------------------------------------------


def test_the_way_that_is_better_beyond_the_noise_is_taken(journal: Path) -> None:
    found = tuned(Served({OWN: 10.0, SPLIT: 6.0, SMALL: 9.9}), journal)
    assert found.chosen == SPLIT
    assert found.rounds == OptimizationSettings().repeats
    assert "latency_p50_ms -4" in found.reason
    assert str(OWN) in found.reason
    assert [way.tuning for way in found.ways] == [OWN, SPLIT, SMALL]


def test_of_several_loads_the_largest_decides(journal: Path) -> None:
    light, heavy = Served({OWN: 3.0, SPLIT: 2.0}), Served({OWN: 5.0, SPLIT: 9.0})

    def both(way: Tuning) -> list[Measurement]:
        loads = ((light, 50.0), (heavy, 400.0))
        return [msgspec.structs.replace(m, at_rps=rps) for served, rps in loads for m in served(way)]

    found = tuned(light, journal, measure=both)
    assert found.chosen == OWN
    assert [float(way_cells(way, "latency_p50_ms")["latency_p50_ms"].value) > 4 for way in found.ways] == [True, True]


def test_within_the_noise_the_bundles_own_way_stays(journal: Path) -> None:
    found = tuned(Served({OWN: 10.0, SPLIT: 9.9, SMALL: 10.1}), journal)
    assert found.chosen == OWN
    assert "beyond the noise" in found.reason


def test_a_faster_way_that_breaks_a_limit_on_performance_is_not_taken(journal: Path) -> None:
    served = Served({OWN: 3.0, SPLIT: 2.0})
    measured = served.__call__

    def slow_tail(way: Tuning) -> list[Measurement]:
        p50, p99 = measured(way)
        return [p50, p99 if way == OWN else Measurement("latency_p99_ms", 90.0, 89.0, 91.0, n=400)]

    found = tuned(served, journal, measure=slow_tail, latency_p99_ms=Limit(max=50))
    assert found.chosen == OWN
    assert [way.passed for way in found.ways] == [True, False]
    assert "latency_p99_ms" in found.ways[1].reason


def test_a_way_that_keeps_the_gate_is_taken_where_the_bundles_own_does_not(journal: Path) -> None:
    found = tuned(Served({OWN: 10.0, SPLIT: 6.0}), journal, latency_p99_ms=Limit(max=80))
    assert found.chosen == SPLIT
    assert "does not keep the gate" in found.reason


def test_a_way_that_cannot_be_served_drops_out(journal: Path) -> None:
    served = Served({OWN: 10.0, SPLIT: 6.0})
    measured = served.__call__

    def broken(way: Tuning) -> list[Measurement]:
        if way == SPLIT:
            raise InferenceFailed("no threads here")
        return measured(way)

    found = tuned(served, journal, measure=broken)
    assert found.chosen == OWN
    assert found.ways[1].reason == "no threads here"


def test_of_many_one_round_leaves_the_bundles_own_and_the_two_best(journal: Path) -> None:
    ways = {
        Tuning(8 // threads, threads, rows): 10.0 / threads + rows / 64 for threads in (1, 2, 4, 8) for rows in (64, 8)
    }
    served = Served(ways)
    found = tuned(served, journal)
    assert [way.tuning for way in found.ways] == [Tuning(8, 1, 64), Tuning(1, 8, 8), Tuning(1, 8, 64)]
    assert found.chosen == Tuning(1, 8, 8)
    assert len(served.calls) == 8 + 3 * OptimizationSettings().repeats


def test_without_time_nothing_is_measured_and_the_reason_says_so(journal: Path) -> None:
    served = Served({OWN: 10.0, SPLIT: 6.0})
    found = tuned(served, journal, seconds=4)
    assert served.calls == []
    assert found.chosen == OWN
    assert "raise time_budget" in found.reason


def test_rounds_measured_before_a_kill_are_not_measured_again(journal: Path) -> None:
    first = Served({OWN: 10.0, SPLIT: 6.0})
    tuned(first, journal, seconds=7)  # three rounds
    assert len(first.calls) == 6
    again = Served({OWN: 10.0, SPLIT: 6.0})
    found = tuned(again, journal)
    assert len(again.calls) == 2 * OptimizationSettings().repeats - 6
    assert found.chosen == SPLIT


def test_a_round_that_would_not_fit_is_not_started_after_a_kill_either(journal: Path) -> None:
    tuned(Served({OWN: 10.0, SPLIT: 6.0}), journal, seconds=7)  # three rounds of two seconds
    again = Served({OWN: 10.0, SPLIT: 6.0})
    found = tuned(again, journal, seconds=1)
    assert again.calls == []
    assert found.rounds == 3


# --- within a search ----------------------------------------------------------------------------------------------


@pytest.fixture
def search(mlp_graph: Path, digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    def table(x: Any, y: Any) -> Table:
        return make_table({**dict(zip(digits.columns, x.T, strict=True)), "digit": y})

    monkeypatch.setattr("fairway.optimization.optimize.measure_cost", lambda *_, **__: Cost(100.0, 2000.0))

    def run(split_ms: float = 4.0, threads: int = 1, equal: float = 0.0) -> tuple[Optimization, list[Tuning]]:
        asked: list[Tuning] = []

        def serve(_: Bundle, way: Tuning) -> list[Measurement]:
            asked.append(way)
            value = (split_ms if way.threads == 2 else 6.0) + (way.max_batch == 64) + len(asked) * 1e-3
            value -= 3.0 if way.cache_bytes else 0.0
            return [Measurement("latency_p50_ms", value, value - 0.1, value + 0.1, n=1000)]

        bundle = bundle_of(tmp_path / "mlp.fairway", mlp_graph, digits.columns)
        engine = msgspec.structs.replace(bundle.manifest.engine, threads=threads, max_batch=1)
        manifest = msgspec.structs.replace(bundle.manifest, engine=engine)
        files = {name: bundle.file(name) for name in bundle.manifest.files}
        found = optimize(
            write_bundle(tmp_path / "given.fairway", manifest, files),
            table=table(digits.x_test, digits.y_test),
            reference=table(digits.x_train, digits.y_train),
            label="digit",
            gate={"accuracy_score": Limit(min=0.9)},
            workdir=tmp_path / "work",
            measure=lambda _: [Measurement("latency_p50_ms", 2.0, 1.9, 2.1, n=1000)],
            serve=serve,
            cores=2,
            settings=OptimizationSettings(trials=0, candidates=("graph",), equal_requests=equal),
            evaluation=EvaluationSettings(resamples=100),
        )
        return found, asked

    return run


def test_what_was_tuned_goes_into_the_bundle_and_the_reports(search: Any) -> None:
    found, asked = search()
    engine = found.chosen.manifest.engine
    assert (engine.threads, engine.max_batch) == (2, 1)
    assert len(asked) == 2 * 5
    assert "served best on 2 cores: 1 worker of 2 threads, up to 1 row (latency_p50_ms -33 %" in found.as_text()
    assert "How it is served best" in found.as_html()
    assert "1 worker of 2 threads, up to 1 row" in found.as_html()


def test_kept_answers_that_pay_go_into_the_bundle(search: Any) -> None:
    found, _ = search(equal=0.6)
    assert found.chosen.manifest.engine.cache_bytes == 64_000_000
    assert "up to 1 row, keeping 64 MB of answers" in " ".join(found.as_text().split())


def test_a_bundle_whose_own_way_stays_is_left_as_it_is(search: Any) -> None:
    found, asked = search(split_ms=6.0, threads=0)  # every core, on whatever machine
    assert {way.threads for way in asked} == {1, 2}
    assert found.chosen.manifest.engine.threads == 0


def test_a_rerun_of_a_search_measures_no_way_again_and_ends_in_the_same_bundle(search: Any) -> None:
    first, _ = search()
    second, asked = search()
    assert asked == []
    assert second.chosen.digest == first.chosen.digest


def test_rounds_of_another_form_say_nothing_of_this_one(tmp_path: Path) -> None:
    slow, fast = Served({OWN: 20.0, SPLIT: 30.0}), Served({OWN: 20.0, SPLIT: 10.0})
    assert tuned(slow, tmp_path / "journal", subject="sha256:1").chosen == OWN
    assert tuned(fast, tmp_path / "journal", subject="sha256:2").chosen == SPLIT
    again = Served({OWN: 1.0, SPLIT: 1.0})
    assert tuned(again, tmp_path / "journal", subject="sha256:2").chosen == SPLIT
    assert again.calls == []


def test_a_bound_on_change_alone_refuses_no_way(tmp_path: Path) -> None:
    found = tuned(Served({OWN: 20.0, SPLIT: 10.0}), tmp_path / "journal", latency_p99_ms=Limit(max_rise=50, at_rps=20))
    assert found.chosen == SPLIT
    assert all(way.passed for way in found.ways)


def test_an_objective_that_nobody_measures_chooses_nothing(tmp_path: Path) -> None:
    found = tuned(Served({OWN: 20.0, SPLIT: 10.0}), tmp_path / "journal", objective="load_ms")
    assert (found.chosen, found.ways) == (OWN, ())
    assert "load_ms was not measured" in found.reason
