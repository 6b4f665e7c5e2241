"""Models of scikit-learn's digits. Each function returns a fitted estimator; fairway.toml names one as its source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier

HERE = Path(__file__).parent


def rows() -> tuple[Any, Any]:
    """The training rows, as 64 pixels between 0 and 1, and their digits."""
    table = pq.read_table(HERE / "train.parquet")
    pixels = [name for name in table.column_names if name.startswith("pixel_")]
    return np.column_stack([table[name] for name in pixels]).astype(np.float32), np.asarray(table["digit"])


def logistic() -> LogisticRegression:
    return LogisticRegression(max_iter=1000).fit(*rows())


def network() -> MLPClassifier:
    return MLPClassifier((64,), max_iter=400, random_state=0).fit(*rows())


def wider_network() -> MLPClassifier:
    return MLPClassifier((256,), max_iter=400, random_state=1).fit(*rows())


def mislabeled() -> LogisticRegression:
    """What happens when a third of the labels were entered wrong."""
    x, y = rows()
    wrong = np.random.default_rng(0).random(len(y)) < 0.35
    return LogisticRegression(max_iter=1000).fit(x, np.where(wrong, (y + 1) % 10, y))
