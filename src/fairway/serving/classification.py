"""Scores as the best classes: the Open Inference Protocol's classification extension. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fairway.core.errors import InvalidRequest
from fairway.core.tensors import Datatype, Tensor, TensorSpec


def classify(tensor: Tensor, k: int, labels: Sequence[str] = (), *, batched: bool = True) -> Tensor:
    """The ``k`` best classes of each row, as ``value:index`` or ``value:index:label``, best first.

    Parameters
    ----------
    tensor : array of numbers
        Scores, of which all but the first axis are one row's.
    k : int
        1 or more; more than there are classes gives all of them.
    labels : sequence of str, default empty
        Names of the classes by index; those without a name are told without one.
    batched : bool, default True
        Whether the first axis is rows. If not, the whole tensor is one row's scores.

    Returns
    -------
    array of bytes
        Of shape ``[rows, k]``; ``[k]`` if not batched. Of equal scores the lower index comes first, and NaN comes last.

    Examples
    --------
    >>> classify(np.array([[0.25, 0.75]]), 1, ["cat", "dog"])
    array([[b'0.750000:1:dog']], dtype=object)
    """
    rows = tensor.shape[0] if batched and tensor.ndim else 1
    scores = tensor.reshape(rows, tensor.size // rows if rows else 0)
    if scores.dtype.kind not in "iuf":  # BF16, whose sorting is NumPy's slow way, and BOOL
        scores = scores.astype(np.float32)
    k = min(k, scores.shape[1])
    form = b"%f:%d%b" if scores.dtype.kind == "f" else b"%d:%d%b"
    names = [b":" + label.encode() for label in labels]
    best = np.empty((rows, k), dtype=object)
    for row, order in enumerate(_descending(scores)[:, :k]):
        for place, index in enumerate(order.tolist()):
            name = names[index] if index < len(names) else b""
            best[row, place] = form % (scores[row, index].item(), index, name)
    return best if batched else best.reshape(k)


def check_classifiable(spec: TensorSpec) -> None:
    """Raise :class:`InvalidRequest` unless an output's values are scores."""
    if spec.datatype in (Datatype.BYTES, Datatype.BOOL):
        raise InvalidRequest(
            f"output {spec.name!r} is {spec.datatype}, which has no best classes; leave 'classification' out"
        )


def _descending(scores: Tensor) -> Tensor:
    keys = np.where(np.isnan(scores), -np.inf, scores) if scores.dtype.kind == "f" else scores
    ascending: Tensor = np.argsort(keys[:, ::-1], axis=1, kind="stable")
    descending: Tensor = scores.shape[1] - 1 - ascending[:, ::-1]
    return descending
