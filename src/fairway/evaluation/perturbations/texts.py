"""Perturbations of texts: what people and programs do to them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fairway.core.tensors import Tensor
from fairway.evaluation.perturbations.base import Perturbation

_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_NEIGHBORS = {
    key: "".join(
        other
        for y, line in enumerate(_ROWS)
        for x, other in enumerate(line)
        if other != key and abs(y - row) <= 1 and abs(x - place) <= 1
    )
    for row, keys in enumerate(_ROWS)
    for place, key in enumerate(keys)
}
_NEUTRAL = "That is all there is to say about it for now. "
_MARKS = "  \t..,;!?-"


def is_text(values: Tensor) -> bool:
    """Whether an input is of texts."""
    return values.dtype == object


def text_perturbations() -> tuple[Perturbation, ...]:
    """All; bytes that are no UTF-8 stay as they are."""
    return (
        Perturbation("typos", (0.01, 0.03, 0.06, 0.12, 0.25), "share of letters", _each(_typos)),
        Perturbation("case", (0.1, 0.25, 0.5, 0.75, 1.0), "share of words in capitals", _each(_case)),
        Perturbation("punctuation", (0.05, 0.1, 0.25, 0.5, 1.0), "share of gaps with marks or spaces", _each(_marks)),
        Perturbation("truncation", (0.9, 0.75, 0.5, 0.25, 0.1), "share of characters left", _each(_truncated)),
        Perturbation("padding", (0.25, 0.5, 1.0, 2.0, 4.0), "neutral text added, of the length", _each(_padded)),
    )


def _each(change: Callable[[str, float, np.random.Generator], str]) -> Callable[..., Tensor]:
    def apply(texts: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
        changed = np.empty(texts.size, dtype=object)
        for place, value in enumerate(texts.ravel().tolist()):
            changed[place] = _changed(value, change, strength, rng)
        return changed.reshape(texts.shape)

    return apply


def _changed(
    value: bytes | str,
    change: Callable[[str, float, np.random.Generator], str],
    strength: float,
    rng: np.random.Generator,
) -> bytes | str:
    if isinstance(value, str):
        return change(value, strength, rng)
    try:
        return change(value.decode("utf-8"), strength, rng).encode("utf-8")
    except (UnicodeDecodeError, AttributeError):
        return value


def _typos(text: str, strength: float, rng: np.random.Generator) -> str:
    """Neighbors on the keyboard, letters swapped with the next, letters dropped: a third each."""
    letters = list(text)
    hit = np.flatnonzero(rng.random(len(letters)) < strength)
    kinds = rng.integers(0, 3, len(hit))
    for place, kind in zip(hit[::-1].tolist(), kinds.tolist(), strict=True):
        if not letters[place].isalpha():
            continue
        near = _NEIGHBORS.get(letters[place].lower(), "")
        if kind == 0 and near:
            letters[place] = near[int(rng.integers(len(near)))]
        elif kind == 1 and place + 1 < len(letters):
            letters[place : place + 2] = letters[place + 1], letters[place]
        else:
            del letters[place]
    return "".join(letters)


def _case(text: str, strength: float, rng: np.random.Generator) -> str:
    words = text.split(" ")
    upper = rng.random(len(words)) < strength
    return " ".join(word.upper() if high else word for word, high in zip(words, upper, strict=True))


def _marks(text: str, strength: float, rng: np.random.Generator) -> str:
    words = text.split(" ")
    marked = rng.random(len(words)) < strength
    marks = rng.integers(0, len(_MARKS), len(words))
    return " ".join(word + (_MARKS[m] if hit else "") for word, hit, m in zip(words, marked, marks, strict=True))


def _truncated(text: str, strength: float, rng: np.random.Generator) -> str:
    del rng
    return text[: max(1, round(strength * len(text)))]


def _padded(text: str, strength: float, rng: np.random.Generator) -> str:
    del rng
    length = round(strength * len(text))
    return text + (" " + _NEUTRAL * (length // len(_NEUTRAL) + 1))[:length]
