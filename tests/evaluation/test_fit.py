"""Before a model is asked anything, all that does not fit is said, in one error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from fairway.core.errors import InvalidConfig, InvalidData
from fairway.evaluation.evaluate import evaluate
from fairway.evaluation.fit import check_fit
from fairway.evaluation.settings import EvaluationSettings, SliceSettings
from fairway.model import Model
from fairway.sources.tables import Table, load_table, make_table
from fairway.testing.builders import linear_bundle


class Untouched(Model):
    """A model that must not be asked."""

    def infer(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("asked before the data were checked")


@pytest.fixture
def bundle(tmp_path: Path) -> Any:
    weights = np.array([[2.0, -2.0], [-1.0, 1.0], [0.5, -0.5]])
    return linear_bundle(
        tmp_path / "m", weights=weights, bias=[0, 0], columns=("age", "height", "mass"), labels=("a", "b")
    )


def people(rows: int = 100) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    columns: dict[str, Any] = {name: rng.normal(size=rows) for name in ("age", "height", "mass")}
    return {**columns, "who": rng.choice(["a", "b"], rows), "clinic": rng.integers(0, 5, rows).astype(float)}


def test_everything_that_is_wrong_is_said_at_once_and_before_any_inference(bundle: Any) -> None:
    columns = people()
    columns["age"][[3, 8]] = np.nan
    columns["heigth"] = columns.pop("height")
    columns["mass"] = np.array(["heavy"] * 100)
    columns["who"] = np.where(columns["who"] == "a", "a", "c")
    columns["clinic"][5] = np.nan
    slices = [SliceSettings("young", "agee < 1"), SliceSettings("fine", "age < 1"), SliceSettings("odd", "age <")]
    with Untouched(bundle) as model, pytest.raises(InvalidData) as error:
        evaluate(
            model,
            make_table(columns, origin="people.csv"),
            label="who",
            slices=slices,
            settings=EvaluationSettings(group="clinic"),
        )
    lines = str(error.value).splitlines()
    assert lines[0] == "people.csv: the data does not fit the model:"
    found = "\n".join(lines[1:])
    assert "- input 'x' needs the columns 'height' (did you mean 'heigth'?), which are not there" in found
    assert "- column 'age' has 2 missing or infinite numbers, first in row 3" in found
    assert "- column 'mass' holds text, not numbers" in found
    assert "- label 'who' in people.csv: 'c' is no class of the model; it knows 'a', 'b'" in found
    assert "- group 'clinic' in people.csv is missing in 1 of 100 rows, first in row 5" in found
    assert "- slice 'young': cannot apply the condition 'agee < 1'" in found
    assert "- slice 'odd': cannot apply the condition 'age <'" in found
    assert len(lines) == 8


def test_values_that_do_not_fit_are_counted_over_all_rows(bundle: Any) -> None:
    columns = people()
    columns["age"][[3, 8]] = np.nan
    columns["mass"] = np.array(["heavy"] * 100)
    with Untouched(bundle) as model, pytest.raises(InvalidData) as error:
        evaluate(model, make_table(columns), label="absent", settings=EvaluationSettings(group="clinics"))
    assert str(error.value).splitlines()[1:] == [
        "- column 'age' has 2 missing or infinite numbers, first in row 3; impute or drop them (input 'x', FP32)",
        "- column 'mass' holds text, not numbers (input 'x', FP32)",
        "- table has no column 'absent'; it has: age, height, mass, who, clinic",
        "- table has no column 'clinics' (did you mean 'clinic'?); it has: age, height, mass, who, clinic",
    ]


def test_wrong_slices_alone_are_mistakes_of_the_settings(bundle: Any) -> None:
    slices = [SliceSettings("one", "nope > 1"), SliceSettings("two", "avg(age) > 1")]
    with Untouched(bundle) as model, pytest.raises(InvalidConfig, match=r"(?s)slice 'one'.*slice 'two'"):
        check_fit([model], make_table(people()), label="who", slices=slices)


@pytest.mark.parametrize("batch_size", [1, 7, 256])
def test_rows_from_a_file_are_scored_as_rows_in_memory_are(bundle: Any, batch_size: int, tmp_path: Path) -> None:
    columns = people(1000)
    pyarrow.parquet.write_table(pa.table(columns), tmp_path / "a.parquet", row_group_size=130)
    seen: list[tuple[int, int]] = []
    settings = EvaluationSettings(batch_size=batch_size, resamples=20)

    def told(what: str, done: int, of: int) -> None:
        if what.startswith("scoring"):
            seen.append((done, of))

    with Model(bundle) as model:

        def measured(table: Table) -> Any:
            seen.clear()
            return evaluate(model, table, label="who", settings=settings, progress=told).measurements

        assert measured(make_table(columns)) == measured(load_table(tmp_path / "a.parquet"))
    assert seen[-1] == (1000, 1000)
    assert len(seen) == -(-1000 // batch_size)


def test_one_row_is_enough_to_be_scored(bundle: Any) -> None:
    with Model(bundle) as model:
        report = evaluate(model, make_table(people(1)), label="who", settings=EvaluationSettings(resamples=10))
    assert report.rows == 1
    assert report.measurement("accuracy_score") is not None
