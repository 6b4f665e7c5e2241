"""Encoded images to a model's input: decoded, turned upright, resized, scaled."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from fairway.core.errors import InvalidConfig
from fairway.core.extras import require
from fairway.core.tensors import Tensor, TensorSpec
from fairway.sources.settings import ImageSettings

_CHANNELS = {"L": 1, "RGB": 3, "RGBA": 4}
_MODES = {count: mode for mode, count in _CHANNELS.items()}
_THREADS = 4
_NOT_8_BIT = ("I;16", "I;16L", "I;16B", "I;16N", "I")


@dataclass(frozen=True)
class Target:
    """What an input wants of an image.

    ``size`` is ``(height, width)``, or ``None`` where the input takes any; ``first`` is whether channels come first; ``flat``
    whether all is one axis.
    """

    mode: str
    size: tuple[int, int] | None
    first: bool
    flat: bool


def target_of(spec: TensorSpec, settings: ImageSettings) -> Target:
    """What ``spec`` wants, as far as its shape says, and beyond that as the settings say.

    Raises
    ------
    InvalidConfig
        If that leaves doubt, or the two contradict each other; the message says what to set.

    Examples
    --------
    >>> from fairway.core.tensors import Datatype
    >>> target_of(TensorSpec("x", Datatype.FP32, (-1, 3, 224, 224)), ImageSettings())
    Target(mode='RGB', size=(224, 224), first=True, flat=False)
    >>> target_of(TensorSpec("x", Datatype.UINT8, (-1, 28, 28)), ImageSettings())
    Target(mode='L', size=(28, 28), first=False, flat=False)
    """
    if len(settings.size) == 1:
        raise InvalidConfig(f"data.image.size is {list(settings.size)}; give height and width, as in [224, 224]")
    shape, given = spec.shape[1:], settings.size or None
    if len(shape) == 1:
        return _flat_target(spec, settings)
    if len(shape) == 2:
        return Target(_agreed(spec, 1, settings.mode), _size(spec, shape, given), first=False, flat=False)
    if len(shape) != 3:
        raise InvalidConfig(f"input {spec.name!r} takes {list(spec.shape)}, which is no image: 2 or 3 axes per row are")
    first = settings.layout == "channels-first" or (
        settings.layout == "auto"
        and (shape[0] in _MODES or shape[2] not in (*_MODES, -1))
        and shape[2:] not in ((3,), (4,))
    )
    channels, size = (shape[0], shape[1:]) if first else (shape[2], shape[:2])
    return Target(_agreed(spec, channels, settings.mode), _size(spec, size, given), first=first, flat=False)


def decode_images(
    encoded: Sequence[dict[str, Any] | None], spec: TensorSpec, settings: ImageSettings
) -> tuple[Tensor, list[tuple[int, str]]]:
    """Rows of ``{"bytes": ..., "path": ...}`` as one array that fits ``spec``.

    Returns
    -------
    array : array of shape ``[rows, ...]``
        Rows that are broken are zeros.
    broken : list of (row, reason)
        The images that cannot be decoded.
    """
    target = target_of(spec, settings)
    with ThreadPoolExecutor(_THREADS) as pool:  # the decoders let other threads run
        made = list(pool.map(lambda item: _decoded(item, target, settings), encoded))
    broken = [(row, each) for row, each in enumerate(made) if isinstance(each, str)]
    shapes = {each.shape for each in made if not isinstance(each, str)}
    if len(shapes) > 1:
        first = next(each.shape for each in made if not isinstance(each, str))
        broken += [
            (
                row,
                f"has {each.shape[1]} × {each.shape[0]} pixels, others {first[1]} × {first[0]}: set size = [HEIGHT, WIDTH]",
            )
            for row, each in enumerate(made)
            if not isinstance(each, str) and each.shape != first
        ]
    if broken:
        return np.zeros((len(made), 0)), sorted(broken)
    return _arranged(np.stack([np.asarray(each) for each in made]), spec, target, settings), []


def broken_images(encoded: Sequence[dict[str, Any] | None]) -> list[tuple[int, str]]:
    """Which images cannot be decoded, and why: of JPEG at an eighth of the size, which reads all of the file in less time."""
    with ThreadPoolExecutor(_THREADS) as pool:
        found = list(pool.map(_fault, encoded))
    return [(row, fault) for row, fault in enumerate(found) if fault]


def _arranged(pixels: Tensor, spec: TensorSpec, target: Target, settings: ImageSettings) -> Tensor:
    """``[rows, height, width, channels]`` of UINT8 as the input takes them."""
    array = pixels
    if spec.datatype.is_float:
        scale = 1 / 255 if settings.scale is None else settings.scale
        array = pixels.astype(np.float32) * np.float32(scale)
        array = (array - np.asarray(settings.mean or 0, np.float32)) / np.asarray(settings.std or 1, np.float32)
    array = array.astype(spec.datatype.dtype, copy=False)
    if target.first:
        array = array.transpose(0, 3, 1, 2)
    if target.flat:
        array = array.reshape(len(array), -1)
    elif len(spec.shape) == 3:
        array = array[..., 0]
    return np.ascontiguousarray(array)


def _decoded(item: dict[str, Any] | None, target: Target, settings: ImageSettings) -> Tensor | str:
    """Pixels of shape ``[height, width, channels]``, or why there are none."""
    image_module = require("PIL.Image", extra="evaluate")
    ops = require("PIL.ImageOps", extra="evaluate")
    raw = (item or {}).get("bytes")
    if not raw:
        return _absent(item)
    try:
        with image_module.open(io.BytesIO(raw)) as opened:
            if fault := _too_large(opened):
                return fault
            image = _eight_bit(ops.exif_transpose(opened)).convert(target.mode)
    except Exception as error:  # noqa: BLE001 (decoders raise anything at damaged files)
        return _reason(error)
    if target.size is not None and image.size != target.size[::-1]:
        resample = image_module.Resampling[settings.resample.upper()]
        size = target.size[::-1]
        if settings.fit == "crop":
            image = ops.fit(image, size, resample)
        elif settings.fit == "pad":
            image = ops.pad(image, size, resample)
        else:
            image = image.resize(size, resample)
    pixels = np.asarray(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _fault(item: dict[str, Any] | None) -> str:
    image_module = require("PIL.Image", extra="evaluate")
    raw = (item or {}).get("bytes")
    if not raw:
        return _absent(item)
    try:
        with image_module.open(io.BytesIO(raw)) as image:
            if fault := _too_large(image):
                return fault
            image.draft(None, (1, 1))
            image.load()
    except Exception as error:  # noqa: BLE001 (decoders raise anything at damaged files)
        return _reason(error)
    return ""


def _absent(item: dict[str, Any] | None) -> str:
    if item is None or not item.get("path"):
        return "is missing"
    return "is empty" if item.get("bytes") is not None else "has a path and no content: save the images with the data"


def _too_large(image: Any) -> str:
    limit = require("PIL.Image", extra="evaluate").MAX_IMAGE_PIXELS
    pixels = math.prod(image.size)
    return f"has {pixels:,} pixels, more than {limit:,}" if limit and pixels > limit else ""


def _eight_bit(image: Any) -> Any:
    """Sixteen bits to eight; Pillow's own conversion would cut off at 255."""
    if image.mode not in _NOT_8_BIT:
        return image
    values = np.asarray(image).astype(np.uint32)
    return require("PIL.Image", extra="evaluate").fromarray(
        (values >> 8 if values.max(initial=0) > 255 else values).astype(np.uint8)
    )


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return "is no image that Pillow knows" if "cannot identify image" in text else f"cannot be decoded: {text[:100]}"


