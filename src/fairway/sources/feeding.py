"""How columns of some rows become a model's inputs, and what keeps them from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from fairway.core.errors import InvalidConfig, InvalidData
from fairway.core.tensors import Datatype, Tensor, TensorSpec
from fairway.sources.columns import is_image, joined_words, to_numpy
from fairway.sources.images import broken_images, decode_images, target_of
from fairway.sources.mapping import Plan, Problems, fill
from fairway.sources.settings import ImageSettings

_FEED_BYTES = 16 * 2**20
_FEED_ROWS = 16_384


class Feeding:
    """Fills inputs from a table's columns, by a plan of which columns fill which.

    Parameters
    ----------
    image : ImageSettings
        How images become a model's input.

    Attributes
    ----------
    sound : set of str
        Columns whose images can all be decoded: whoever went through all rows adds them.
    """

    def __init__(self, image: ImageSettings) -> None:
        self._image = image
        self.sound: set[str] = set()

    def fill(
        self,
        specs: Sequence[TensorSpec],
        plan: Plan,
        part: Any,
        problems: Problems,
        start: int = 0,
        *,
        check: bool = False,
    ) -> dict[str, Tensor]:
        """The inputs of the rows from ``start`` on; of images, ``check`` only looks whether they can be decoded."""
        feed: dict[str, Tensor] = {}
        for spec in specs:
            arrays = {}
            for name in plan.get(spec.name, ()):
                text = spec.datatype is Datatype.BYTES and len(spec.shape) == 1
                column = joined_words(part.column(name)) if text else part.column(name)
                try:
                    if is_image(column.type):
                        image = self._pictures(spec, name, column, problems, start, check=check)
                        if image is not None:
                            arrays[name] = image
                    else:
                        arrays[name] = to_numpy(column, name)
                        problems.add_shape(name, arrays[name])
                except (InvalidData, InvalidConfig) as error:
                    problems.add(str(error))
            if arrays and len(arrays) == len(plan[spec.name]):
                got = fill(spec, arrays, problems, start)
                if got is not None:
                    feed[spec.name] = got
        return feed

    def _pictures(
        self, spec: TensorSpec, name: str, column: Any, problems: Problems, start: int, *, check: bool
    ) -> Tensor | None:
        if check:
            target_of(spec, self._image)
            if name not in self.sound:
                tell_broken(name, column, problems, start)
            return None
        array, broken = decode_images(column.to_pylist(), spec, self._image)
        _tell(name, broken, column, problems, start)
        return None if broken else array


def tell_broken(name: str, column: Any, problems: Problems, start: int) -> None:
    """Add to ``problems`` the images of a column, from row ``start`` on, that cannot be decoded."""
    _tell(name, broken_images(column.to_pylist()), column, problems, start)


def planned(plan: Plan) -> list[str]:
    """The columns that a plan reads, each once."""
    return list(dict.fromkeys(name for names in plan.values() for name in names))


def feed_rows(specs: Sequence[TensorSpec], size: int) -> int:
    """Rows to prepare at once: many batches of a narrow table, few images; a multiple of ``size``."""
    width = sum(math.prod(abs(n) for n in spec.shape[1:]) * spec.datatype.dtype.itemsize for spec in specs)
    rows = max(1, min(_FEED_ROWS, _FEED_BYTES // max(width, 1)))
    return max(1, rows // size) * size


def _tell(name: str, broken: list[tuple[int, str]], column: Any, problems: Problems, start: int) -> None:
    for row, reason in broken:
        path = (column[row].as_py() or {}).get("path") or "no path"
        problems.add(f"column {name!r}, row {start + row} ({path}) {reason}")
