"""Every task from a table and a model's answers to a report; what does not fit is refused with what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from fairway.core.errors import InvalidBundle, InvalidConfig, InvalidData
from fairway.core.gate import Limit, Outcome
from fairway.core.manifest import Prediction
from fairway.core.tensors import Tensors
from fairway.evaluation.analyses.errors import analyse
from fairway.evaluation.evaluate import evaluate
from fairway.evaluation.report import Report
from fairway.evaluation.settings import EvaluationSettings, SliceSettings
from fairway.evaluation.tasks.registry import TASKS, find_task
from fairway.model import Model
from fairway.sources.tables import Table
from fairway.testing.builders import linear_bundle

ROWS = 40
RNG = np.random.default_rng(0)


class Answering:
    """Stands in for a model: its input ``x`` is the row's number, and its answers are those of the row."""

    def __init__(self, model: Model, answers: dict[str, Any], **changes: Any) -> None:
        self.manifest = msgspec.structs.replace(model.manifest, **changes)
        self.inputs, self.outputs = model.inputs, model.outputs
        self._answers = answers

    def infer(self, feed: Tensors) -> Tensors:
        rows = feed["x"][:, 0].astype(int)
        return {name: values[rows] for name, values in self._answers.items()}


@pytest.fixture
def model(tmp_path: Path) -> Any:
    bundle = linear_bundle(tmp_path / "b", weights=[[1.0, 0.0]], bias=[0.0, 0.0], columns=("x",))
    with Model(bundle) as opened:
        yield opened


def table(label: Any, **more: Any) -> Table:
    columns = {"x": pa.array(np.arange(ROWS, dtype=np.float32)), "label": label, **more}
    return Table(pa.table(columns), digest="sha256:0", origin="test.parquet")


def report(model: Any, task: str, kind: str, answers: dict[str, Any], data: Table, **more: Any) -> Report:
    labels = more.pop("labels", ())
    prediction = Prediction(next(iter(answers)), kind)  # type: ignore[arg-type]
    stand_in: Any = Answering(model, answers, task=task, prediction=prediction, labels=labels)
    settings = EvaluationSettings(resamples=100, **more.pop("settings", {}))
    label = more.pop("label", "label")
    slices = [SliceSettings("first", "x < 20")]
    return evaluate(stand_in, data, label=label, slices=slices, settings=settings, analyses=("errors",), **more)


def complete(found: Report, main: str) -> None:
    """It can be written, read and shown, and its slices have the main metric."""
    assert Report.from_json(found.as_json()) == found
    assert main in found.as_text()
    assert "Worst rows" in found.as_html()
    part = found.measurement(main, part="first")
    assert part is not None
    assert part.known
    assert (found.confusion, found.calibration, found.residuals, found.label_counts) == (None, (), None, {})


SCORES = RNG.random((ROWS, 3)).astype(np.float32)
HOT = SCORES + 0.4 * (RNG.random((ROWS, 3)) - 0.5) > 0.5


def test_multi_label(model: Any) -> None:
    names = ("a", "b", "c")
    lists = pa.array([[n for n, on in zip(names, row, strict=True) if on] for row in HOT])
    found = report(model, "multi-label", "probabilities", {"y": SCORES}, table(lists), labels=names)
    complete(found, "f1_score")
    columns = table(pa.array(HOT[:, 0]), **{f"has_{n}": pa.array(HOT[:, i].astype(int)) for i, n in enumerate(names)})
    again = report(model, "multi-label", "probabilities", {"y": SCORES}, columns, labels=names, label="has_*")
    assert again.measurements == found.measurements
    hot = table(pa.array(HOT.astype(int).tolist()))
    assert (
        report(model, "multi-label", "probabilities", {"y": SCORES}, hot, labels=names).measurements
        == found.measurements
    )
    with pytest.raises(InvalidData, match="'z' is no label of the model; it knows 'a', 'b', 'c'"):
        report(model, "multi-label", "probabilities", {"y": SCORES}, table(pa.array(["a; z"] * ROWS)), labels=names)
    part = table(pa.array(HOT[:, 0]), has_a=pa.array([0] * ROWS), has_b=pa.array([1] * ROWS))
    with pytest.raises(InvalidData, match="no column for the model's 'c'"):
        report(model, "multi-label", "probabilities", {"y": SCORES}, part, labels=names, label="has_*")