def _flat_target(spec: TensorSpec, settings: ImageSettings) -> Target:
    length = spec.shape[1]
    for mode, channels in _CHANNELS.items():
        height, width = settings.size or (math.isqrt(max(length, 0) // channels),) * 2
        if (settings.mode in ("auto", mode)) and height * width * channels == length and length > 0:
            return Target(mode, (height, width), settings.layout == "channels-first", flat=True)
    raise InvalidConfig(
        f"input {spec.name!r} takes {list(spec.shape)}: say which images fill that, as in image = {{ size = [28, 28], "
        'mode = "L" } under [data]'
    )


def _agreed(spec: TensorSpec, channels: int, mode: str) -> str:
    if channels == -1:
        return "RGB" if mode == "auto" else mode
    if channels not in _MODES or mode not in ("auto", _MODES[channels]):
        raise InvalidConfig(
            f"input {spec.name!r} takes {list(spec.shape)}, which is {channels} channels: data.image.mode {mode!r} and layout "
            "do not fit that"
        )
    return _MODES[channels]


def _size(spec: TensorSpec, shape: Sequence[int], given: Sequence[int] | None) -> tuple[int, int] | None:
    height, width = shape
    if given is not None and any(want not in (-1, have) for want, have in zip(shape, given, strict=True)):
        raise InvalidConfig(f"data.image.size is {list(given)}, but input {spec.name!r} takes {list(spec.shape)}")
    if given is not None:
        return given[0], given[1]
    return None if -1 in (height, width) else (height, width)
