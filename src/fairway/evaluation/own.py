"""Metrics of one's own: a function of the project, or an entry point of the group ``fairway.metrics``.

The function takes the truth and the predictions of all rows, and returns one number, or one per row, whose mean is the metric
(then its interval is faster and better). Further parameters are given by name, where the task has them: ``probabilities`` (or
scores) of shape (rows, classes), ``labels``, ``query``. Of a classifier, truth and predictions are places in ``labels``.
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fairway.core.errors import FairwayError, InvalidConfig
from fairway.core.metrics import declare
from fairway.evaluation.predictions import Classified, Regressed, Scored
from fairway.evaluation.settings import metric_name
from fairway.evaluation.tallied import Form, Items, Scale, Tallied, mean_of, taken
from fairway.sources.callables import import_object
from fairway.sources.mapping import nearest

if TYPE_CHECKING:
    from fairway.evaluation.predictions import Classes, Floats

GROUP = "fairway.metrics"


class OwnMetric(NamedTuple):
    """A function by the name of its metric."""

    name: str
    function: Callable[..., Any]


def load_metrics(references: Sequence[str], root: Path) -> tuple[OwnMetric, ...]:
    """Import the metrics that ``[evaluate] metrics`` names, and make their names known to gates.

    Raises
    ------
    InvalidConfig
        If there is no such function or entry point, it is no function, or its name does not say its direction.
    """
    found: dict[str, OwnMetric] = {}
    for reference in references:
        name = metric_name(reference)
        declare(name)
        if name in found:
            raise InvalidConfig(f"evaluate.metrics names {name!r} twice; give each its own name")
        function = _imported(reference, root) if ":" in reference else _entry_point(reference)
        if not callable(function):
            raise InvalidConfig(f"evaluate.metrics: {reference!r} is no function, but {type(function).__name__}")
        found[name] = OwnMetric(name, function)
    return tuple(found.values())


def own_rows(rows: Scored, metrics: Sequence[OwnMetric]) -> Tallied:
    """The same rows with the forms of one's own metrics alone.

    Raises
    ------
    InvalidConfig
        If a function raises, or returns neither a number nor one per row.
    """
    plain = _as_tallied(rows)
    blocks, forms = dict(plain.blocks), dict[str, Form]()
    for metric in metrics:
        values = _call(metric, plain.truth, plain.predicted, _more(plain))
        if values.ndim == 0:
            forms[metric.name] = OwnNumber(metric, plain.truth, plain.predicted, _more(plain), plain.unit_of)
            continue
        if values.shape != (len(plain),):
            raise InvalidConfig(
                f"metric {metric.name} gives shape {list(values.shape)} for {len(plain):,} rows; it must be one number, or one "
                "number per row"
            )
        unit = np.arange(len(plain)) if plain.unit_of is None else plain.unit_of
        blocks[metric.name] = np.bincount(unit, weights=values, minlength=plain.units)[:, None]
        blocks["rows"] = np.bincount(unit, minlength=plain.units)[:, None]
        low, high = -np.inf, np.inf
        forms[metric.name] = mean_of(metric.name, "rows", low=low, high=high, scale=Scale.PLAIN, ends=None)
    return replace(plain, blocks=blocks, forms=forms, cannot={})


@dataclass(frozen=True)
class OwnNumber:
    """A metric that is only known as one number of all rows: it is computed anew for every resample."""

    metric: OwnMetric
    truth: Items
    predicted: Items
    more: Mapping[str, Any]
    unit_of: Classes | None
    low: float = -np.inf
    high: float = np.inf
    scale: Scale = Scale.PLAIN
    undefined: str = ""
    counted: bool = True

    def value(self, rows: Tallied) -> float:  # noqa: ARG002
        """See :class:`~fairway.evaluation.tallied.Form`."""
        return np.nan if self.undefined else float(_call(self.metric, self.truth, self.predicted, self.more))

    def influence(self, rows: Tallied, pseudo: float = 0.0) -> None:
        """None: nothing is known of the function."""

    def draw(self, rows: Tallied, weights: Floats) -> Floats:
        """See :class:`~fairway.evaluation.tallied.Form`; weights are how often each unit is there."""
        unit = np.arange(rows.units) if self.unit_of is None else self.unit_of
        drawn = (np.repeat(np.arange(len(unit)), counts[unit].astype(np.intp)) for counts in weights)
        return np.array([self._of(some) for some in drawn])

    def select(self, chosen: Classes) -> OwnNumber:
        """See :class:`~fairway.evaluation.tallied.Form`."""
        unit = self.unit_of
        rows = chosen if unit is None else np.flatnonzero(np.isin(unit, chosen))
        part = replace(
            self,
            truth=taken(self.truth, rows),
            predicted=taken(self.predicted, rows),
            more=_taken_more(self.more, rows),
            unit_of=None if unit is None else np.searchsorted(chosen, unit[rows]),
        )
        if not len(rows):
            return part
        try:
            _call(self.metric, part.truth, part.predicted, part.more)
        except InvalidConfig as error:  # it has worked on all rows: here it lacks something
            return replace(part, undefined=str(error))
        return part

    def _of(self, rows: Classes) -> float:
        given = taken(self.truth, rows), taken(self.predicted, rows), _taken_more(self.more, rows)
        try:
            return float(_call(self.metric, *given))
        except InvalidConfig:
            return np.nan


def _imported(reference: str, root: Path) -> Any:
    try:
        return import_object(reference, root)
    except FairwayError as error:
        raise InvalidConfig(f"evaluate.metrics: {error}") from None


def _entry_point(name: str) -> Any:
    known = {point.name: point for point in entry_points(group=GROUP)}
    if name not in known:
        raise InvalidConfig(
            f"evaluate.metrics: no entry point {name!r} in the group {GROUP}{nearest(name, list(known))}; installed are: "
            f"{', '.join(sorted(known)) or 'none'}. A function of the project is written module:function"
        )
    return known[name].load()


def _as_tallied(rows: Scored) -> Tallied:
    if isinstance(rows, Tallied):
        return rows
    more: dict[str, Items] = {}
    labels: tuple[str, ...] = ()
    if isinstance(rows, Classified):
        labels = rows.labels
        more = {} if rows.probabilities is None else {"probabilities": rows.probabilities}
    task = "regression" if isinstance(rows, Regressed) else "classification"
    ones = {"one": np.ones((len(rows), 1), bool)}
    return Tallied(task, ones, {}, rows.badness(), rows.truth, rows.predicted, more, labels, groups=rows.groups)


def _more(rows: Tallied) -> dict[str, Any]:
    return {**rows.more, "labels": rows.labels}


def _taken_more(more: Mapping[str, Any], rows: Classes) -> dict[str, Any]:
    return {name: value if name == "labels" else taken(value, rows) for name, value in more.items()}


def _further(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """The parameters after truth and predictions that can be given by name."""
    try:
        known = list(inspect.signature(function).parameters.values())[2:]
    except ValueError:  # built-in functions may not tell
        return []
    return [one for one in known if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]


def _call(metric: OwnMetric, truth: Items, predicted: Items, more: Mapping[str, Any]) -> np.ndarray[Any, Any]:
    """What the function gives: finite numbers. Raises :class:`InvalidConfig` with its place where it fails."""
    wanted = _further(metric.function)
    absent = [one.name for one in wanted if one.name not in more and one.default is one.empty]
    if absent:
        raise InvalidConfig(f"metric {metric.name} asks for {', '.join(absent)}; here there are: {', '.join(more)}")
    try:
        given = metric.function(truth, predicted, **{one.name: more[one.name] for one in wanted if one.name in more})
        found = np.asarray(given, np.float64)
    except FairwayError:
        raise
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        written = getattr(getattr(metric.function, "__code__", None), "co_filename", "")
        [frame] = [each for each in frames if each.filename == written or not written][-1:] or frames[-1:]
        raise InvalidConfig(
            f"metric {metric.name} raised {type(error).__name__}: {error} ({Path(frame.filename).name}, line {frame.lineno})"
        ) from error
    if not np.isfinite(found).all():
        where = "" if found.ndim == 0 else f" in {int((~np.isfinite(found)).sum()):,} of {len(found):,} rows"
        raise InvalidConfig(
            f"metric {metric.name} gives {found[~np.isfinite(found)][0]}{where}; it must be a finite number"
        )
    return found
