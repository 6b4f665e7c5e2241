"""Perturbations of images: those that cameras, codecs and light make.

References
----------
D. Hendrycks, T. Dietterich, "Benchmarking neural network robustness to common corruptions and perturbations", ICLR 2019,
arXiv:1903.12261: the idea of common corruptions at five severities; the strengths here are our own.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np

from fairway.core.extras import require
from fairway.core.tensors import Tensor
from fairway.evaluation.perturbations.base import Perturbation, as_dtype


def is_image(values: Tensor) -> bool:
    """Whether an input is of images: ``[rows, height, width]``, with 1 or 3 channels first or last, at least 8 by 8."""
    if values.dtype.kind not in "iuf" or values.ndim not in (3, 4):
        return False
    sides = values.shape[1:]
    if values.ndim == 4:
        sides = sides[:-1] if sides[-1] in (1, 3) else sides[1:] if sides[0] in (1, 3) else (0,)
    return bool(min(sides) >= 8)


def image_perturbations(values: Tensor) -> tuple[Perturbation, ...]:
    """All, for images that range as ``values`` do: 0 to 255, or from their least to their greatest value."""
    known = values.astype(np.float64)
    low, high = (0.0, 255.0) if values.dtype == np.uint8 else (float(known.min()), float(known.max()))

    def of(change: Callable[[Tensor, float, np.random.Generator], Tensor]) -> Callable[..., Tensor]:
        """Give ``change`` images between 0 and 1, channels last."""

        def apply(images: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
            first = images.ndim == 4 and images.shape[-1] not in (1, 3)
            scaled = (images.astype(np.float64) - low) / ((high - low) or 1.0)
            last = np.moveaxis(scaled, 1, -1) if first else scaled if images.ndim == 4 else scaled[..., None]
            changed = np.clip(change(last, strength, rng), 0, 1)
            back = np.moveaxis(changed, -1, 1) if first else changed if images.ndim == 4 else changed[..., 0]
            return as_dtype(back * (high - low) + low, images.dtype)

        return apply

    return (
        Perturbation("noise", (0.02, 0.05, 0.1, 0.2, 0.4), "standard deviation, of the range", of(_noise)),
        Perturbation("blur", (0.5, 1.0, 1.5, 2.5, 4.0), "standard deviation, in 64ths of the side", of(_blur)),
        Perturbation("brightness", (0.05, 0.1, 0.2, 0.3, 0.5), "added or taken, of the range", of(_brightness)),
        Perturbation("contrast", (0.8, 0.6, 0.45, 0.3, 0.15), "what is left of it", of(_contrast)),
        Perturbation("JPEG", (80, 50, 25, 10, 4), "quality of 100", of(_jpeg)),
        Perturbation("rotation", (3, 7, 15, 30, 60), "degrees, either way", of(_rotation)),
    )


def _noise(images: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    return images + strength * rng.normal(size=images.shape)


def _blur(images: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    del rng
    width = strength * max(min(images.shape[1:3]) / 64, 0.4)
    blurred: Tensor = require("scipy.ndimage", extra="evaluate").gaussian_filter(images, (0, width, width, 0))
    return blurred


def _brightness(images: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    return images + strength * rng.choice([-1, 1], size=(len(images), 1, 1, 1))


def _contrast(images: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    del rng
    mean = images.mean(axis=(1, 2, 3), keepdims=True)
    return np.asarray(mean + strength * (images - mean))


def _rotation(images: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    rotate = require("scipy.ndimage", extra="evaluate").rotate
    signs = rng.choice([-1, 1], size=len(images))
    turned = [
        rotate(each, s * strength, reshape=False, order=1, mode="nearest")
        for each, s in zip(images, signs, strict=True)
    ]
    return np.stack(turned)


def _jpeg(images: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    del rng
    pillow = require("PIL.Image", extra="evaluate")

    def coded(image: Tensor) -> Tensor:
        pixels = np.rint(image * 255).astype(np.uint8)
        buffer = io.BytesIO()
        pillow.fromarray(pixels if pixels.shape[-1] == 3 else pixels[..., 0]).save(
            buffer, "JPEG", quality=int(strength)
        )
        with pillow.open(buffer) as read:
            return np.asarray(read, np.float64).reshape(image.shape) / 255

    return np.stack([coded(each) for each in images])
