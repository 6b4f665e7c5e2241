"""The value that follows from tallies is that of the library that defines the metric."""

from __future__ import annotations

import contextlib
import io
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from fairway.evaluation.tallied import Tallied
from fairway.evaluation.tasks import generation, ranking, tokens
from tests.evaluation.tasks import samples

SEEDS = st.integers(0, 2**32)
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.UndefinedMetricWarning")


def value(rows: Tallied, name: str) -> float:
    return rows.forms[name].value(rows)


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.integers(1, 40), st.integers(2, 6))
def test_multi_label_metrics_are_scikit_learns(seed: int, rows: int, labels: int) -> None:
    data = samples.multi_label(seed, rows, labels)
    truth, scores = (np.asarray(each) for each in (data.blocks["true"], data.more["probabilities"]))
    said, used = scores >= 0.5, np.flatnonzero((truth | (scores >= 0.5)).any(axis=0))
    if len(used) > 1:  # of a single column scikit-learn makes a binary task with two classes
        for name in ("f1_score", "precision_score", "recall_score"):
            theirs = getattr(sk, name)(truth[:, used], said[:, used], average="macro", zero_division=0)
            assert value(data, name) == pytest.approx(theirs), name
        assert value(data, "f1_micro_score") == pytest.approx(sk.f1_score(truth, said, average="micro"))
    present = truth.any(axis=0)
    if present.any():
        theirs = sk.average_precision_score(truth[:, present], scores[:, present])
        assert value(data, "average_precision_score") == pytest.approx(theirs)
    assert value(data, "hamming_loss") == pytest.approx(sk.hamming_loss(truth, said))
    assert value(data, "exact_match_score") == pytest.approx((truth == said).all(axis=1).mean())


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.integers(1, 12), st.floats(0.1, 3))
def test_ranking_metrics_are_scikit_learns_ties_included(seed: int, count: int, noise: float) -> None:
    data = samples.queries(seed, count, noise)
    query, relevance, scores = (np.asarray(each) for each in (data.unit_of, data.truth, data.predicted))
    inside = [query == number for number in range(count)]
    for name, depth in (("ndcg_score", None), ("ndcg_at_10_score", 10)):
        theirs = [sk.ndcg_score(relevance[q][None], scores[q][None], k=depth) for q in inside]
        assert value(data, name) == pytest.approx(np.mean(theirs)), name
    theirs = [sk.average_precision_score(relevance[q] > 0, scores[q]) for q in inside]
    assert value(data, "average_precision_score") == pytest.approx(np.mean(theirs))
    worst = [np.lexsort((relevance[q], -scores[q])) for q in inside]  # of equal scores the relevant come last
    first = [1 / (1 + np.flatnonzero(relevance[q][order] > 0)[0]) for q, order in zip(inside, worst, strict=True)]
    assert value(data, "reciprocal_rank_score") == pytest.approx(np.mean(first))


def test_a_long_list_counts_down_to_its_tenth_row_only() -> None:
    relevance = np.zeros(30)
    relevance[[0, 20]] = 1
    data = ranking.tally(ranking.Judged(relevance, np.zeros(30, int)), -np.arange(30.0))
    assert value(data, "recall_at_10_score") == 0.5
    assert value(data, "ndcg_at_10_score") < value(data, "ndcg_score")


def test_a_query_without_a_relevant_row_is_left_out() -> None:
    data = ranking.tally(ranking.Judged(np.array([1.0, 0, 0, 0]), np.array([0, 0, 1, 1])), np.array([2.0, 1, 2, 1]))
    assert value(data, "ndcg_score") == 1.0
    assert np.isnan(value(data.select(np.array([False, False, True, True])), "ndcg_score"))


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.integers(1, 12), st.floats(0.3, 0.95))
def test_entity_metrics_are_seqevals(seed: int, rows: int, right: float) -> None:
    from seqeval import metrics as seqeval

    data = samples.sentences(seed, rows, right)
    for name in ("f1_score", "precision_score", "recall_score"):
        theirs = getattr(seqeval, name)(data.truth, data.predicted, zero_division=0)
        ours = value(data, f"entity_{name}")
        assert ours == pytest.approx(theirs) or np.isnan(ours)
    assert value(data, "token_accuracy_score") == pytest.approx(seqeval.accuracy_score(data.truth, data.predicted))


