"""Object detection: boxes, each with a class and a score."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fairway.core.errors import InvalidBundle, InvalidData
from fairway.core.extras import require
from fairway.evaluation.labels import label_forms
from fairway.evaluation.tallied import Scale, Tallied
from fairway.evaluation.tasks.base import Data, Task, prediction_of, reduced

if TYPE_CHECKING:
    from fairway.core.tensors import Tensor
    from fairway.evaluation.predictions import Classes, Floats, Scored
    from fairway.model import Model

SCORES, LABELS = "scores", "labels"
"""The outputs beside the boxes: ``[rows, boxes]``; a box whose score is 0 or whose class is negative is none."""
_RECALLS = np.linspace(0.0, 1.0, 101)
_CHUNK = 4_000_000
_SURE = 0.5


class Boxes(NamedTuple):
    """The boxes of one image: corners (left, top, right, bottom) in pixels, of shape (boxes, 4); class indices; scores."""

    corners: Floats
    classes: Classes
    scores: Floats


class Detection(Task):
    """The label is a struct per row of ``boxes`` (left, top, right, bottom) and ``labels``, or ``bbox`` (left, top, width,
    height) and ``category`` as in COCO. The model gives boxes ``[rows, boxes, 4]`` as corners, in the same pixels, and beside
    them ``scores`` and ``labels`` (class numbers), ``[rows, boxes]`` each.
    """

    name = "detection"
    kinds = ("boxes",)
    main = ("mean_average_precision_score",)

    def read(self, data: Data) -> list[Any]:
        """The structs."""
        return data.truth()

    def ask(self, model: Model, data: Data) -> list[Boxes]:
        """The boxes of every row."""
        output = prediction_of(model)
        return reduced(model, data, [output, SCORES, LABELS], lambda given: _answered(given, output))

    def score(
        self, truth: list[Any], answers: Sequence[list[Boxes]], models: Sequence[Model], data: Data
    ) -> list[Scored]:
        """Image by image."""
        labels = models[0].manifest.labels
        true = [_boxes(value, labels, data, row) for row, value in enumerate(truth)]
        return [tally(true, given, labels) for given in answers]


def tally(truth: Sequence[Boxes], predicted: Sequence[Boxes], labels: tuple[str, ...] = ()) -> Tallied:
    """Rows of boxes; the loss of an image is 1 less the F1 score of its boxes of at least 0.5, matched at an IoU of 0.5."""
    found = matches(truth, predicted)
    forms = {
        "mean_average_precision_score": found,
        "mean_average_precision_50_score": replace(found, thresholds=(0,)),
    }
    return Tallied(
        task=Detection.name,
        blocks={"one": np.ones((len(truth), 1), bool)},
        forms=forms,
        loss=_losses(found, predicted),
        truth=[_told(boxes, labels) for boxes in truth],
        predicted=[_told(boxes, labels) for boxes in predicted],
        labels=labels,
    )


class Matched(NamedTuple):
    """The boxes of one class, by falling score, beside the truth.

    ``image`` of shape (boxes,), ``right`` and ``ignored`` of shape (thresholds, boxes), ``true`` of shape (images,): how many
    there are to find.
    """

    image: Classes
    scores: Floats
    right: Tensor
    ignored: Tensor
    true: Floats


@dataclass(frozen=True)
class MeanAveragePrecision:
    """COCO's mean over classes and IoU thresholds of the interpolated average precision; pycocotools matches the boxes.

    References
    ----------
    T.-Y. Lin et al., "Microsoft COCO: common objects in context", ECCV 2014; the evaluation code of pycocotools.
    """

    classes: tuple[Matched, ...]
    thresholds: tuple[int, ...] = tuple(range(10))
    low: float = 0.0
    high: float = 1.0
    scale: Scale = Scale.LOGIT
    undefined: str = "there is no box to find in these images"
    counted: bool = False

    def value(self, rows: Tallied) -> float:
        """See :class:`~fairway.evaluation.tallied.Form`."""
        return float(self.draw(rows, np.ones((1, rows.units)))[0])

    def influence(self, rows: Tallied, pseudo: float = 0.0) -> None:
        """None: interpolation makes it a function with corners, so weights are drawn."""

    def draw(self, rows: Tallied, weights: Floats) -> Floats:  # noqa: ARG002
        """See :class:`~fairway.evaluation.tallied.Form`."""
        present = [one for one in self.classes if one.true.any()]
        if not present:
            return np.full(len(weights), np.nan)
        step = max(1, _CHUNK // max(1, *(len(one.image) for one in present)))
        parts = []
        for start in range(0, len(weights), step):
            chunk = weights[start : start + step]
            parts.append(
                np.mean([_precision(one, chunk, place) for one in present for place in self.thresholds], axis=0)
            )
        return np.concatenate(parts)

    def select(self, chosen: Classes) -> MeanAveragePrecision:
        """See :class:`~fairway.evaluation.tallied.Form`."""
        return replace(self, classes=tuple(_selected(one, chosen) for one in self.classes))


def matches(truth: Sequence[Boxes], predicted: Sequence[Boxes]) -> MeanAveragePrecision:
    """Match boxes to the truth, class by class, at the ten IoU thresholds from 0.5 to 0.95."""
    coco = require("pycocotools.coco", extra="detection").COCO
    evaluator = require("pycocotools.cocoeval", extra="detection").COCOeval
    classes = sorted({int(one) for boxes in (*truth, *predicted) for one in boxes.classes})
    if not classes or not any(len(boxes.classes) for boxes in truth):
        return MeanAveragePrecision(())
    with contextlib.redirect_stdout(io.StringIO()):
        true, said = coco(), coco()
        for made, sides in ((true, truth), (said, predicted)):
            made.dataset = {
                "images": [{"id": number} for number in range(len(truth))],
                "categories": [{"id": one} for one in classes],
                "annotations": _annotations(sides),
            }
            made.createIndex()
        found = evaluator(true, said, "bbox")
        found.params.areaRng, found.params.areaRngLbl = [[0, 1e10]], ["all"]
        found.evaluate()
    per_class = len(truth)
    return MeanAveragePrecision(
        tuple(
            _gathered(found.evalImgs[place * per_class : (place + 1) * per_class], per_class)
            for place in range(len(classes))
        )
    )


def _annotations(sides: Sequence[Boxes]) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    for image, boxes in enumerate(sides):
        for corners, one, score in zip(boxes.corners, boxes.classes, boxes.scores, strict=True):
            left, top, right, bottom = map(float, corners)
            size = {"bbox": [left, top, right - left, bottom - top], "area": (right - left) * (bottom - top)}
            which = {"id": len(made) + 1, "image_id": image, "category_id": int(one), "iscrowd": 0}
            made.append({**which, **size, "score": float(score)})
    return made


def _gathered(images: Sequence[dict[str, Any] | None], count: int) -> Matched:
    known = [one for one in images if one is not None]
    true = np.zeros(count)
    for one in known:
        true[one["image_id"]] = int((np.asarray(one["gtIgnore"]) == 0).sum())
    if not known:
        return Matched(np.empty(0, np.intp), np.empty(0), np.empty((10, 0), bool), np.empty((10, 0), bool), true)
    scores = np.concatenate([np.asarray(one["dtScores"], float) for one in known])
    order = np.argsort(-scores, kind="mergesort")  # as pycocotools does
    image = np.concatenate([np.full(len(one["dtScores"]), one["image_id"], np.intp) for one in known])
    right = np.concatenate([np.asarray(one["dtMatches"]) > 0 for one in known], axis=1)
    ignored = np.concatenate([np.asarray(one["dtIgnore"], bool) for one in known], axis=1)
    return Matched(image[order], scores[order], right[:, order], ignored[:, order], true)


def _precision(one: Matched, weights: Floats, place: int) -> Floats:
    """The interpolated average precision of one class at one threshold, of shape (sets,)."""
    wanted = weights @ one.true
    if not len(one.image):
        return np.zeros(len(weights))
    drawn = weights[:, one.image]
    right = np.cumsum(drawn * (one.right[place] & ~one.ignored[place]), axis=1)
    wrong = np.cumsum(drawn * (~one.right[place] & ~one.ignored[place]), axis=1)
    recall = right / wanted[:, None]
    precision = right / (right + wrong + np.spacing(1))
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    found = np.zeros(len(weights))
    for number in range(len(weights)):
        reached = np.searchsorted(recall[number], _RECALLS, side="left")
        found[number] = envelope[number, reached[reached < recall.shape[1]]].sum() / len(_RECALLS)
    return found


def _selected(one: Matched, chosen: Classes) -> Matched:
    kept = np.isin(one.image, chosen)
    return Matched(
        np.searchsorted(chosen, one.image[kept]),
        one.scores[kept],
        one.right[:, kept],
        one.ignored[:, kept],
        one.true[chosen],
    )


def _losses(found: MeanAveragePrecision, predicted: Sequence[Boxes]) -> Floats:
    images = len(predicted)
    hit, true = np.zeros(images), np.zeros(images)
    said = np.array([float((boxes.scores >= _SURE).sum()) for boxes in predicted])
    for one in found.classes:
        hit += np.bincount(one.image, weights=one.right[0] & (one.scores >= _SURE), minlength=images)
        true += one.true
    both = said + true
    return 1 - np.divide(2 * hit, both, out=np.ones(images), where=both > 0)


def _answered(given: dict[str, Tensor], output: str) -> list[Boxes]:
    corners, scores, classes = given[output], given[SCORES], given[LABELS]
    if corners.ndim != 3 or corners.shape[2] != 4 or not scores.shape == classes.shape == corners.shape[:2]:
        raise InvalidBundle(
            f"the model answers {list(corners.shape)} in {output!r}, {list(scores.shape)} in {SCORES!r} and "
            f"{list(classes.shape)} in {LABELS!r}; [rows, boxes, 4] and twice [rows, boxes] are needed"
        )
    kept = (scores > 0) & (classes >= 0)
    return [
        Boxes(corners[row][mask].astype(float), classes[row][mask].astype(np.intp), scores[row][mask].astype(float))
        for row, mask in enumerate(kept)
    ]


def _boxes(value: Any, labels: tuple[str, ...], data: Data, row: int) -> Boxes:
    """From a struct of lists, or a list of structs of one box each."""
    if isinstance(value, list):
        value = {key: [each[key] for each in value] for key in (value[0] if value else {"boxes": (), "labels": ()})}
    keys = {key.lower() for key in value} if isinstance(value, dict) else set()
    corner, size = next((key for key in ("boxes", "box") if key in keys), ""), "bbox" if "bbox" in keys else ""
    named = next((key for key in ("labels", "label", "category", "categories", "classes") if key in keys), "")
    if not named or not (corner or size):
        raise InvalidData(
            f"{data.where}: row {row} holds no boxes; a struct of 'boxes' (left, top, right, bottom) and 'labels' is needed, "
            "or of 'bbox' (left, top, width, height) and 'category'"
        )
    corners = np.array(value[corner or size], float).reshape(-1, 4)
    if size and not corner:
        corners[:, 2:] += corners[:, :2]
    classes = []
    for name in value[named]:
        form = next((form for form in label_forms(name) if form in labels), None)
        if form is None and not isinstance(name, int):
            raise InvalidData(
                f"{data.where}: {name!r} in row {row} is no class of the model; it knows {', '.join(labels)}"
            )
        classes.append(labels.index(form) if form is not None else int(name))
    if len(classes) != len(corners) or not (corners[:, 2:] >= corners[:, :2]).all():
        raise InvalidData(
            f"{data.where}: row {row} has {len(corners)} boxes and {len(classes)} classes, or a box that ends before it starts"
        )
    return Boxes(corners, np.array(classes, np.intp), np.ones(len(classes)))


def _told(boxes: Boxes, labels: tuple[str, ...]) -> list[str]:
    return [
        f"{labels[one] if one < len(labels) else one} at {', '.join(f'{x:.0f}' for x in corners)}"
        for corners, one in zip(boxes.corners, boxes.classes, strict=True)
    ]
