"""A model that is asked the same again and again."""

from __future__ import annotations

from fairway.bundle.format import Bundle
from fairway.core.feeds import digest
from fairway.core.tensors import Tensors
from fairway.model import Model

_BYTES = 256 * 2**20


class Remembering(Model):
    """A model that keeps its answers: every form is compared with the original's, on the same batches.

    Answers beyond ``limit`` bytes are computed each time.
    """

    def __init__(self, bundle: Bundle, *, limit: int = _BYTES) -> None:
        super().__init__(bundle)
        self._left = limit
        self._answers: dict[bytes, Tensors] = {}

    def infer(self, feed: Tensors, *, raw: bool = False) -> Tensors:
        """As a model's, from what is kept where it was asked before."""
        key = digest(b"", feed, raw)
        if (known := self._answers.get(key)) is not None:
            return known
        answer = super().infer(feed, raw=raw)
        size = sum(array.nbytes for array in answer.values())
        if size <= self._left and all(array.dtype.kind != "O" for array in answer.values()):
            self._left -= size
            self._answers[key] = answer
        return answer