def test_ranking(model: Any) -> None:
    relevance = pa.array((np.arange(ROWS) % 4 == 0).astype(int))
    query = pa.array([f"q{n // 4}" for n in range(ROWS)])
    data, scores = table(relevance, query=query), {"y": SCORES[:, 0]}
    found = report(model, "ranking", "value", scores, data, settings={"query": "query"})
    complete(found, "ndcg_at_10_score")
    assert found.measurements[0].n == ROWS // 4
    with pytest.raises(InvalidConfig, match=r"query = 'COLUMN' under \[evaluate\]"):
        report(model, "ranking", "value", scores, data)
    with pytest.raises(InvalidData, match="no column 'qury'"):
        report(model, "ranking", "value", scores, data, settings={"query": "qury"})
    with pytest.raises(InvalidData, match="a relevance is 0 or more"):
        report(
            model, "ranking", "value", scores, table(pa.array([-1] * ROWS), query=query), settings={"query": "query"}
        )


def test_tags_of_a_model_that_answers_per_word(model: Any) -> None:
    tags = ("O", "B-X", "I-X")
    true = [[tags[n] for n in RNG.integers(0, 3, RNG.integers(1, 5))] for _ in range(ROWS)]
    answers = {"y": RNG.integers(0, 3, (ROWS, 5))}
    complete(
        report(model, "token-classification", "label", answers, table(pa.array(true)), labels=tags), "entity_f1_score"
    )
    with pytest.raises(InvalidData, match="'B-Y' in row 0 is no tag of the model"):
        report(model, "token-classification", "label", answers, table(pa.array([["B-Y"]] * ROWS)), labels=tags)
    with pytest.raises(InvalidData, match="has 9 tags in row 0, and the model gives 5"):
        report(model, "token-classification", "label", answers, table(pa.array([["O"] * 9] * ROWS)), labels=tags)
    with pytest.raises(InvalidData, match="needs a list of tags per row"):
        report(model, "token-classification", "label", answers, table(pa.array(["O"] * ROWS)), labels=tags)


def test_texts_made_elsewhere(model: Any) -> None:
    said = np.array([f"the answer is {n % 7}".encode() for n in range(ROWS)], object)
    wanted = pa.array([[f"the answer is {n % 5}", "none"] for n in range(ROWS)])
    gate = {"exact_match_score": Limit(min=0.01), "perplexity": Limit(max=10)}
    found = report(model, "generation", "text", {"y": said}, table(wanted), gate=gate)
    complete(found, "rouge_l_score")
    exact = found.measurement("exact_match_score")
    assert exact is not None
    assert exact.value == np.mean([n % 7 == n % 5 for n in range(ROWS)])
    assert found.verdict.outcome is Outcome.ERROR
    assert any("the model answers texts only" in reason for reason in found.verdict.reasons)


def test_masks(model: Any) -> None:
    true = RNG.integers(0, 3, (ROWS, 4, 6))
    true[:, 0, 0] = 255  # does not count
    scores = RNG.normal(size=(ROWS, 3, 4, 6)) + 2 * (true[:, None] == np.arange(3)[:, None, None])
    found = report(model, "segmentation", "logits", {"y": scores}, table(pa.array(true.tolist())))
    complete(found, "mean_iou_score")
    accuracy = found.measurement("pixel_accuracy_score")
    assert accuracy is not None
    counted = true != 255
    assert accuracy.value == pytest.approx((scores.argmax(1) == true)[counted].mean())
    large = table(pa.array(true.repeat(2, axis=1).repeat(2, axis=2).tolist()))
    assert report(model, "segmentation", "logits", {"y": scores}, large).measurements == found.measurements
    strange = table(pa.array(np.full((ROWS, 4, 6), 7).tolist()))
    with pytest.raises(InvalidData, match="class 7 in row 0; the model knows 0 to 2"):
        report(model, "segmentation", "logits", {"y": scores}, strange, labels=("a", "b", "c"))
    with pytest.raises(InvalidBundle, match=r"\[rows, classes, height, width\] is needed"):
        report(model, "segmentation", "logits", {"y": SCORES}, table(pa.array(true.tolist())))


