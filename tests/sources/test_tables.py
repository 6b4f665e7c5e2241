"""Data files in: what they hold is what the model gets, and what does not fit is said all at once."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fairway.core.errors import InvalidConfig, InvalidData
from fairway.core.tensors import Datatype, TensorSpec
from fairway.sources.tables import Table, load_table, make_table

DTYPES: list[Any] = ["f4", "f8", "i8", "u1", "?"]
FLOATS = st.floats(-1e6, 1e6, width=32)


def write(arrow: pa.Table, path: Path) -> None:
    match path.suffix:
        case ".csv":
            pyarrow.csv.write_csv(arrow, path)
        case ".tsv":
            pyarrow.csv.write_csv(arrow, path, pyarrow.csv.WriteOptions(delimiter="\t"))
        case ".parquet":
            pyarrow.parquet.write_table(arrow, path)
        case ".feather":
            pyarrow.feather.write_feather(arrow, path)
        case ".arrow":
            with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, arrow.schema) as stream:
                stream.write_table(arrow)


@pytest.fixture
def people() -> Table:
    return make_table(
        {"age": [31.0, 45.0, 52.0], "height": [1.7, 1.6, 1.8], "city": ["Oslo", "Rome", "Lima"], "bought": [0, 1, 1]}
    )


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet", ".feather", ".arrow"])
def test_every_form_gives_the_same_rows(suffix: str, people: Table, tmp_path: Path) -> None:
    path = tmp_path / f"people{suffix}"
    write(people.arrow, path)
    table = load_table(path)
    assert table.columns == ("age", "height", "city", "bought")
    assert table.rows == 3
    for name in table.columns:
        assert table.column(name).tolist() == people.column(name).tolist()
    assert table.digest == "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


@given(
    array=arrays.arrays(
        st.sampled_from([np.dtype(code) for code in DTYPES]),
        arrays.array_shapes(min_dims=1, max_dims=4, max_side=4),
    )
)
def test_an_array_survives_the_table(array: np.ndarray[Any, Any]) -> None:
    back = make_table({"a": array}).column("a")
    assert back.dtype == array.dtype or array.dtype.kind == "f"
    np.testing.assert_array_equal(back, array)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(
    array=arrays.arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(1, 3)), elements=FLOATS)
)
def test_images_survive_npz_and_parquet(array: np.ndarray[Any, Any], tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", image=array)
    table = load_table(tmp_path / "a.npz")
    write(table.arrow, tmp_path / "a.parquet")
    np.testing.assert_array_equal(table.column("image"), array)
    np.testing.assert_array_equal(load_table(tmp_path / "a.parquet").column("image"), array)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("absent.csv", None, "does not exist"),
        ("empty.csv", b"", "is empty"),
        ("header.csv", b"a,b\n", "0 rows"),
        ("ragged.csv", b"a,b\n1,2\n3\n", "Expected 2 columns"),
        ("twice.csv", b"a,a\n1,2\n", "more than one column 'a'"),
        ("notes.txt", b"hello", "unknown suffix"),
        ("broken.parquet", b"PAR1 and then nothing", "cannot be read as .parquet"),
        ("broken.npz", b"PK but no archive", "cannot be read as .npz"),
        ("broken.arrow", b"ARROW1 and then nothing", "cannot be read as .arrow"),
        ("broken.feather", b"nothing of the kind", "cannot be read as .feather"),
    ],
)
def test_a_bad_file_is_named_with_what_would_do(name: str, content: bytes | None, says: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidData, match=says) as error:
        load_table(path)
    assert name in str(error.value)


def test_a_folder_is_no_data_file(tmp_path: Path) -> None:
    (tmp_path / "data.csv").mkdir()
    with pytest.raises(InvalidData, match="is a folder"):
        load_table(tmp_path / "data.csv")


def test_npz_arrays_of_different_lengths_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros(3), y=np.zeros(4))
    with pytest.raises(InvalidData, match="different numbers of rows"):
        load_table(tmp_path / "a.npz")


def test_npz_is_never_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.array([{}], dtype=object))
    with pytest.raises(InvalidData, match=r"allow_pickle"):
        load_table(tmp_path / "a.npz")


def test_declared_columns_fill_an_input_in_their_order(people: Table) -> None:
    spec = TensorSpec("x", Datatype.FP32, (-1, 2), columns=("height", "age"))
    feed = people.feed([spec])
    spec.check(feed["x"])
    np.testing.assert_allclose(feed["x"], [[1.7, 31], [1.6, 45], [1.8, 52]], rtol=1e-6)


def test_the_only_input_takes_all_numbers_but_the_label(people: Table) -> None:
    feed = people.feed([TensorSpec("x", Datatype.FP64, (-1, 2))], label="bought")
    assert feed["x"].tolist() == [[31.0, 1.7], [45.0, 1.6], [52.0, 1.8]]


def test_a_column_named_like_the_input_fills_it() -> None:
    table = make_table({"image": np.arange(12.0).reshape(3, 4), "text": ["a", "é", ""]})
    feed = table.feed([TensorSpec("image", Datatype.FP32, (-1, 2, 2)), TensorSpec("text", Datatype.BYTES, (-1,))])
    assert feed["image"].shape == (3, 2, 2)
    assert feed["text"].tolist() == [b"a", "é".encode(), b""]


def test_rows_are_chosen_before_they_are_fed(people: Table) -> None:
    spec = TensorSpec("x", Datatype.INT64, (-1, 1), columns=("bought",))
    assert people.feed([spec], slice(1))["x"].tolist() == [[0]]
    assert people.feed([spec], np.array([2, 0]))["x"].tolist() == [[1], [0]]
    assert people.feed([spec], np.array([False, True, False]))["x"].tolist() == [[1]]


def test_all_that_does_not_fit_is_listed_at_once(people: Table) -> None:
    specs = [
        TensorSpec("x", Datatype.FP32, (-1, 2), columns=("agee", "height")),
        TensorSpec("city", Datatype.FP32, (-1, 1)),
        TensorSpec("bougth", Datatype.INT64, (-1, 3)),
    ]
    with pytest.raises(InvalidData) as error:
        people.feed(specs)
    message = str(error.value)
    assert "'agee' (did you mean 'age'?)" in message
    assert "column 'city' holds text, not numbers" in message
    assert "'bougth'" in message
    assert "did you mean 'bought'?" in message


def test_missing_numbers_are_an_error_that_names_the_columns_unless_the_model_takes_them(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,b,c\n1,2,3\n,5,6\n7,,9\n")
    table = load_table(tmp_path / "a.csv")
    spec = TensorSpec("x", Datatype.FP32, (-1, 3), columns=("a", "b", "c"))
    with pytest.raises(InvalidData, match=r"(?s)'a' has 1 missing .* row 1.*'b' has 1 missing .* row 2") as error:
        table.feed([spec])
    assert "'c'" not in str(error.value)
    tolerant = TensorSpec("x", Datatype.FP32, (-1, 3), columns=("a", "b", "c"), allow_nan=True)
    np.testing.assert_array_equal(table.feed([tolerant])["x"], [[1, 2, 3], [np.nan, 5, 6], [7, np.nan, 9]])


@pytest.mark.parametrize(
    ("values", "datatype", "says"),
    [
        ([1.5, 2.0], Datatype.INT64, "fractions"),
        ([float("nan"), 2.0], Datatype.INT64, "missing"),
        ([300, 2], Datatype.UINT8, "out of range"),
        ([-1, 2], Datatype.UINT64, "out of range"),
        ([2**63, 1], Datatype.INT64, "out of range"),
        ([1e300, 1.0], Datatype.FP32, "infinite"),
        ([1, 2], Datatype.BYTES, "not text"),
        (["a", None], Datatype.BYTES, "missing texts"),
        ([2, 0], Datatype.BOOL, "out of range"),
    ],
)
def test_values_that_a_datatype_cannot_hold_are_refused(values: list[Any], datatype: Datatype, says: str) -> None:
    table = make_table({"x": np.array(values, dtype=object if None in values else None)})
    with pytest.raises(InvalidData, match=says):
        table.feed([TensorSpec("x", datatype, (-1,))])


def test_features_are_chosen_by_patterns(people: Table) -> None:
    assert people.features(label="bought") == ("age", "height", "city")
    assert people.features(["h*", "age"], label="bought") == ("age", "height")
    with pytest.raises(InvalidConfig, match=r"'wieght' matches no column .*did you mean 'height'"):
        people.features(["wieght"], label="bought")


def test_an_unknown_column_is_answered_with_the_nearest(people: Table) -> None:
    with pytest.raises(InvalidData, match=r"no column 'heigth' \(did you mean 'height'\?\)"):
        people.column("heigth")


@settings(max_examples=30, deadline=None)
@given(
    values=st.lists(st.none() | FLOATS, min_size=1, max_size=50),
    bound=FLOATS,
)
def test_a_mask_is_what_numpy_computes_and_missing_is_false(values: list[float | None], bound: float) -> None:
    numbers = np.array([np.nan if value is None else value for value in values])
    table = make_table({"a value": numbers})
    np.testing.assert_array_equal(table.mask(f'"a value" > {bound!r}'), numbers > bound)
    np.testing.assert_array_equal(table.mask('"a value" IS NULL'), np.isnan(numbers))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=30), st.data())
def test_a_selection_holds_the_chosen_rows_in_order(values: list[int], data: st.DataObject) -> None:
    table = make_table({"v": values})
    indices = data.draw(st.lists(st.integers(0, len(values) - 1), min_size=1))
    mask = table.mask("v % 2 = 0")
    assert table.select(indices).column("v").tolist() == [values[i] for i in indices]
    assert table.select(mask).column("v").tolist() == [v for v in values if v % 2 == 0]


def test_a_selection_has_its_own_digest(people: Table) -> None:
    assert people.select([0, 1]).digest == people.select(slice(2)).digest != people.select([1, 0]).digest
    assert people.select([0, 1]).digest != people.digest


@pytest.mark.parametrize(
    "where",
    [
        "",
        "age >",
        "nope > 1",
        "avg(age) > 1",
        "age > 1, age < 2",
        "age > 1; DROP TABLE people",
        "1) FROM t; DROP TABLE t; SELECT (1",
        "unnest([1, 2]) > 1",
        "COLUMNS('a.*|h.*') > 1",
        "age = ?",
        "city",
        "(SELECT count(*) FROM read_csv('/etc/passwd')) > 0",
        "(SELECT count(*) FROM '/etc/passwd') > 0",
        "(SELECT count(*) FROM people) > 0",
        "age > (SELECT 1 FROM glob('/*') LIMIT 1)",
    ],
)
def test_a_condition_that_is_not_a_plain_expression_over_the_columns_is_refused(where: str, people: Table) -> None:
    with pytest.raises(InvalidConfig, match="the columns are: age, height, city, bought"):
        people.mask(where)


def test_lists_of_one_length_become_an_axis_and_others_are_refused(tmp_path: Path) -> None:
    write(pa.table({"even": [[1, 2], [3, 4]], "odd": [[1], [2, 3]], "hole": [[1], None]}), tmp_path / "a.parquet")
    table = load_table(tmp_path / "a.parquet")
    assert table.column("even").shape == (2, 2)
    with pytest.raises(InvalidData, match="'odd' holds lists of 2 different lengths"):
        table.column("odd")
    with pytest.raises(InvalidData, match="'hole' lacks its list in 1 rows"):
        table.column("hole")


def test_less_common_columns_are_read_too() -> None:
    arrow = pa.table(
        {
            "category": pa.array(["a", "b", None]).dictionary_encode(),
            "nothing": pa.nulls(3),
            "flag": pa.array([True, None, False]),
            "count": pa.array([1, None, 3]),
            "price": pa.array([1, 2, 3]).cast(pa.decimal128(25, 2)),
        }
    )
    table = Table(arrow, digest="sha256:0")
    assert table.column("category").tolist() == ["a", "b", None]
    np.testing.assert_array_equal(table.column("nothing"), [np.nan] * 3)
    np.testing.assert_array_equal(table.column("flag"), [1, np.nan, 0])
    np.testing.assert_array_equal(table.column("count"), [1, np.nan, 3])
    np.testing.assert_array_equal(table.column("price"), [1, 2, 3])
