"""The baseline: what a model's inputs and outputs looked like on its reference rows."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec
import numpy as np

from fairway.bundle.format import Bundle
from fairway.core.errors import InvalidBundle, InvalidData, NewerFormat
from fairway.core.tensors import Tensor, Tensors
from fairway.model import Model
from fairway.monitoring.features import Feature, plan
from fairway.monitoring.settings import MonitorSettings
from fairway.monitoring.sketches import FeatureCounts, FeatureSketches

FILE = "baseline.json"
FORMAT = 1
DEFAULTS = MonitorSettings()
_MAX_BYTES = 64 * 2**20
_BATCH_ROWS = 256


class Baseline(msgspec.Struct, frozen=True):
    """What to compare with.

    Attributes
    ----------
    features : tuple of Feature
        What is watched, and its bins.
    sketches : FeatureSketches
        The reference rows, counted.
    """

    features: tuple[Feature, ...]
    sketches: FeatureSketches

    @property
    def rows(self) -> int:
        """Reference rows."""
        return self.sketches.rows


def make_baseline(
    model: Model, feed: Tensors, settings: MonitorSettings = DEFAULTS, *, unseen: Tensors | None = None
) -> bytes:
    """Run ``model`` on reference rows and summarize its inputs and outputs.

    Parameters
    ----------
    model : Model
    feed : mapping of input name to array
        Reference rows, as callers send them: rows that the model was trained on, or like those that it will see.
    settings : MonitorSettings
        ``bins``, ``max_features`` and ``max_categories`` shape the baseline.
    unseen : mapping of input name to array, optional
        Rows that the model was not trained on. If given, its outputs are summarized on these: on the rows that it was
        trained on a model is surer than it will ever be again, and any traffic would look like drift.

    Returns
    -------
    bytes
        The content of a bundle's ``baseline.json``. The same rows give the same bytes.

    Raises
    ------
    InvalidData
        If there are no rows, or the inputs differ in their number of rows.
    """
    asked = feed if unseen is None else unseen
    rows, answered = _rows(feed), _rows(asked)
    outputs = _answers(model, asked, answered)
    answered = len(next(iter(outputs.values())))
    features = (
        *plan(model.manifest, feed, {}, rows, settings),
        *plan(model.manifest, {}, outputs, answered, settings),
    )
    sketches = FeatureSketches(features)
    sketches.update(feed, {}, rows)
    sketches.update({}, outputs, answered)
    return msgspec.json.encode(_Encoded(FORMAT, rows, features, [_in_json(counts) for counts in sketches.counts]))


def _rows(feed: Tensors) -> int:
    sizes = {name: len(array) for name, array in feed.items()}
    rows = next(iter(sizes.values()), 0)
    if not rows or any(size != rows for size in sizes.values()):
        raise InvalidData(f"a baseline needs one or more reference rows, as many for every input; got {sizes}")
    return rows


def read_baseline(bundle: Bundle) -> Baseline | None:
    """The baseline of a bundle, or ``None`` if it was packed without reference data.

    Raises
    ------
    InvalidBundle
        If it is damaged.
    NewerFormat
        If a newer Fairway wrote it.
    """
    if FILE not in bundle.manifest.files:
        return None
    try:
        return decode_baseline(bundle.file(FILE).read_bytes())
    except OSError as error:
        raise InvalidBundle(f"{bundle.path / FILE} cannot be read: {error}; copy the bundle again") from None


def decode_baseline(data: bytes) -> Baseline:
    """Read what :func:`make_baseline` wrote. Raises :class:`InvalidBundle` or :class:`NewerFormat`."""
    if len(data) > _MAX_BYTES:
        raise InvalidBundle(f"{FILE} has {len(data):,} bytes, more than {_MAX_BYTES:,}: not a baseline")
    try:
        version = msgspec.json.decode(data, type=_Versioned).format
        if version > FORMAT:
            raise NewerFormat(f"{FILE} is of format {version}, and this Fairway reads up to {FORMAT}; upgrade it")
        raw = msgspec.json.decode(data, type=_Encoded)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidBundle(f"{FILE} is damaged ({error}); pack the bundle again") from None
    _check(raw)
    sketches = FeatureSketches(raw.features)
    sketches.rows, sketches.counts = raw.rows, raw.counts
    return Baseline(raw.features, sketches)


class _Versioned(msgspec.Struct):
    format: Annotated[int, msgspec.Meta(ge=1)]


_Rows: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=2**53)]


class _Encoded(_Versioned, forbid_unknown_fields=True):
    rows: _Rows
    features: tuple[Feature, ...]
    counts: list[FeatureCounts]


def _answers(model: Model, feed: Tensors, rows: int) -> dict[str, Tensor]:
    """In batches, as a server runs it: reference data may be larger than what one call's memory allows."""
    engine = model.manifest.engine
    fixed = max(1, *(spec.shape[0] for spec in model.inputs))
    step = min(_BATCH_ROWS, engine.max_batch) if engine.batching else fixed
    parts = [
        model.infer({name: array[start : start + step] for name, array in feed.items()})
        for start in range(0, rows - rows % fixed, step)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _in_json(counts: FeatureCounts) -> FeatureCounts:
    """JSON has no infinities: a feature without numbers has the range 0 to 0."""
    return counts if counts.least <= counts.most else msgspec.structs.replace(counts, least=0.0, most=0.0)


def _check(raw: _Encoded) -> None:
    sound = len(raw.features) == len(raw.counts) and all(
        len(counts.bins) == feature.bins
        and (counts.rows + counts.missing <= raw.rows or feature.source.side == "output")
        and list(feature.edges) == sorted(set(feature.edges))
        for feature, counts in zip(raw.features, raw.counts, strict=False)
    )
    if not sound:
        raise InvalidBundle(f"{FILE} contradicts itself; pack the bundle again")
