"""Perturbations of columns of numbers: what sensors, joins and units do to them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fairway.core.tensors import Tensor
from fairway.evaluation.perturbations.base import Perturbation, as_dtype

_FAR = 10.0


def is_numbers(values: Tensor) -> bool:
    """Whether an input is of floating-point columns, ``[rows]`` or ``[rows, columns]``; integers are often codes."""
    return values.dtype.kind == "f" and values.ndim in (1, 2)


def number_perturbations(values: Tensor, *, takes_missing: bool) -> tuple[Perturbation, ...]:
    """All, by the columns' own median and spread.

    Parameters
    ----------
    values : float array of shape (rows,) or (rows, columns)
    takes_missing : bool
        Whether the model takes NaN; if not, a missing value is what imputing makes of it: the median.
    """
    clean = values.reshape(len(values), -1).astype(np.float64)
    known = np.where(np.isfinite(clean), clean, np.nan)
    known[:, ~np.isfinite(known).any(axis=0)] = 0.0
    middle, spread = np.nanmedian(known, axis=0), np.nanstd(known, axis=0)
    missing = np.full_like(middle, np.nan) if takes_missing else middle

    def of(change: Callable[[Tensor, float, np.random.Generator], Tensor]) -> Callable[..., Tensor]:
        def apply(columns: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
            flat = columns.reshape(len(columns), -1).astype(np.float64)
            return as_dtype(change(flat, strength, rng), columns.dtype).reshape(columns.shape)

        return apply

    def noise(columns: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
        return np.asarray(columns + strength * spread * rng.normal(size=columns.shape))

    def absent(columns: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
        return np.where(rng.random(columns.shape) < strength, missing, columns)

    def outliers(columns: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
        far = middle + _FAR * spread * rng.choice([-1, 1], size=columns.shape)
        return np.where(rng.random(columns.shape) < strength, far, columns)

    def shifted(columns: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
        return np.asarray(columns + strength * spread * rng.choice([-1, 1], size=columns.shape[1]))

    def scaled(columns: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
        return columns * np.where(rng.random(columns.shape[1]) < 0.5, strength, 1 / strength)

    def units(columns: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
        rows = np.flatnonzero(rng.random(len(columns)) < strength)
        column = rng.integers(0, columns.shape[1], len(columns))[rows]
        columns[rows, column] *= rng.choice([0.001, 1000.0], size=len(columns))[rows]
        return columns

    absent_name = "missing values" if takes_missing else "missing values, imputed by the median"
    return (
        Perturbation("noise", (0.05, 0.1, 0.2, 0.4, 0.8), "of each column's standard deviation", of(noise)),
        Perturbation(absent_name, (0.01, 0.05, 0.1, 0.2, 0.4), "share of values", of(absent)),
        Perturbation("outliers", (0.005, 0.01, 0.02, 0.05, 0.1), "share of values, ten deviations off", of(outliers)),
        Perturbation("shifted columns", (0.1, 0.2, 0.4, 0.8, 1.6), "in each column's standard deviation", of(shifted)),
        Perturbation("scaled columns", (1.05, 1.1, 1.25, 1.5, 2.0), "times, or by", of(scaled)),
        Perturbation(
            "swapped units", (0.01, 0.05, 0.1, 0.25, 0.5), "share of rows, one value by a thousand", of(units)
        ),
    )