def test_boxes(model: Any) -> None:
    corners = np.tile(np.array([[10.0, 10, 30, 40], [50, 50, 80, 90]]), (ROWS, 1, 1))
    answers = {
        "boxes": corners + RNG.normal(size=corners.shape),
        "scores": np.tile([0.9, 0.4], (ROWS, 1)),
        "labels": np.tile([0, 1], (ROWS, 1)),
    }
    answers["labels"][::3, 1] = -1  # no box
    true = [{"boxes": box, "labels": ["cat", "dog"]} for box in corners.tolist()]
    found = report(model, "detection", "boxes", answers, table(pa.array(true)), labels=("cat", "dog"))
    complete(found, "mean_average_precision_score")
    sizes = np.concatenate([corners[..., :2], corners[..., 2:] - corners[..., :2]], axis=-1)
    coco = [[{"bbox": box, "category": n} for n, box in enumerate(row)] for row in sizes.tolist()]
    again = report(model, "detection", "boxes", answers, table(pa.array(coco)), labels=("cat", "dog"))
    assert again.measurements == found.measurements
    strange = table(pa.array([{"boxes": [[0, 0, 1, 1]], "labels": ["bird"]}] * ROWS))
    with pytest.raises(InvalidData, match="'bird' in row 0 is no class of the model"):
        report(model, "detection", "boxes", answers, strange, labels=("cat", "dog"))
    with pytest.raises(InvalidData, match="row 0 holds no boxes; a struct of 'boxes'"):
        report(model, "detection", "boxes", answers, table(pa.array([1] * ROWS)), labels=("cat", "dog"))
    with pytest.raises(InvalidBundle, match="has no output 'scores'"):
        report(model, "detection", "boxes", {"boxes": corners}, table(pa.array(true)), labels=("cat", "dog"))


def test_missing_truth_is_refused_with_its_place(model: Any) -> None:
    holed = table(pa.array([["a"]] + [None] * 39))
    with pytest.raises(InvalidData, match=r"'label' in test\.parquet is missing in 39 of 40 rows, first in row 1"):
        report(
            model,
            "multi-label",
            "probabilities",
            {"y": SCORES},
            holed,
            labels=("a", "b", "c"),
        )


def test_another_models_kind_of_answer_is_refused(model: Any) -> None:
    with pytest.raises(InvalidBundle, match="is declared as 'value'; it needs 'boxes'"):
        report(model, "detection", "value", {"y": SCORES}, table(pa.array([1] * ROWS)))


def test_an_unknown_task_lists_those_there_are() -> None:
    with pytest.raises(
        InvalidConfig, match=r"no task 'multilabel' \(did you mean 'multi-label'\?\); evaluation scores: class"
    ):
        find_task("multilabel")
    assert {name for task in TASKS.values() for name in task.main} <= _measured()


def _measured() -> set[str]:
    from fairway.core.metrics import METRICS

    return set(METRICS)


def test_the_worst_rows_are_those_with_the_greatest_loss(model: Any) -> None:
    from fairway.evaluation.analyses import weak_slices
    from fairway.evaluation.analyses.base import Subject
    from tests.evaluation.tasks import samples

    rows = samples.sentences(0, ROWS)
    words = pa.array(
        [["a"] * (number % 3) for number in range(ROWS)]
    )  # lists of different lengths, to be shown as well
    data = table(pa.array([0] * ROWS), words=words, box=pa.array([{"left": 1}] * ROWS))
    subject = Subject(model, data, "label", rows, (), EvaluationSettings())
    weak = weak_slices.analyse(subject)
    assert weak is not None
    assert weak.slices == ()
    found = analyse(subject)
    assert found[0].badness == rows.badness().max()
    assert [each.badness for each in found] == sorted((each.badness for each in found), reverse=True)
