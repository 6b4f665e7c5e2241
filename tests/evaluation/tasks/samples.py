"""Tallied rows of every task, from seeds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fairway.evaluation.tallied import Tallied
from fairway.evaluation.tasks import detection, generation, multilabel, ranking, segmentation, similarity, tokens
from fairway.evaluation.tasks.detection import Boxes

TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
WORDS = np.array(["the", "cat", "sat", "on", "a", "mat", "dog", "ran", "far", "away"])


def multi_label(seed: int, rows: int, labels: int = 4, signal: float = 3.0) -> Tallied:
    """Labels of falling frequency; a row has its own level of scores."""
    rng = np.random.default_rng([seed, 21])
    truth = rng.random((rows, labels)) < 0.5 / (1 + np.arange(labels) / 2)
    odds = rng.normal(size=(rows, labels)) + signal * (truth - 0.5) + 0.5 * rng.normal(size=(rows, 1))
    return multilabel.tally(truth, 1 / (1 + np.exp(-odds)), tuple(f"label {n}" for n in range(labels)))


def queries(seed: int, count: int, noise: float = 1.0) -> Tallied:
    """Queries of 2 to 9 rows, each with a relevant one; scores are rounded, so that some are equal."""
    rng = np.random.default_rng([seed, 22])
    query = np.repeat(np.arange(count), rng.integers(2, 10, count))
    relevance = np.where(rng.random(len(query)) < 0.3, rng.integers(1, 4, len(query)), 0).astype(float)
    relevance[np.unique(query, return_index=True)[1]] = 1
    return ranking.tally(ranking.Judged(relevance, query), np.round(relevance + noise * rng.normal(size=len(query)), 1))


def sentences(seed: int, rows: int, right: float = 0.85) -> Tallied:
    """Sentences of 3 to 14 words, some harder than others."""
    rng = np.random.default_rng([seed, 23])
    truth, said = [], []
    for _ in range(rows):
        size, easy = rng.integers(3, 15), rng.beta(8 * right, 8 * (1 - right))
        tags = [TAGS[n] for n in rng.choice(5, size, p=[0.6, 0.1, 0.1, 0.1, 0.1])]
        truth.append(tags)
        said.append([tag if rng.random() < easy else TAGS[rng.integers(5)] for tag in tags])
    return tokens.tally(truth, said, TAGS)


def pairs(seed: int, rows: int, slope: float = 1.0) -> Tallied:
    rng = np.random.default_rng([seed, 24])
    likeness = np.round(rng.gamma(2.0, 1.0, rows), 1)
    return similarity.tally(likeness, slope * likeness + rng.normal(size=rows))


def texts(seed: int, rows: int) -> Tallied:
    """Sentences of seven words, half of them with some changed."""
    rng = np.random.default_rng([seed, 25])
    wanted = [list(rng.choice(WORDS, 7)) for _ in range(rows)]
    said = [
        [w if rng.random() < 0.8 else rng.choice(WORDS) for w in row] if rng.random() < 0.5 else row for row in wanted
    ]
    count = rng.integers(3, 12, rows).astype(float)
    answered = generation.Answered([" ".join(row) for row in said], count * rng.gamma(4, 0.5, rows), count)
    return generation.tally([[" ".join(row)] for row in wanted], answered)


def masks(seed: int, rows: int, classes: int = 3) -> Tallied:
    rng = np.random.default_rng([seed, 26])
    truth = [rng.integers(0, classes, (6, 7)) for _ in range(rows)]
    said = [
        np.where(rng.random(mask.shape) < rng.beta(8, 2), mask, rng.integers(0, classes, mask.shape)) for mask in truth
    ]
    return segmentation.tally(truth, said, tuple(map(str, range(classes))))


def boxes(seed: int, images: int) -> tuple[list[Boxes], list[Boxes]]:
    """True boxes, and answers near most of them with some others."""
    rng = np.random.default_rng([seed, 27])
    truth, said = [], []
    for _ in range(images):
        count = rng.integers(1, 5)
        corner = rng.random((count, 2)) * 80
        true = np.hstack([corner, corner + 10 + rng.random((count, 2)) * 20])
        classes = rng.integers(0, 3, count)
        truth.append(Boxes(true, classes, np.ones(count)))
        moved = true + rng.normal(size=true.shape) * 1.5
        moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
        named = np.where(rng.random(count) < 0.9, classes, rng.integers(0, 3, count))
        said.append(Boxes(moved, named, np.round(rng.random(count), 2)))
    return truth, said


def images(seed: int, rows: int) -> Tallied:
    return detection.tally(*boxes(seed, rows))


ALL: dict[str, Callable[[int, int], Tallied]] = {
    "multi-label": multi_label,
    "ranking": queries,
    "token-classification": sentences,
    "embedding": pairs,
    "generation": texts,
    "segmentation": masks,
    "detection": images,
}
