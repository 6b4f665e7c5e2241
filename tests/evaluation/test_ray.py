"""A real Ray cluster of two nodes gives the report that one machine gives, whatever dies on the way."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_array

from fairway.bundle.format import Bundle
from fairway.core.cluster import RayMapper, logging_kept
from fairway.core.errors import InferenceFailed, InvalidBundle, InvalidConfig, WorkerFailed
from fairway.core.gate import Limit
from fairway.core.mapping import IN_ORDER, Mapper, Threads
from fairway.evaluation.answering import Asked, _sent
from fairway.evaluation.draws import Sums, drawn
from fairway.evaluation.evaluate import evaluate
from fairway.evaluation.report import Report
from fairway.evaluation.settings import EvaluationSettings, SliceSettings
from fairway.model import Model
from fairway.sources.tables import Table, make_table
from fairway.testing.builders import linear_bundle
from tests.conftest import Digits

with logging_kept():
    ray = pytest.importorskip("ray")
ROOT = Path(__file__).parents[2]
SETTINGS = EvaluationSettings(resamples=4_000, batch_size=2_000)  # several chunks of draws
ROWS = 40_000  # 10 MB: several parts
pytestmark = pytest.mark.xdist_group("ray")  # one cluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes of one core, on this machine."""
    from ray.cluster_utils import Cluster

    with logging_kept(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "src"), str(ROOT)]))
        node = {"num_cpus": 1, "object_store_memory": 120 * 10**6, "include_dashboard": False}
        started: Any = Cluster(initialize_head=True, head_node_args=node)
        started.add_node(num_cpus=1, object_store_memory=120 * 10**6)
        started.wait_for_nodes()
        yield started
        ray.shutdown()
        started.shutdown()


@pytest.fixture(scope="module")
def mapper(cluster: Any) -> Iterator[RayMapper]:
    with RayMapper(cluster.address) as connected:
        yield connected


@pytest.fixture(scope="module")
def models(digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Bundle]:
    folder = tmp_path_factory.mktemp("ray")
    weights, bias = digits.model.coef_.T, digits.model.intercept_
    return (
        linear_bundle(folder / "a", name="digits", weights=weights, bias=bias, columns=digits.columns),
        linear_bundle(folder / "b", name="digits", weights=weights * 0.5, bias=bias * 0, columns=digits.columns),
    )


@pytest.fixture(scope="module")
def table(digits: Digits) -> Table:
    rng = np.random.default_rng(0)
    chosen = rng.integers(0, len(digits.y_test), ROWS)
    x = (digits.x_test[chosen] + 0.1 * rng.normal(size=(ROWS, 64))).astype(np.float32)
    return make_table(
        {
            **{name: x[:, place] for place, name in enumerate(digits.columns)},
            "digit": digits.y_test[chosen],
            "ink": x.mean(axis=1),
        }
    )


def _report(models: tuple[Bundle, Bundle], table: Table, mapper: Mapper) -> Report:
    with Model(models[0]) as candidate, Model(models[1]) as champion:
        return evaluate(
            candidate,
            table,
            label="digit",
            gate={"f1_score": Limit(min=0.9, slice_min=0.8)},
            slices=[SliceSettings("faint", "ink < 0.28")],
            champion=champion,
            settings=SETTINGS,
            mapper=mapper,
        )


@pytest.fixture(scope="module")
def here(models: tuple[Bundle, Bundle], table: Table) -> bytes:
    return _report(models, table, IN_ORDER).as_json()


def test_threads_make_the_same_report(models: tuple[Bundle, Bundle], table: Table, here: bytes) -> None:
    assert _report(models, table, Threads(3)).as_json() == here


def test_a_cluster_makes_the_same_report(
    models: tuple[Bundle, Bundle], table: Table, here: bytes, mapper: RayMapper
) -> None:
    assert _report(models, table, mapper).as_json() == here


class Killing:
    """A mapper whose first three maps (two models scored, draws) each lose the worker of their first part."""

    def __init__(self, mapper: RayMapper, folder: Path) -> None:
        self.mapper, self.folder, self.killed = mapper, folder, 0

    def map(self, function: Callable[[Any], Any], parts: Iterable[Any]) -> Iterator[Any]:
        if self.killed == 3:
            return self.mapper.map(function, parts)
        self.killed += 1
        return self.mapper.map(partial(_dying, str(self.folder / str(self.killed)), function), parts)


