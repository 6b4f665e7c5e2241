"""Robustness: a model that cannot be moved loses nothing, a brittle one does, and the report says from where on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fairway.evaluation.analyses.robustness import Curve, Robustness
from fairway.evaluation.evaluate import evaluate
from fairway.evaluation.report import Report
from fairway.evaluation.settings import EvaluationSettings
from fairway.model import Model
from fairway.sources.tables import Table, make_table
from fairway.testing.builders import linear_bundle


def found_by(folder: Path, weights: list[list[float]], table: Table, **settings: object) -> Report:
    bundle = linear_bundle(folder / "b", weights=weights, bias=[0, 0])
    with Model(bundle) as model:
        return evaluate(
            model,
            table,
            label="y",
            analyses=("robustness",),
            settings=EvaluationSettings(**settings),  # type: ignore[arg-type]
        )


def robustness(report: Report) -> Robustness:
    assert report.analyses.robustness is not None
    return report.analyses.robustness


def curve(found: Robustness, name: str) -> Curve:
    return next(each for each in found.curves if each.name == name)


@pytest.fixture(scope="module")
def rows() -> Table:
    """Two numbers close to each other; the label is which is greater."""
    rng = np.random.default_rng(0)
    level = 10 * rng.normal(size=(800, 1))
    x = (level + rng.normal(size=(800, 2))).astype(np.float32)
    return make_table({"x": x, "y": (x[:, 1] > x[:, 0]).astype(int)}, origin="test.parquet")


def test_a_model_that_ignores_its_input_loses_nothing(rows: Table, tmp_path: Path) -> None:
    found = robustness(found_by(tmp_path, [[0, 0], [0, 0]], rows))
    assert len(found.curves) == 6
    for each in found.curves:
        assert each.sure_from is None
        assert all(level.change is not None and level.change.value == 0 for level in each.levels)


def test_a_brittle_model_loses_more_the_stronger_the_noise(rows: Table, tmp_path: Path) -> None:
    found = robustness(found_by(tmp_path, [[5, -5], [-5, 5]], rows))
    assert found.clean.value == 1
    noise = curve(found, "noise")
    values = [level.value.value for level in noise.levels if level.value is not None]
    assert values == sorted(values, reverse=True)
    assert values[-1] < 0.7
    assert noise.sure_from == 1
    assert curve(found, "missing values, imputed by the median").sure_from is not None
    sure = next(each for each in found.confident if each.name.startswith("far from"))
    assert sure.low > 0.4  # it never doubts: its scores grow with the distance


def test_the_same_seed_gives_the_same_and_another_does_not(rows: Table, tmp_path: Path) -> None:
    weights = [[0.5, -0.5], [-0.5, 0.5]]
    one = robustness(found_by(tmp_path / "1", weights, rows))
    assert robustness(found_by(tmp_path / "2", weights, rows)) == one
    assert robustness(found_by(tmp_path / "3", weights, rows, seed=1)) != one


def test_rows_are_bounded_and_none_turns_it_off(rows: Table, tmp_path: Path) -> None:
    assert robustness(found_by(tmp_path / "1", [[1, 0], [0, 1]], rows, robustness_rows=50)).rows == 50
    assert found_by(tmp_path / "2", [[1, 0], [0, 1]], rows, robustness_rows=0).analyses.robustness is None


def test_it_is_in_the_text_and_on_the_page_with_what_is_not_tested(rows: Table, tmp_path: Path) -> None:
    report = found_by(tmp_path, [[5, -5], [-5, 5]], rows)
    assert "swapped units" in report.as_text()
    assert "adversarial" in report.as_text()
    assert max(map(len, report.as_text().splitlines())) <= 100
    page = report.as_html()
    assert "from level 1" in page
    assert "adversarial" in page
    assert Report.from_json(report.as_json()) == report


def test_rows_that_come_in_groups_are_perturbed_too(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 200))
    table = make_table({"a": a, "b": b, "patient": np.arange(200) // 4, "y": (a > 0).astype(int)})
    found = robustness(found_by(tmp_path, [[0.0, 3.0], [0.0, 0.0]], table, group="patient"))
    assert curve(found, "noise").levels[-1].change.below(0)
