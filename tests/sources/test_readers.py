"""Every kind of data gives the rows that were written, however they are read: at once, in batches, by number."""

from __future__ import annotations

import gzip
import json
import math
import os
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.dataset
import pyarrow.feather
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fairway.core.errors import InvalidConfig, InvalidData
from fairway.core.tensors import Datatype, TensorSpec
from fairway.sources.readers import delimited, jsonl, npz, spool
from fairway.sources.settings import DataSettings
from fairway.sources.tables import Table, load_table

ROWS = st.integers(1, 40)
TEXT = st.text(string.ascii_letters + " ,;\"'é\n", min_size=1, max_size=8).map(lambda text: f"t{text}")


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    """Text, fractions with holes, whole numbers, truth values: the first row has them all, so that nothing is in doubt."""
    rows = draw(ROWS)

    def column(first: Any, values: st.SearchStrategy[Any]) -> list[Any]:
        return [first, *draw(st.lists(values, min_size=rows - 1, max_size=rows - 1))]

    return pa.table(
        {
            "x": pa.array(column(0.5, st.none() | st.floats(-1e6, 1e6, width=32)), pa.float64()),
            "n": pa.array(column(3, st.integers(-(2**53), 2**53)), pa.int64()),
            "flag": column(True, st.booleans()),
            "text": column("a", TEXT),
        }
    )


def write_csv(table: pa.Table, path: Path) -> None:
    pyarrow.csv.write_csv(table, path)


def write_gzip(table: pa.Table, path: Path) -> None:
    sink = pa.BufferOutputStream()
    pyarrow.csv.write_csv(table, sink)
    path.write_bytes(gzip.compress(sink.getvalue().to_pybytes()))


def write_jsonl(table: pa.Table, path: Path) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))


def write_groups(table: pa.Table, path: Path) -> None:
    pyarrow.parquet.write_table(table, path, row_group_size=7)


def write_stream(table: pa.Table, path: Path) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table, max_chunksize=5)


def write_folder(table: pa.Table, path: Path) -> None:
    path.mkdir()
    half = table.num_rows // 2
    for number, part in enumerate([table.slice(0, half), table.slice(half)]):
        pyarrow.parquet.write_table(part, path / f"part-{number}.parquet")


