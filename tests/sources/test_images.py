"""Images become what a model takes: upright, in its size, its channels, its layout; the broken ones are all named."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fairway.core.errors import InvalidConfig, InvalidData
from fairway.core.tensors import Datatype, TensorSpec
from fairway.sources.images import decode_images, target_of
from fairway.sources.settings import DataSettings, ImageSettings
from fairway.sources.tables import Table, load_table

RGB = TensorSpec("x", Datatype.UINT8, (-1, -1, -1, 3))


def encoded(pixels: np.ndarray[Any, Any], form: str = "PNG", **options: Any) -> dict[str, Any]:
    stream = io.BytesIO()
    PIL.Image.fromarray(pixels).save(stream, form, **options)
    return {"bytes": stream.getvalue(), "path": "a"}


def picture(path: Path, color: int = 0, size: tuple[int, int] = (6, 4), **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new("RGB", size, (color, 0, 0)).save(path, **options)


@settings(max_examples=25, deadline=None)
@given(arrays.arrays(np.uint8, st.tuples(st.integers(1, 6), st.integers(1, 6), st.just(3))))
def test_pixels_survive_and_the_input_decides_layout_and_scale(pixels: np.ndarray[Any, Any]) -> None:
    height, width, _ = pixels.shape
    rows = [encoded(pixels)] * 2
    got, broken = decode_images(rows, RGB, ImageSettings())
    assert not broken
    np.testing.assert_array_equal(got, [pixels] * 2)
    first = TensorSpec("x", Datatype.FP32, (-1, 3, height, width))
    plain = ImageSettings(layout="channels-first")
    np.testing.assert_allclose(decode_images(rows, first, plain)[0][0], pixels.transpose(2, 0, 1) / 255, atol=1e-6)
    normal = ImageSettings(layout="channels-first", scale=1.0, mean=(1, 2, 3), std=(2, 4, 8))
    wanted = ((pixels.astype(float) - [1, 2, 3]) / [2, 4, 8]).transpose(2, 0, 1)
    np.testing.assert_allclose(decode_images(rows, first, normal)[0][1], wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "given_", "wanted"),
    [
        ((-1, 1, 28, 28), {}, ("L", (28, 28), True, False)),
        ((-1, 32, 32, 3), {}, ("RGB", (32, 32), False, False)),
        ((-1, -1, -1, 3), {}, ("RGB", None, False, False)),
        ((-1, 4, -1, -1), {"size": (8, 9)}, ("RGBA", (8, 9), True, False)),
        ((-1, -1, -1, -1), {"layout": "channels-last"}, ("RGB", None, False, False)),
        ((-1, 64), {}, ("L", (8, 8), False, True)),
        ((-1, 192), {"size": (8, 8)}, ("RGB", (8, 8), False, True)),
        ((-1, 28, 28), {}, ("L", (28, 28), False, False)),
    ],
)
def test_the_shape_of_the_input_says_what_it_wants(
    shape: tuple[int, ...], given_: dict[str, Any], wanted: tuple[Any, ...]
) -> None:
    target = target_of(TensorSpec("x", Datatype.FP32, shape), ImageSettings(**given_))
    assert (target.mode, target.size, target.first, target.flat) == wanted


@pytest.mark.parametrize(
    ("shape", "given_", "says"),
    [
        ((-1, 3, 8, 8), {"size": (9, 9)}, r"size is \[9, 9\]"),
        ((-1, 3, 8, 8), {"mode": "L"}, "do not fit"),
        ((-1, 65), {}, "say which images"),
        ((-1, 2, 2, 2, 2), {}, "is no image"),
        ((-1, 3, 8, 8), {"size": (9,)}, "height and width"),
    ],
)
def test_settings_that_contradict_the_input_are_refused(
    shape: tuple[int, ...], given_: dict[str, Any], says: str
) -> None:
    with pytest.raises(InvalidConfig, match=says):
        target_of(TensorSpec("x", Datatype.FP32, shape), ImageSettings(**given_))


def test_a_photo_is_turned_upright_as_its_exif_data_say() -> None:
    pixels = np.zeros((2, 4, 3), np.uint8)
    pixels[:, 0] = 255
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    got, _ = decode_images([encoded(pixels, exif=exif)], RGB, ImageSettings())
    assert got.shape == (1, 4, 2, 3)
    assert got[0, 0].min() == 255


def test_gray_transparent_palette_and_sixteen_bit_images_are_converted() -> None:
    gray = np.full((2, 2), 100, np.uint8)
    palette = PIL.Image.fromarray(gray).convert("P")
    stream = io.BytesIO()
    palette.save(stream, "PNG")
    rows = [
        encoded(gray),
        encoded(np.dstack([gray, gray, gray, np.full_like(gray, 255)])),
        {"bytes": stream.getvalue(), "path": "p"},
        encoded(np.full((2, 2), 100 * 256, np.uint16)),
    ]
    got, broken = decode_images(rows, RGB, ImageSettings())
    assert not broken
    assert got.shape == (4, 2, 2, 3)
    assert set(got.ravel().tolist()) == {100}


@pytest.mark.parametrize(("fit", "sides"), [("stretch", (0, 255)), ("crop", (0, 255)), ("pad", (0, 255))])
def test_another_ratio_is_stretched_cropped_or_padded(fit: Any, sides: tuple[int, int]) -> None:
    pixels = np.zeros((4, 8, 3), np.uint8)
    pixels[:, 4:] = 255
    spec = TensorSpec("x", Datatype.UINT8, (-1, 4, 4, 3))
    got, _ = decode_images([encoded(pixels)], spec, ImageSettings(fit=fit, resample="nearest"))
    assert got.shape == (1, 4, 4, 3)
    assert (got[0, 2, 0, 0], got[0, 2, -1, 0]) == sides
    assert (got[0, 0].max() == 0) == (fit == "pad")


# -- folders


def test_folders_are_classes_and_images_are_read_when_they_are_asked_for(tmp_path: Path) -> None:
    for number in range(3):
        picture(tmp_path / "cats" / f"{number}.png", 10 * number)
        picture(tmp_path / "dogs" / f"{number}.jpg", 200, quality=100)
    table = load_table(tmp_path)
    assert table.columns == ("image", "label")
    assert table.column("label").tolist() == ["cats"] * 3 + ["dogs"] * 3
    assert table.mask("label = 'dogs'").tolist() == [False] * 3 + [True] * 3
    assert table.datatype("image") is None
    assert table.column("image").tolist() == [
        *(f"cats/{n}.png" for n in range(3)),
        *(f"dogs/{n}.jpg" for n in range(3)),
    ]
    feed = table.feed([TensorSpec("pixels", Datatype.UINT8, (-1, 4, 6, 3))], label="label")
    assert feed["pixels"].shape == (6, 4, 6, 3)
    assert feed["pixels"][:3, 0, 0, 0].tolist() == [0, 10, 20]
    parts = list(table.feeds([TensorSpec("pixels", Datatype.UINT8, (-1, 4, 6, 3))], 4, label="label"))
    np.testing.assert_array_equal(np.concatenate([part["pixels"] for _, part in parts]), feed["pixels"])
    (tmp_path / "dogs" / "0.jpg").unlink()
    assert table.column("label").tolist()[-1] == "dogs"  # no image was needed


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_metadata_say_what_the_images_show(form: str, tmp_path: Path) -> None:
    picture(tmp_path / "a.png", 1)
    picture(tmp_path / "more" / "b.png", 2)
    text = {
        "csv": "file_name,label,ink\nmore/b.png,7,0.5\na.png,3,0.1\n",
        "jsonl": '{"file_name": "more/b.png", "label": 7, "ink": 0.5}\n{"file_name": "a.png", "label": 3, "ink": 0.1}\n',
    }
    (tmp_path / f"metadata.{form}").write_text(text[form])
    table = load_table(tmp_path)
    assert table.columns == ("image", "label", "ink", "path")
    assert table.column("label").tolist() == [7, 3]
    assert table.column("path").tolist() == ["more/b.png", "a.png"]
    assert table.feed([RGB], label="label")["x"][:, 0, 0, 0].tolist() == [2, 1]
    (tmp_path / "a.png").unlink()
    with pytest.raises(InvalidData, match=r"1 of the 2 images that its metadata names are absent: a\.png"):
        load_table(tmp_path)


def test_a_split_is_a_folder_in_the_folder(tmp_path: Path) -> None:
    picture(tmp_path / "train" / "cats" / "a.png")
    picture(tmp_path / "test" / "dogs" / "a.png")
    assert load_table(f"{tmp_path}#test").column("label").tolist() == ["dogs"]


def test_broken_images_are_all_listed_with_their_paths(tmp_path: Path) -> None:
    picture(tmp_path / "cats" / "good.jpg", size=(64, 64))
    picture(tmp_path / "cats" / "half.jpg", size=(64, 64))
    picture(tmp_path / "dogs" / "small.png", size=(3, 3))
    (tmp_path / "dogs" / "text.png").write_text("not an image")
    half = (tmp_path / "cats" / "half.jpg").read_bytes()
    (tmp_path / "cats" / "half.jpg").write_bytes(half[: len(half) // 2])
    lines = load_table(tmp_path).problems([TensorSpec("x", Datatype.UINT8, (-1, 64, 64, 3))], label="label")
    assert len(lines) == 2
    assert "(cats/half.jpg) cannot be decoded" in lines[0]
    assert "(dogs/text.png) is no image that Pillow knows" in lines[1]
    (tmp_path / "dogs" / "text.png").unlink()
    (tmp_path / "cats" / "half.jpg").unlink()
    with pytest.raises(InvalidData, match=r"\(dogs/small.png\) has 3 × 3 pixels, others 64 × 64: set size"):
        load_table(tmp_path).feed([RGB], label="label")


def test_a_picture_too_large_to_decode_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(tmp_path / "cats" / "a.png", size=(20, 20))
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 300)
    with pytest.raises(InvalidData, match="400 pixels"):
        load_table(tmp_path).feed([RGB], label="label")


def test_the_settings_reach_the_images(tmp_path: Path) -> None:
    picture(tmp_path / "cats" / "a.png", 255)
    settings_ = DataSettings(test="", image=ImageSettings(size=(8, 8), mode="L", scale=1 / 16))
    table: Table = load_table(tmp_path, settings=settings_)
    feed = table.feed([TensorSpec("x", Datatype.FP32, (-1, 64))], label="label")
    assert feed["x"].shape == (1, 64)
    np.testing.assert_allclose(feed["x"], 76 / 16)  # luma of pure red