def _dying(marker: str, function: Callable[[Any], Any], part: Any) -> Any:
    try:
        Path(marker).touch(exist_ok=False)
    except FileExistsError:
        return function(part)
    os.kill(os.getpid(), signal.SIGKILL)


def test_workers_that_die_change_nothing(
    models: tuple[Bundle, Bundle], table: Table, here: bytes, mapper: RayMapper, tmp_path: Path
) -> None:
    killing = Killing(mapper, tmp_path)
    assert _report(models, table, killing).as_json() == here
    assert len([*tmp_path.iterdir()]) == killing.killed == 3


def test_a_machine_that_is_lost_changes_nothing(cluster: Any, mapper: RayMapper) -> None:
    lost = cluster.add_node(num_cpus=2, object_store_memory=80 * 10**6)
    cluster.wait_for_nodes()
    statistics = np.random.default_rng(0).normal(size=(20_000, 2))

    def sums() -> Iterator[bytes]:
        for number, found in enumerate(mapper.map(partial(_sums, statistics), range(20))):
            if number == 5:
                cluster.remove_node(lost, allow_graceful=False)
            yield found

    assert list(sums()) == [_sums(statistics, seed) for seed in range(20)]


def _sums(statistics: Any, seed: int) -> bytes:
    return drawn(Sums(csr_array(statistics)), _itself, 64, seed, 0, IN_ORDER).tobytes()


def _itself(sums: Any) -> Any:
    return sums


@pytest.mark.usefixtures("mapper")
def test_a_part_that_kills_every_worker_is_given_up() -> None:
    with pytest.raises(WorkerFailed, match="lost the workers of one part 2 times"):
        list(RayMapper(retries=1).map(_kill, [1]))


def _kill(part: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return part


def test_errors_come_back_as_they_are(mapper: RayMapper) -> None:
    with pytest.raises(InferenceFailed, match="row 3 is no number"):
        list(mapper.map(_fail, ["ours"]))
    with pytest.raises(ZeroDivisionError):
        list(mapper.map(_fail, ["theirs"]))


def _fail(which: str) -> float:
    if which == "ours":
        raise InferenceFailed("row 3 is no number")
    return 1 / 0


def test_no_cluster_is_an_error_that_says_how_to_start_one(mapper: RayMapper, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)

    def nowhere(**_: Any) -> None:
        raise ConnectionError("nobody there")

    monkeypatch.setattr(ray, "init", nowhere)
    with pytest.raises(InvalidConfig, match="ray start --head"):
        RayMapper("auto")


def test_another_version_on_a_node_is_refused(mapper: RayMapper, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fairway.core.cluster._MATTERING", ("fairway", "numpy"))
    ours = {"python": "3.99", "machine": "x86_64", "fairway": "0.1.0", "numpy": np.__version__}
    monkeypatch.setattr("fairway.core.cluster.version", lambda name: ours[name])
    monkeypatch.setattr("fairway.core.cluster.platform.python_version", lambda: "3.99")
    with pytest.raises(InvalidConfig, match=r"has python 3\.\d+\.\d+; results would differ"):
        mapper._check_nodes()


def test_a_machine_without_the_bundle_writes_it(
    models: tuple[Bundle, Bundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with Model(models[0]) as model:
        function, arguments = Asked(model, ["probabilities"]).__reduce__()
        feed = {"x": np.random.default_rng(0).random((3, 64), np.float32)}
        expected = Asked(model, ["probabilities"])([feed])[0]["probabilities"]
    assert function is _sent
    for _ in range(2):  # the second finds it there
        there = _sent("/nowhere", *arguments[1:])
        np.testing.assert_array_equal(there([feed])[0]["probabilities"], expected)
    (place,) = tmp_path.glob("fairway-bundles-*/*")
    file = next(path for path in place.rglob("*.onnx"))
    file.write_bytes(b"something else")
    with pytest.raises(InvalidBundle, match=r"holds something else|altered|truncated"):
        _sent("/nowhere", *arguments[1:])
