"""The road begins with whatever form the data have: images in folders, a query."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest

import fairway
from fairway.core.errors import InvalidData
from fairway.evaluation.report import Report
from fairway.loop.init import init
from fairway.settings import read_settings
from tests.conftest import Digits
from tests.projects import edit


def accuracy(report: Report) -> float:
    found = report.measurement("accuracy_score")
    assert found is not None
    return found.value


@pytest.fixture
def photos(folder: Path, digits: Digits) -> Path:
    """The test rows as pictures of 16 × 16 pixels, a folder per digit."""
    for number, (pixels, digit) in enumerate(zip(digits.x_test, digits.y_test, strict=True)):
        path = folder / "photos" / str(digit) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = PIL.Image.fromarray((pixels.reshape(8, 8) * 255).astype(np.uint8))
        image.resize((16, 16), PIL.Image.Resampling.NEAREST).save(path)
    edit(folder, 'test = "test.parquet"', 'test = "photos"\nimage = { resample = "nearest" }')
    edit(folder, 'label = "digit"\nfeatures = ["pixel_*"]', 'label = "label"')
    edit(folder, "ink < 0.25", "label IN ('1', '7')")
    return folder / "photos"


def test_a_folder_of_images_is_evaluated_like_the_table_it_shows(photos: Path, digits: Digits) -> None:
    report = fairway.evaluate()
    assert report.rows == 450
    assert report.origin == "photos"
    assert accuracy(report) == pytest.approx(digits.model.score(digits.x_test, digits.y_test), abs=0.01)
    assert report.slices[0].rows == sum(digits.y_test == 1) + sum(digits.y_test == 7)
    (photos / "3" / "broken.png").write_bytes(b"\x89PNG and no more")
    (photos / "8" / "empty.jpg").write_bytes(b"")
    with pytest.raises(InvalidData, match=r"(?s)\(3/broken.png\) is no image.*\(8/empty.jpg\) is empty"):
        fairway.evaluate()


def test_init_takes_a_folder_of_images(photos: Path) -> None:
    settings = read_settings(init("good.onnx", "photos", replace=True), {})
    assert settings.data is not None
    assert (settings.data.test, settings.data.label) == ("photos", "label")


def test_a_query_is_evaluated_like_the_file_it_reads(folder: Path) -> None:
    plain = fairway.evaluate()
    edit(folder, 'test = "test.parquet"', "test = \"sql:SELECT * FROM 'test.parquet' ORDER BY ink\"")
    asked = fairway.evaluate()
    assert asked.origin.startswith("sql:SELECT")
    assert asked.rows == plain.rows
    assert accuracy(asked) == pytest.approx(accuracy(plain))