FORMS: dict[str, Callable[[pa.Table, Path], None]] = {
    "a.csv": write_csv,
    "b.csv.gz": write_gzip,
    "c.jsonl": write_jsonl,
    "d.parquet": write_groups,
    "e.arrow": write_stream,
    "f.feather": lambda table, path: pyarrow.feather.write_feather(table, path, chunksize=6),
    "g": write_folder,
}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of a few rows go through what large files do: several blocks, a temporary file."""
    monkeypatch.setattr(spool, "KEPT_BYTES", 100)
    monkeypatch.setattr(spool, "CHUNK_BYTES", 200)


def same(table: Table, wanted: pa.Table) -> None:
    for name in wanted.column_names:
        known = Table(wanted, digest="").column(name)
        np.testing.assert_array_equal(table.column(name), known)


@pytest.mark.parametrize("name", FORMS)
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(wanted=tables(), size=st.integers(1, 50), data=st.data())
def test_a_written_table_is_read_back_at_once_in_batches_and_by_number(
    name: str, wanted: pa.Table, size: int, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("rows") / name
    FORMS[name](wanted, path)
    table = load_table(path)
    assert (table.rows, table.columns) == (wanted.num_rows, ("x", "n", "flag", "text"))
    same(table, wanted)
    parts = list(table.batches(size))
    assert [part.rows for part in parts[:-1]] == [size] * (len(parts) - 1)
    assert pa.concat_tables([part.arrow for part in parts]).to_pylist() == wanted.to_pylist()
    rows = data.draw(st.lists(st.integers(0, table.rows - 1), max_size=8))
    assert table.select(rows).arrow.to_pylist() == wanted.take(pa.array(rows, pa.int64())).to_pylist()
    assert [part.columns for part in table.batches(size, ["text"])] == [("text",)] * len(parts)
    mask = table.mask("x > 0 AND text <> 'a'")
    np.testing.assert_array_equal(mask, Table(wanted, digest="").mask("x > 0 AND text <> 'a'"))


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_large_npz_is_read_piece_by_piece(order: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(npz, "_KEPT_BYTES", 0)
    monkeypatch.setattr(npz, "CHUNK_BYTES", 100)
    image = np.asfortranarray(np.arange(60.0).reshape(10, 2, 3)) if order == "F" else np.arange(60.0).reshape(10, 2, 3)
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", image=image, y=np.arange(10, dtype=np.int32))
        table = load_table(tmp_path / "a.npz")
        np.testing.assert_array_equal(table.column("image"), image)
        np.testing.assert_array_equal(table.select([7, 2]).column("y"), [7, 2])
        assert [len(feed["image"]) for _, feed in table.feeds([TensorSpec("image", Datatype.FP32, (-1, 2, 3))], 4)] == [
            4,
            4,
            2,
        ]


@settings(max_examples=20, deadline=None)
@given(values=st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=60), size=st.integers(1, 70))
def test_what_a_model_gets_in_batches_is_what_it_gets_at_once(values: list[float], size: int) -> None:
    table = Table(pa.table({"a": values, "b": np.arange(len(values))}), digest="")
    spec = TensorSpec("x", Datatype.FP32, (-1, 2))
    parts = list(table.feeds([spec], size))
    assert [count for count, _ in parts] == [len(feed["x"]) for _, feed in parts]
    np.testing.assert_array_equal(np.concatenate([feed["x"] for _, feed in parts]), table.feed([spec])["x"])


def test_a_sample_is_drawn_by_its_seed_and_keeps_the_order(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pa.table({"v": np.arange(1000)}), tmp_path / "a.parquet", row_group_size=100)
    table = load_table(tmp_path / "a.parquet")
    first, again, other = table.sample(50, seed=1), table.sample(50, seed=1), table.sample(50, seed=2)
    assert first.column("v").tolist() == again.column("v").tolist() == sorted(set(first.column("v").tolist()))
    assert first.digest == again.digest != other.digest
    assert first.rows == 50
    assert table.sample(5000).column("v").tolist() == list(range(1000))


# -- types are those of the whole file


def csv_of(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


@pytest.fixture
def tiny_csv_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delimited, "CHUNK_BYTES", 64)
    monkeypatch.setattr(delimited, "_BLOCK", 64)
    monkeypatch.setattr(jsonl, "CHUNK_BYTES", 64)


@pytest.mark.usefixtures("tiny_csv_blocks")
def test_fractions_and_first_values_far_down_change_the_type_of_the_whole_column(tmp_path: Path) -> None:
    path = csv_of(tmp_path / "a.csv", "n,late,text", *["1,,a"] * 100, "2.5,7,b", "3,x y,c")
    table = load_table(path, settings=DataSettings(test="", types={"late": "text"}))
    assert table.column("n").tolist() == [1.0] * 100 + [2.5, 3.0]
    assert table.column("late").tolist()[-2:] == ["7", "x y"]
    path = csv_of(tmp_path / "b.csv", "n,late", *["1,"] * 100, "2,7", "3,8")
    assert np.nan_to_num(load_table(path).column("late"), nan=-1).tolist() == [-1.0] * 100 + [7.0, 8.0]


@pytest.mark.usefixtures("tiny_csv_blocks")
def test_a_value_that_does_not_fit_is_named_with_its_row_and_column(tmp_path: Path) -> None:
    path = csv_of(tmp_path / "a.csv", "n,m", *["1,1"] * 100, "2,oops", "3,4")
    with pytest.raises(
        InvalidData, match=r"column 'm' holds 'oops' in row 100, where int64 is expected .*types = \{ m = \"text\" \}"
    ):
        load_table(path)
    table = load_table(path, settings=DataSettings(test="", types={"m": "text"}))
    assert table.column("m").tolist() == ["1"] * 100 + ["oops", "4"]
    with pytest.raises(InvalidData, match=r"'oops' in row 100, where double is expected \(as data.types says\)"):
        load_table(path, settings=DataSettings(test="", types={"m": "float"}))


@pytest.mark.parametrize(
    ("types", "says"),
    [
        ({"k": "int"}, r"no column 'k'.*it has: n, m"),
        ({"n": "integer"}, r"'integer' .* is no type \(did you mean 'int'"),
    ],
)
def test_types_that_make_no_sense_are_refused(types: dict[str, str], says: str, tmp_path: Path) -> None:
    path = csv_of(tmp_path / "a.csv", "n,m", "1,2")
    with pytest.raises(InvalidConfig, match=says):
        load_table(path, settings=DataSettings(test="", types=types))


@pytest.mark.usefixtures("tiny_csv_blocks")
def test_json_lines_take_the_types_of_all_lines_and_name_the_row_that_does_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n' * 50 + '{"a": 2.5, "b": "new", "v": [1, 2]}\n')
    table = load_table(path)
    assert table.column("a").tolist() == [1.0] * 50 + [2.5]
    assert table.column("b").tolist() == [None] * 50 + ["new"]
    path.write_text('{"a": 1}\n' * 50 + '{"a": "two"}\n')
    with pytest.raises(InvalidData, match=r"row 50 cannot be read: Column\(/a\) changed from number to string"):
        load_table(path)
    path.write_text('{"a": 1}\n' * 50 + json.dumps({"a": "two " * 30}) + "\n")
    with pytest.raises(InvalidData, match=r"column 'a' holds 'two two .* in row 50, where int64"):
        load_table(path)
    path.write_text('{"a": 1}\n' * 50 + '{"a": \n')
    with pytest.raises(InvalidData, match="row 50 cannot be read"):
        load_table(path)


def test_a_disk_that_is_full_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("there is no /dev/full")
    monkeypatch.setattr("tempfile.TemporaryFile", lambda **_: full.open("r+b", buffering=0))
    path = csv_of(tmp_path / "a.csv", "a", *map(str, range(200)))
    with pytest.raises(InvalidData, match=r"no room for the rows .*TMPDIR"):
        load_table(path)


# -- several files


def test_folders_named_after_values_are_columns(tmp_path: Path) -> None:
    for year, city in ((2023, "Oslo"), (2024, "São Paulo")):
        folder = tmp_path / "rows" / f"year={year}" / f"city={city}"
        folder.mkdir(parents=True)
        pyarrow.parquet.write_table(pa.table({"x": [year + 0.5, year + 0.7]}), folder / "a.parquet")
    table = load_table(tmp_path / "rows")
    assert table.columns == ("x", "year", "city")
    assert table.column("year").tolist() == [2023, 2023, 2024, 2024]
    assert table.column("city").tolist() == ["Oslo"] * 2 + ["São Paulo"] * 2
    assert table.mask("year = 2024 AND x > 2024.6").tolist() == [False] * 3 + [True]
    assert table.select([3, 0]).column("year").tolist() == [2024, 2023]
    assert [part.rows for part in table.batches(3, ["city"])] == [3, 1]


def test_a_pattern_names_files_and_whole_numbers_join_with_fractions(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pa.table({"x": [1, 2], "y": ["a", "b"]}), tmp_path / "1.parquet")
    pyarrow.parquet.write_table(pa.table({"y": ["c"], "x": [2.5]}), tmp_path / "2.parquet")
    (tmp_path / "notes.txt").write_text("not data")
    table = load_table("*.parquet", root=tmp_path)
    assert table.column("x").tolist() == [1, 2, 2.5]
    assert table.digest != load_table("1.parquet", root=tmp_path).digest
    with pytest.raises(InvalidData, match="several kinds"):
        load_table(tmp_path)
    with pytest.raises(InvalidData, match="no file matches"):
        load_table("*.csv", root=tmp_path)


def test_files_that_do_not_go_together_are_named(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pa.table({"height": [1], "y": ["a"]}), tmp_path / "1.parquet")
    pyarrow.parquet.write_table(pa.table({"heigth": [1], "y": ["a"]}), tmp_path / "2.parquet")
    pyarrow.parquet.write_table(pa.table({"height": ["tall"], "y": ["a"]}), tmp_path / "3.parquet")
    with pytest.raises(InvalidData, match=r"2.parquet has no column 'height' \(did you mean 'heigth'\?\)"):
        load_table("[12].parquet", root=tmp_path)
    with pytest.raises(InvalidData, match="types that do not go together"):
        load_table("[13].parquet", root=tmp_path)


def test_a_url_is_read_as_a_file_is(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    wanted = pa.table({"x": [1.5, 2.5], "y": ["a", "b"]})
    for name in ("1", "2"):
        pyarrow.parquet.write_table(wanted, tmp_path / f"{name}.parquet")
        memory.pipe(f"/bucket/{name}.parquet", (tmp_path / f"{name}.parquet").read_bytes())
    memory.pipe("/bucket/rows.csv", b"x,y\n1.5,a\n2.5,b\n")
    try:
        table = load_table("memory://bucket/1.parquet")
        assert table.arrow.equals(wanted)
        assert table.digest == load_table(tmp_path / "1.parquet").digest
        assert load_table("memory://bucket/rows.csv").arrow.equals(wanted)
        assert load_table("memory://bucket/*.parquet").rows == 4
        with pytest.raises(InvalidData, match="does not exist"):
            load_table("memory://bucket/3.parquet")
        with pytest.raises(InvalidData, match="cannot be reached"):
            load_table("nowhere://bucket/3.parquet")
    finally:
        memory.rm("/bucket", recursive=True)


def test_a_file_that_changes_under_the_reader_has_no_digest(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pa.table({"x": [1.0]}), path)
    table = load_table(path)
    pyarrow.parquet.write_table(pa.table({"x": [2.0]}), path)
    os.utime(path, (1, 1))
    with pytest.raises(InvalidData, match="has changed while it was read"):
        _ = table.digest


def test_damage_in_the_middle_is_said_when_it_is_met(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pa.table({"x": np.random.default_rng(0).random(10_000)}), path, compression="gzip")
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 3 : len(raw) // 2] = bytes(len(raw) // 2 - len(raw) // 3)
    path.write_bytes(raw)
    with pytest.raises(InvalidData, match=r"a.parquet cannot be read"):
        load_table(path).column("x")


def test_problems_are_counted_over_all_batches(tmp_path: Path) -> None:
    a = [math.nan if row % 1000 == 7 else 1.0 for row in range(40_000)]
    pyarrow.parquet.write_table(pa.table({"a": a, "b": ["x"] * 40_000}), tmp_path / "a.parquet")
    table = load_table(tmp_path / "a.parquet")
    spec = TensorSpec("x", Datatype.FP32, (-1, 3), columns=("a", "b", "c"))
    assert [line.partition(";")[0] for line in table.problems([spec])] == [
        "input 'x' needs the columns 'c', which are not there",
        "column 'a' has 40 missing or infinite numbers, first in row 7",
        "column 'b' holds text, not numbers (input 'x', FP32)",
    ]


def test_texts_with_line_breaks_may_lie_anywhere_in_a_large_csv(tmp_path: Path) -> None:
    texts = [f"line {number}\nand, another" * 20 for number in range(8000)]
    lines = "".join(f'"{text}",{number % 2}\n' for number, text in enumerate(texts))
    (tmp_path / "reviews.csv").write_text(f"text,label\n{lines}")
    assert (tmp_path / "reviews.csv").stat().st_size > 2 * 2**20
    table = load_table(tmp_path / "reviews.csv")
    assert table.column("text").tolist() == texts


def test_a_pattern_is_found_in_a_folder_whose_own_name_looks_like_one(tmp_path: Path) -> None:
    folder = tmp_path / "project[1]" / "data"
    folder.mkdir(parents=True)
    for name in ("a", "b"):
        (folder / f"{name}.csv").write_text("x\n1\n")
    assert load_table("data/*.csv", root=tmp_path / "project[1]").rows == 2