def test_tags_that_mark_no_entities_have_an_accuracy_alone() -> None:
    data = tokens.tally([["NN", "VB"]], [["NN", "NN"]], ("NN", "VB"))
    assert list(data.forms) == ["token_accuracy_score"]
    assert "B-PER" in data.cannot["entity_f1_score"]


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.integers(3, 40), st.floats(-1, 1))
def test_correlations_are_scipys(seed: int, rows: int, slope: float) -> None:
    from scipy.stats import pearsonr, spearmanr

    data = samples.pairs(seed, rows, slope)
    truth, said = np.asarray(data.truth), np.asarray(data.predicted)
    if np.ptp(truth):
        assert value(data, "pearson_correlation_score") == pytest.approx(pearsonr(truth, said)[0])
        assert value(data, "spearman_correlation_score") == pytest.approx(spearmanr(truth, said)[0])


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.integers(1, 8))
def test_bleu_is_sacrebleus_and_rouge_is_rouge_scores(seed: int, rows: int) -> None:
    import sacrebleu
    from rouge_score.rouge_scorer import RougeScorer

    data = samples.texts(seed, rows)
    theirs = sacrebleu.corpus_bleu(list(data.predicted), [list(data.truth)])
    assert value(data, "bleu_score") == pytest.approx(theirs.score)
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"])
    found = [scorer.score(t, p) for t, p in zip(data.truth, data.predicted, strict=True)]
    for ours, name in (("rouge_1_score", "rouge1"), ("rouge_2_score", "rouge2"), ("rouge_l_score", "rougeL")):
        assert value(data, ours) == pytest.approx(np.mean([each[name].fmeasure for each in found]))


@pytest.mark.parametrize("said", ["a b c d", "a b c x y", "the a", "", "a b x d e f"])
def test_bleu_of_short_and_bad_texts_is_smoothed_as_sacrebleu_does(said: str) -> None:
    import sacrebleu

    data = generation.tally([["a b c d e f"], ["g h i j"]], generation.Answered([said, "g h"]))
    theirs = sacrebleu.corpus_bleu([said, "g h"], [["a b c d e f", "g h i j"]]).score
    assert value(data, "bleu_score") == pytest.approx(theirs, abs=1e-9)


def test_any_of_several_texts_is_right() -> None:
    data = generation.tally([["yes", "yes, it is"]], generation.Answered([" yes, it is "]))
    assert value(data, "exact_match_score") == 1.0


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.integers(1, 6), st.integers(2, 5))
def test_segmentation_metrics_are_scikit_learns_over_all_pixels(seed: int, rows: int, classes: int) -> None:
    data = samples.masks(seed, rows, classes)
    truth, said = (np.concatenate([mask.ravel() for mask in each]) for each in (data.truth, data.predicted))
    assert value(data, "mean_iou_score") == pytest.approx(sk.jaccard_score(truth, said, average="macro"))
    assert value(data, "dice_score") == pytest.approx(sk.f1_score(truth, said, average="macro"))
    assert value(data, "pixel_accuracy_score") == pytest.approx(sk.accuracy_score(truth, said))


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.integers(1, 12))
def test_detection_is_pycocotools(seed: int, count: int) -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth, said = samples.boxes(seed, count)
    number = itertools.count(1)
    sides = [
        {
            "images": [{"id": image} for image in range(count)],
            "categories": [{"id": one} for one in range(3)],
            "annotations": [
                {
                    "id": next(number),
                    "image_id": image,
                    "category_id": int(one),
                    "bbox": [*box[:2], *(box[2:] - box[:2])],
                    "area": float((box[2] - box[0]) * (box[3] - box[1])),
                    "iscrowd": 0,
                    "score": float(score),
                }
                for image, each in enumerate(side)
                for box, one, score in zip(*each, strict=True)
            ],
        }
        for side in (truth, said)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        true = COCO()
        true.dataset = sides[0]
        true.createIndex()
        evaluator = COCOeval(true, true.loadRes(sides[1]["annotations"]), "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    data = samples.images(seed, count)
    assert value(data, "mean_average_precision_score") == pytest.approx(evaluator.stats[0], abs=1e-9)
    assert value(data, "mean_average_precision_50_score") == pytest.approx(evaluator.stats[1], abs=1e-9)
