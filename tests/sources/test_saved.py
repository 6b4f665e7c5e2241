"""What Hugging Face's library saves, read without it: shards in order, names of classes, images, one split of several."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from fairway.core.errors import InvalidData
from fairway.core.tensors import Datatype, TensorSpec
from fairway.sources.candidate import Context
from fairway.sources.tables import load_table, make_table

datasets = pytest.importorskip("datasets")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


@pytest.fixture
def pets(tmp_path: Path) -> Any:
    files = []
    for number in range(10):
        files.append(str(tmp_path / f"{number}.png"))
        PIL.Image.fromarray(np.full((4, 4, 3), number, np.uint8)).save(files[-1])
    features = datasets.Features(
        {
            "photo": datasets.Image(),
            "kind": datasets.ClassLabel(names=["dog", "cat"]),
            "weights": datasets.Sequence(datasets.Value("float32"), length=2),
            "note": datasets.Value("string"),
        }
    )
    columns = {
        "photo": files,
        "kind": [0, 1] * 5,
        "weights": [[n, n + 0.5] for n in range(10)],
        "note": [None if n == 3 else f"row {n}" for n in range(10)],
    }
    return datasets.Dataset.from_dict(columns, features=features)


def test_shards_are_one_table_with_the_names_of_the_classes_and_decoded_images(pets: Any, tmp_path: Path) -> None:
    pets.save_to_disk(str(tmp_path / "saved"), num_shards=3)
    table = load_table(tmp_path / "saved")
    assert (table.rows, table.columns) == (10, ("photo", "kind", "weights", "note"))
    assert table.column("kind").tolist() == ["dog", "cat"] * 5
    np.testing.assert_array_equal(table.column("weights"), [[n, n + 0.5] for n in range(10)])
    assert table.column("note").tolist() == pets["note"][:]
    feed = table.feed([TensorSpec("x", Datatype.UINT8, (-1, 4, 4, 3))], label="kind")
    assert feed["x"][:, 0, 0, 0].tolist() == list(range(10))
    assert table.select([9, 0]).column("note").tolist() == ["row 9", "row 0"]
    assert table.mask("kind = 'cat' AND note IS NOT NULL").tolist() == [n % 2 == 1 and n != 3 for n in range(10)]


def test_classes_keep_the_order_of_the_data_set_not_of_the_alphabet(pets: Any, tmp_path: Path) -> None:
    pets.save_to_disk(str(tmp_path / "saved"))
    context = Context("classification", load_table(tmp_path / "saved"), "kind", (), (), tmp_path)
    assert context.class_names(2) == ("dog", "cat")


def test_a_split_is_named_behind_a_hash(pets: Any, tmp_path: Path) -> None:
    splits = {"train": pets, "test": pets.select(range(3))}
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "saved"))
    assert load_table(f"{tmp_path / 'saved'}#test").rows == 3
    with pytest.raises(InvalidData, match=r"has several splits; name one of train, test"):
        load_table(tmp_path / "saved")
    with pytest.raises(InvalidData, match=r"has no split 'tset' \(did you mean 'test'\?\)"):
        load_table(f"{tmp_path / 'saved'}#tset")
    with pytest.raises(InvalidData, match="without splits"):
        load_table(f"{tmp_path / 'saved' / 'test'}#test")


def test_rows_that_were_filtered_before_saving_are_gone(pets: Any, tmp_path: Path) -> None:
    pets.filter(lambda row: row["kind"] == 1).save_to_disk(str(tmp_path / "saved"))
    assert load_table(tmp_path / "saved").column("kind").tolist() == ["cat"] * 5


def test_parquet_that_the_library_wrote_has_the_names_too(pets: Any, tmp_path: Path) -> None:
    pets.to_parquet(str(tmp_path / "a.parquet"))
    table = load_table(tmp_path / "a.parquet")
    assert table.column("kind").tolist() == ["dog", "cat"] * 5
    with pytest.raises(
        InvalidData, match="has a path and no content"
    ):  # an image is never read from where data point to
        table.feed([TensorSpec("photo", Datatype.UINT8, (-1, 4, 4, 3))])


def test_rows_without_a_class_are_missing(pets: Any, tmp_path: Path) -> None:
    pets.map(lambda row: {"kind": -1 if row["note"] is None else row["kind"]}).save_to_disk(str(tmp_path / "saved"))
    assert load_table(tmp_path / "saved").column("kind").tolist()[3] is None


def test_a_damaged_folder_says_what_is_wrong(pets: Any, tmp_path: Path) -> None:
    pets.save_to_disk(str(tmp_path / "saved"), num_shards=2)
    shard = tmp_path / "saved" / "data-00001-of-00002.arrow"
    whole = shard.read_bytes()
    shard.unlink()
    with pytest.raises(InvalidData, match=r"data-00001-of-00002\.arrow is absent"):
        load_table(tmp_path / "saved")
    shard.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InvalidData, match="cannot be read"):
        load_table(tmp_path / "saved").column("photo")
    (tmp_path / "saved" / "state.json").write_text(json.dumps({"_data_files": [{"filename": "../../secret.arrow"}]}))
    with pytest.raises(InvalidData, match="outside its folder"):
        load_table(tmp_path / "saved")


def test_labels_that_are_lists_or_missing_name_no_classes(tmp_path: Path) -> None:
    hot = make_table({"x": [[1.0], [2.0]], "y": [[0.0, 1.0], [1.0, 0.0]]})
    assert Context("classification", hot, "y", (), (), tmp_path).class_names(2) == ("0", "1")
    holed = make_table({"x": [1.0, 2.0, 3.0, 4.0], "y": [0.5, math.nan, 1.5, math.nan]})
    assert Context("classification", holed, "y", (), (), tmp_path).class_names(2) == ("0.5", "1.5")
