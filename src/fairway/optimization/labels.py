"""Labels beside marks that cover neither each other nor another mark."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from fairway.evaluation.pages import INK, MUTED, SURFACE

_FONT = 8.5
_MARK = 6.0
"""Half the side of the square that a mark takes, in points."""


class Box(NamedTuple):
    """A rectangle, in points from the figure's corner."""

    left: float
    bottom: float
    right: float
    top: float

    def meets(self, other: Box) -> bool:
        """Whether the two overlap.

        Examples
        --------
        >>> Box(0, 0, 2, 2).meets(Box(1, 1, 3, 3)), Box(0, 0, 2, 2).meets(Box(2, 0, 3, 1))
        (True, False)
        """
        across = self.left < other.right and other.left < self.right
        return across and self.bottom < other.top and other.bottom < self.top

    def within(self, other: Box) -> bool:
        """Whether nothing of it is outside ``other``."""
        across = other.left <= self.left and self.right <= other.right
        return across and other.bottom <= self.bottom and self.top <= other.top


def place_labels(figure: Any, axes: Any, marks: Sequence[tuple[float, float, str, str]]) -> None:
    """Write a label beside each mark ``(x, y, short, long)``: the long text where there is room, else the short one."""
    figure.draw_without_rendering()
    scale = 72 / figure.dpi
    frame = Box(*(edge * scale for edge in axes.get_window_extent().extents))
    places = [tuple(coordinate * scale for coordinate in axes.transData.transform((x, y))) for x, y, _, _ in marks]
    taken = [Box(x - _MARK, y - _MARK, x + _MARK, y + _MARK) for x, y in places]
    for (x, y, short, long), (px, py) in zip(marks, places, strict=True):
        text, (dx, dy) = choose(px, py, (long, short), taken, frame)
        taken.append(_box(px + dx, py + dy, text))
        color = INK if text == long else MUTED
        axes.annotate(
            text,
            (x, y),
            (dx, dy),
            textcoords="offset points",
            ha="left",
            va="center",
            fontsize=_FONT,
            color=color,
            bbox={"facecolor": SURFACE, "edgecolor": "none", "alpha": 0.8, "pad": 0.6},  # whiskers pass behind it
            zorder=4,
        )


def choose(
    x: float, y: float, texts: Sequence[str], taken: Sequence[Box], frame: Box
) -> tuple[str, tuple[float, float]]:
    """The first text, and where to write it from the mark, that meets nothing; else the last text, beside the mark."""
    for text in texts:
        width = _width(text)
        for offset in _offsets(width):
            box = _box(x + offset[0], y + offset[1], text)
            if box.within(frame) and not any(box.meets(other) for other in taken):
                return text, offset
    return texts[-1], (_MARK + 3, 0.0)


def _offsets(width: float) -> list[tuple[float, float]]:
    """Where a label may begin: right, left, above, below, and further away."""
    right, left, middle = _MARK + 4, -_MARK - 4 - width, -width / 2
    near = [(right, 0.0), (left, 0.0), (middle, 14.0), (middle, -14.0)]
    return [*near, (right, 11.0), (right, -11.0), (left, 11.0), (left, -11.0), (right, 20.0), (left, -20.0)]


def _width(text: str) -> float:
    return 0.62 * _FONT * len(text)


def _box(x: float, y: float, text: str) -> Box:
    return Box(x, y - 0.6 * _FONT, x + _width(text), y + 0.6 * _FONT)
