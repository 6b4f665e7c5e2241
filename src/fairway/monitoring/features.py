"""What is watched of a model's inputs and outputs: which features, and the bins that the baseline gives each."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from fairway.core.manifest import Manifest
from fairway.core.tensors import Datatype, Tensor, Tensors, TensorSpec, is_float
from fairway.monitoring.settings import MonitorSettings

Values: TypeAlias = NDArray[np.float64]
Read: TypeAlias = Literal["element", "value", "mean", "std", "min", "max", "length", "class", "confidence"]
_EXACT = 2**53  # float64 tells whole numbers apart up to here
_SUMMARIES: tuple[Read, ...] = ("mean", "std", "min", "max")
_Finite: TypeAlias = Annotated[float, msgspec.Meta(ge=-1.7976931348623157e308, le=1.7976931348623157e308)]


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where a feature is read.

    Attributes
    ----------
    side : str
        ``input`` or ``output``.
    tensor : str
    read : str
        ``element``: one number per row. ``value``: one piece of text or bytes per row. ``length``: its bytes.
        ``mean``, ``std``, ``min``, ``max``: of all the row's elements. ``class``: the index of the largest score.
        ``confidence``: its probability.
    index : int
        Which of the row's elements, flattened.
    logits : bool
        Whether scores need a softmax before they are probabilities.
    """

    side: Literal["input", "output"]
    tensor: str
    read: Read
    index: Annotated[int, msgspec.Meta(ge=0)] = 0
    logits: bool = False


class Feature(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One watched feature and its bins.

    Attributes
    ----------
    name : str
        The data column, or such as ``x[3]`` or ``mean(image)``.
    source : Source
    edges : tuple of float
        Numeric: bin ``i`` holds values up to ``edges[i]``, the last bin all above.
    low, high : float
        Numeric: the baseline's range.
    codes : tuple of int or str, or None
        Discrete: the values counted one by one; all others share one more bin. ``None`` for numeric features.
    names : tuple of str
        How to show ``codes``; empty: as they are.
    may_be_missing : bool
        Whether NaN can occur.
    """

    name: str
    source: Source
    edges: tuple[_Finite, ...] = ()
    low: _Finite = 0.0
    high: _Finite = 0.0
    codes: tuple[int | str, ...] | None = None
    names: tuple[str, ...] = ()
    may_be_missing: bool = False

    @property
    def bins(self) -> int:
        """How many bins there are."""
        return len(self.edges) + 1 if self.codes is None else len(self.codes) + 1

    @property
    def ordered(self) -> bool:
        """Whether neighboring bins are alike."""
        return self.codes is None

    def bin_labels(self) -> tuple[str, ...]:
        """One short label per bin."""
        if self.codes is not None:
            return (*(self.names or map(str, self.codes)), "other")
        if not self.edges:
            return ("all",)
        inner = [f"({a:.4g}, {b:.4g}]" for a, b in itertools.pairwise(self.edges)]
        return (f"≤ {self.edges[0]:.4g}", *inner, f"> {self.edges[-1]:.4g}")


class TensorView:
    """One batch's tensors, read feature by feature; what several features need is made once."""

    def __init__(self, inputs: Tensors, outputs: Tensors, rows: int) -> None:
        self._tensors = {("input", name): array for name, array in inputs.items()}
        self._tensors |= {("output", name): array for name, array in outputs.items()}
        self._rows = rows
        self._made: dict[tuple[str, str, str], Any] = {}

    def read(self, source: Source) -> Tensor | None:
        """One value per row: float64, integers for a class, objects for text. ``None`` if the batch lacks it."""
        array = self._tensors.get((source.side, source.tensor))
        if array is None or array.ndim == 0 or array.shape[0] != self._rows:
            return None
        if source.read not in ("value", "length") and not (array.dtype.kind in "biu" or is_float(array)):
            return None
        key = (source.side, source.tensor)
        if source.read in ("element", "value", "length"):
            table = self._once((*key, source.read), lambda: _table(array, source.read))
            column: Tensor | None = table[source.index] if source.index < len(table) else None
            return column
        if source.read in ("class", "confidence"):
            scores = self._once((*key, "scores"), lambda: _scores(array, source.logits))
            return None if scores is None else scores[0 if source.read == "class" else 1]
        flat = self._once((*key, "flat"), lambda: array.reshape(self._rows, -1).astype(np.float64))
        if not flat.shape[1]:
            return np.full(self._rows, math.nan)
        made: Tensor = self._once((*key, source.read), lambda: getattr(np, source.read)(flat, axis=1))
        return made

    def _once(self, key: tuple[str, str, str], make: Any) -> Any:
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]


def plan(manifest: Manifest, inputs: Tensors, outputs: Tensors, rows: int, settings: MonitorSettings) -> list[Feature]:
    """Choose features and bins from the reference rows and what the model answered. Pure."""
    view = TensorView(inputs, outputs, rows)
    features: list[Feature] = []
    for name, source, spec in _sources(manifest, inputs, outputs, settings):
        values = view.read(source)
        if values is not None and values.size:
            features.append(_binned(Feature(name, source), spec.datatype.is_float, values, manifest.labels, settings))
    return _unique(features)


_TITLES = {"label": "predicted class", "value": "prediction"}


