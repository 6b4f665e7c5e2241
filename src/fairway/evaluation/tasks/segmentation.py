"""Semantic segmentation: one class per pixel."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fairway.core.errors import InvalidBundle, InvalidData
from fairway.core.extras import require
from fairway.evaluation.tallied import Sums, Tallied, divided, mean_of, overlap_ends
from fairway.evaluation.tasks.base import Data, Task, prediction_of, reduced

if TYPE_CHECKING:
    from fairway.core.tensors import Tensor
    from fairway.evaluation.predictions import Floats, Scored
    from fairway.model import Model

IGNORED = (255, -1, -100)
"""True classes of pixels that do not count, by convention."""


class Segmentation(Task):
    """The label is a mask of class numbers per row: lists of lists, or an image of one channel. The model gives a score per
    class and pixel, ``[rows, classes, height, width]``, or the class itself, ``[rows, height, width]``. An answer of another
    size than its mask is scaled to it, pixel by nearest pixel. Pixels marked 255 (or -1, -100) do not count.
    """

    name = "segmentation"
    kinds = ("logits", "probabilities", "label")
    main = ("mean_iou_score",)

    def read(self, data: Data) -> list[Tensor]:
        """The masks."""
        return [_mask(value, data, row) for row, value in enumerate(data.truth())]

    def ask(self, model: Model, data: Data) -> list[Tensor]:
        """The class of every pixel, in the smallest type that holds it."""
        output, prediction = prediction_of(model), model.manifest.prediction
        assert prediction is not None
        return reduced(model, data, [output], lambda given: list(_classes(prediction.kind, given[output])))

    def score(
        self, truth: list[Tensor], answers: Sequence[list[Tensor]], models: Sequence[Model], data: Data
    ) -> list[Scored]:
        """Image by image."""
        most = max(int(part.max(initial=0)) for part in (part for given in answers for part in given))
        names = models[0].manifest.labels
        size = len(names) or max(most, *(int(mask[~np.isin(mask, IGNORED)].max(initial=0)) for mask in truth)) + 1
        labels = names or tuple(map(str, range(size)))
        for row, mask in enumerate(truth):
            strange = mask[((mask < 0) | (mask >= size)) & ~np.isin(mask, IGNORED)]
            if len(strange):
                raise InvalidData(f"{data.where}: class {strange[0]} in row {row}; the model knows 0 to {size - 1}")
        return [tally(truth, given, labels) for given in answers]


def tally(truth: Sequence[Tensor], predicted: Sequence[Tensor], labels: tuple[str, ...]) -> Tallied:
    """Rows of masks; the loss of an image is its share of wrong pixels."""
    size = len(labels)
    counts = np.zeros((3, len(truth), size))
    for row, (mask, answer) in enumerate(zip(truth, predicted, strict=True)):
        said = _scaled(answer, mask.shape)
        counted = ~np.isin(mask, IGNORED)
        true, given = mask[counted].astype(np.intp), said[counted].astype(np.intp)
        for place, chosen in enumerate((true[true == given], given, true)):
            counts[place, row] = np.bincount(chosen, minlength=size)[:size]
    hit, said_, true_ = counts
    blocks = {"hit": hit, "said": said_, "true": true_}
    none: dict[str, Any] = {"undefined": "no pixel counts", "ends": overlap_ends}
    forms = {
        "mean_iou_score": Sums(("hit", "said", "true"), _mean_iou, **none),
        "dice_score": Sums(("hit", "said", "true"), _mean_dice, **none),
        "pixel_accuracy_score": mean_of("hit", "true", undefined="no pixel counts"),
    }
    pixels = true_.sum(axis=1)
    return Tallied(
        task=Segmentation.name,
        blocks=blocks,
        forms=forms,
        loss=1 - np.divide(hit.sum(axis=1), pixels, out=np.ones(len(hit)), where=pixels > 0),
        truth=truth,
        predicted=predicted,
        labels=labels,
    )


def _mask(value: Any, data: Data, row: int) -> Tensor:
    if isinstance(value, dict) and "bytes" in value:
        image = require("PIL.Image", extra="images").open(io.BytesIO(value["bytes"]))
        found = np.asarray(image)
    else:
        try:
            found = np.asarray(value)
        except ValueError:
            found = np.empty(0)
    if found.ndim != 2 or found.dtype.kind not in "biu":
        raise InvalidData(f"{data.where}: row {row} holds no mask; whole numbers of shape [height, width] are needed")
    low, high = int(found.min(initial=0)), int(found.max(initial=0))
    return found.astype(np.uint8 if low >= 0 and high < 256 else np.int32)


def _classes(kind: str, raw: Tensor) -> Tensor:
    if kind == "label" and raw.ndim == 4 and raw.shape[1] == 1:
        raw = raw[:, 0]
    if raw.ndim != (3 if kind == "label" else 4):
        wanted = "[rows, height, width]" if kind == "label" else "[rows, classes, height, width]"
        raise InvalidBundle(f"the model answers {list(raw.shape)}; {wanted} is needed for segmentation")
    if kind == "label":
        chosen = raw
    elif raw.shape[1] == 1:  # one score, for the second class
        chosen = raw[:, 0] >= (0 if kind == "logits" else 0.5)
    else:
        chosen = raw.argmax(axis=1)
    return chosen.astype(np.uint8 if int(chosen.max(initial=0)) < 256 else np.int32)


def _scaled(answer: Tensor, shape: tuple[int, ...]) -> Tensor:
    if answer.shape == shape:
        return answer
    rows, columns = (
        ((np.arange(size) + 0.5) * have / size).astype(np.intp) for size, have in zip(shape, answer.shape, strict=True)
    )
    return answer[np.ix_(rows, columns)]


def _over_present(above: Floats, below: Floats) -> Floats:
    present = below > 0
    return divided(divided(above, below).sum(axis=1), present.sum(axis=1).astype(float), np.nan)


def _mean_iou(hit: Floats, said: Floats, true: Floats) -> Floats:
    return _over_present(hit, said + true - hit)


def _mean_dice(hit: Floats, said: Floats, true: Floats) -> Floats:
    return _over_present(2 * hit, said + true)