def _sources(
    manifest: Manifest, inputs: Tensors, outputs: Tensors, settings: MonitorSettings
) -> Iterator[tuple[str, Source, TensorSpec]]:
    for spec in manifest.inputs:
        yield from _of_tensor("input", spec, inputs, settings)
    prediction = manifest.prediction
    for spec in manifest.outputs:
        kind = prediction.kind if prediction is not None and prediction.output == spec.name else ""
        if kind in ("probabilities", "logits") and manifest.task == "classification":
            logits = kind == "logits"
            yield "predicted class", Source("output", spec.name, "class", logits=logits), spec
            yield "confidence", Source("output", spec.name, "confidence", logits=logits), spec
        else:
            yield from _of_tensor("output", spec, outputs, settings, _TITLES.get(kind, ""))


def _of_tensor(
    side: Literal["input", "output"],
    spec: TensorSpec,
    reference: Tensors,
    settings: MonitorSettings,
    title: str = "",
) -> Iterator[tuple[str, Source, TensorSpec]]:
    ragged = -1 in spec.shape[1:]  # rows differ in length: only a summary means the same for all
    width = settings.max_features + 1 if ragged else math.prod(spec.shape[1:])
    text = spec.datatype is Datatype.BYTES
    if width > settings.max_features:
        for read in () if text else _SUMMARIES:
            yield f"{read}({spec.name})", Source(side, spec.name, read), spec
        return
    for index in range(width):
        name = title if title and width == 1 else _element_name(spec, index)
        if text and not _few(reference.get(spec.name), index, settings):
            yield f"length({name})", Source(side, spec.name, "length", index), spec
        else:
            yield name, Source(side, spec.name, "value" if text else "element", index), spec


def _element_name(spec: TensorSpec, index: int) -> str:
    inner = spec.shape[1:]
    if len(inner) == 1 and len(spec.columns) == inner[0]:
        return spec.columns[index]
    if math.prod(inner) == 1:
        return spec.name
    return f"{spec.name}[{','.join(str(int(i)) for i in np.unravel_index(index, inner))}]"


def _few(array: Tensor | None, index: int, settings: MonitorSettings) -> bool:
    """Whether text takes few values, and is a category rather than prose."""
    if array is None or not array.size:
        return False
    return len(set(_table(array, "value")[index].tolist())) <= settings.max_categories


def _binned(bare: Feature, floats: bool, values: Tensor, labels: tuple[str, ...], settings: MonitorSettings) -> Feature:
    source = bare.source
    whole = source.read == "element" and not floats and bool(np.abs(values).max() < _EXACT)
    if source.read in ("class", "value") or (whole and len(np.unique(values)) <= settings.max_categories):
        plain = values.tolist() if source.read == "value" else values.astype(np.int64).tolist()
        codes = _most_frequent(plain, settings.max_categories)
        named = source.read == "class" and len(labels) > max((int(code) for code in codes), default=0)
        return replace(bare, codes=codes, names=tuple(labels[int(c)] for c in codes) if named else ())
    finite = np.sort(values[np.isfinite(values)])
    if not finite.size:
        return replace(bare, may_be_missing=True)
    edges = _quantile_edges(finite, settings.bins)
    return replace(bare, edges=edges, low=float(finite[0]), high=float(finite[-1]), may_be_missing=floats)


def _most_frequent(values: list[Any], limit: int) -> tuple[Any, ...]:
    counted: dict[Any, int] = {}
    for value in values:
        counted[value] = counted.get(value, 0) + 1
    return tuple(sorted(sorted(counted, key=lambda value: (-counted[value], value))[:limit]))


def _quantile_edges(ordered: Values, bins: int) -> tuple[float, ...]:
    """Edges between distinct values, so that rounding moves no row: one bin per value if they are few, else quantiles."""
    distinct = np.unique(ordered)
    if distinct.size <= bins:
        cuts = np.arange(distinct.size - 1)
    else:
        ranks = np.ceil(np.arange(1, bins) * ordered.size / bins).astype(np.intp) - 1
        cuts = np.unique(np.searchsorted(distinct, ordered[ranks]))
        cuts = cuts[cuts < distinct.size - 1]
    below, above = distinct[cuts], distinct[cuts + 1]
    return tuple(np.unique(below + (above - below) / 2).tolist())


def _table(array: Tensor, read: str) -> list[Tensor]:
    """The columns of a batch, each contiguous."""
    flat = array.reshape(array.shape[0], -1) if array.size else array.reshape(array.shape[0], 0)
    if read == "element":
        return list(np.ascontiguousarray(flat.T, np.float64))
    columns = [[_text(item) for item in column] for column in flat.T.tolist()]
    if read == "length":
        return [np.array([len(item.encode()) for item in column], np.float64) for column in columns]
    return [np.array(column, dtype=object) for column in columns]


def _text(item: Any) -> str:
    return item.decode("utf-8", "replace") if isinstance(item, bytes) else str(item)


def _scores(array: Tensor, logits: bool) -> tuple[Tensor, Values] | None:
    """Per row the index and the probability of the largest score."""
    scores = array.reshape(array.shape[0], -1).astype(np.float64)
    if not scores.shape[1]:
        return None
    winner = scores.argmax(axis=1)
    best: Values = scores.max(axis=1)
    if logits:
        with np.errstate(invalid="ignore"):
            best = 1 / np.exp(scores - best[:, None]).sum(axis=1)
    return winner, best


def _unique(features: list[Feature]) -> list[Feature]:
    """Names tell features apart: those that clash get their side and tensor in front."""
    names = [feature.name for feature in features]
    return [
        replace(f, name=f"{f.source.side} {f.source.tensor}.{f.name}") if names.count(f.name) > 1 else f
        for f in features
    ]
