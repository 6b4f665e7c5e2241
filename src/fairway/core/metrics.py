"""Metrics and measurements: what is measured, in which direction it is good, and how sure we are."""

from __future__ import annotations

import difflib
import math
import re

import msgspec

from fairway.core.errors import InvalidConfig


class Metric(msgspec.Struct, frozen=True):
    """A named quantity. The name tells direction and unit: ``*_score`` is better high, all else better low.

    ``tasks`` lists the tasks it applies to; empty means every task. ``by_group``: it compares the groups of columns that
    ``[evaluate] sensitive`` names, and is not measured without them.
    """

    name: str
    description: str
    tasks: tuple[str, ...] = ()
    by_group: bool = False

    @property
    def higher_is_better(self) -> bool:
        """Whether more is better."""
        return self.name.endswith(("_score", "_rps"))


_CLASSIFICATION = ("classification",)
_LABELED = ("classification", "multi-label")
_MULTI_LABEL = ("multi-label",)
_REGRESSION = ("regression",)
_RANKING = ("ranking",)
_TOKENS = ("token-classification",)
_EMBEDDING = ("embedding",)
_GENERATION = ("generation",)
_SEGMENTATION = ("segmentation",)
_DETECTION = ("detection",)

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("accuracy_score", "share of rows whose predicted class is the label", _CLASSIFICATION),
        Metric("balanced_accuracy_score", "mean over classes of the recall", _CLASSIFICATION),
        Metric("f1_score", "mean over classes (or labels) of the F1 score", _LABELED),
        Metric("f1_micro_score", "F1 score of all labels of all rows together", _MULTI_LABEL),
        Metric("precision_score", "mean over classes (or labels) of the precision", _LABELED),
        Metric("recall_score", "mean over classes (or labels) of the recall", _LABELED),
        Metric("roc_auc_score", "area under the ROC curve, one class against the rest", _CLASSIFICATION),
        Metric(
            "average_precision_score",
            "mean over labels (or over queries) of the precision at each hit, ranked by score",
            ("multi-label", "ranking"),
        ),
        Metric(
            "exact_match_score",
            "share of rows whose labels (or text, but for spaces around it) are exactly those wanted",
            ("multi-label", "generation"),
        ),
        Metric("hamming_loss", "share of wrong labels, present or absent, among all", _MULTI_LABEL),
        Metric("log_loss", "mean negative log probability of the label, in nats", _CLASSIFICATION),
        Metric(
            "demographic_parity_difference",
            "largest difference of selection rates between groups",
            _CLASSIFICATION,
            by_group=True,
        ),
        Metric(
            "equalized_odds_difference",
            "largest difference of true or false positive rates between groups",
            _CLASSIFICATION,
            by_group=True,
        ),
        Metric("r2_score", "share of the label's variance explained", _REGRESSION),
        Metric("mean_absolute_error", "mean of |prediction - label|", _REGRESSION),
        Metric("median_absolute_error", "median of |prediction - label|", _REGRESSION),
        Metric("root_mean_squared_error", "square root of the mean squared error", _REGRESSION),
        Metric("ndcg_score", "mean over queries of the normalized discounted cumulative gain", _RANKING),
        Metric("ndcg_at_10_score", "the same of the first 10 rows", _RANKING),
        Metric("reciprocal_rank_score", "mean over queries of 1 / (place of the first relevant row)", _RANKING),
        Metric("recall_at_10_score", "mean over queries of the share of relevant rows among the first 10", _RANKING),
        Metric("entity_f1_score", "F1 score of all entities together, a hit having type and both ends right", _TOKENS),
        Metric("entity_precision_score", "share of the found entities that are right", _TOKENS),
        Metric("entity_recall_score", "share of the true entities that are found", _TOKENS),
        Metric("token_accuracy_score", "share of words whose tag is right", _TOKENS),
        Metric("spearman_correlation_score", "correlation of the ranks of likeness and label", _EMBEDDING),
        Metric("pearson_correlation_score", "correlation of likeness (the cosine) and label", _EMBEDDING),
        Metric(
            "rouge_l_score", "mean over rows of ROUGE-L: the F1 score of the longest common subsequence", _GENERATION
        ),
        Metric("rouge_1_score", "mean over rows of ROUGE-1: the F1 score of the words", _GENERATION),
        Metric("rouge_2_score", "mean over rows of ROUGE-2: the F1 score of the pairs of words", _GENERATION),
        Metric("bleu_score", "BLEU of the corpus, from 0 to 100", _GENERATION),
        Metric("perplexity", "e to the mean negative log probability of a token of the wanted text", _GENERATION),
        Metric("mean_iou_score", "mean over classes of (intersection / union) of all pixels", _SEGMENTATION),
        Metric("dice_score", "mean over classes of the Dice coefficient (F1 score) of all pixels", _SEGMENTATION),
        Metric("pixel_accuracy_score", "share of pixels whose class is right", _SEGMENTATION),
        Metric("mean_average_precision_score", "COCO's mean average precision at IoU 0.5 to 0.95", _DETECTION),
        Metric("mean_average_precision_50_score", "the same at IoU 0.5", _DETECTION),
        Metric("check_failure_rate", "share of rows on which a declared check fails; its limit is the check's own"),
        Metric("latency_p50_ms", "median time from request to answer"),
        Metric("latency_p95_ms", "95th percentile of the time from request to answer"),
        Metric("latency_p99_ms", "99th percentile of the time from request to answer"),
        Metric(
            "throughput_rps", "requests answered per second: at the load `at_rps`, or without one as many as it takes"
        ),
        Metric("error_rate", "share of valid requests that were not answered"),
        Metric("memory_mb", "resident memory of a process that serves the model, in 10^6 bytes"),
        Metric("size_mb", "size of the bundle's files, in 10^6 bytes"),
        Metric("load_ms", "time from opening the bundle to the first answer"),
        Metric("first_request_ms", "time of the first request to a model that has just been loaded"),
        Metric("energy_mj_per_request", "energy that the processor takes per request at full load, in millijoules"),
    )
}
"""Every metric that a gate may limit, by name."""


OWN = re.compile(r"[a-z][a-z0-9_]*_(score|error|loss|cost|rate)")
"""What a metric of one's own may be called: the end says the direction, only ``_score`` being better high."""

_declared: set[str] = set()


def declare(name: str) -> None:
    """Make a metric of one's own known in this process, so that a gate may limit it.

    Raises
    ------
    InvalidConfig
        If its name does not say its direction, or is that of a built-in metric.
    """
    if name in METRICS:
        raise InvalidConfig(f"{name!r} is a metric that Fairway has; give your own another name")
    if not OWN.fullmatch(name):
        raise InvalidConfig(
            f"{name!r} does not say whether high is good: call it ..._score if it is, else ..._error, ..._loss, ..._cost or "
            "..._rate, in small letters, digits and underscores"
        )
    _declared.add(name)


def metric(name: str) -> Metric:
    """The metric called ``name``, or :class:`InvalidConfig` with the nearest valid name."""
    if name in METRICS or name in _declared:
        return described(name)
    known = (*METRICS, *sorted(_declared))
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
    raise InvalidConfig(f"no metric {name!r}; {hint}")


def described(name: str) -> Metric:
    """The same of a metric that was measured, perhaps one of somebody's own in another process."""
    return METRICS.get(name) or Metric(name, "a metric of one's own", _QUALITY)


_QUALITY = tuple(dict.fromkeys(task for known in METRICS.values() for task in known.tasks))


_BELOW, _ABOVE = -math.inf, math.inf
_BARE = "no interval"
"""How the method of a value without an interval begins."""


class Measurement(msgspec.Struct, frozen=True, omit_defaults=True):
    """One number, and how sure we are of it.

    JSON has no infinity: an unbounded end of the interval is left out there, and is back when it is read. A value that is
    not a finite number becomes an ``error``.

    Attributes
    ----------
    metric : str
    value : float
        The estimate, in the metric's unit.
    low, high : float
        Its interval; infinite where the data bound it on no side.
    confidence : float
        Two-sided coverage of the interval; 1 for an exact number, such as a file's size.
    n : int
        Observations behind it.
    slice : str
        The slice measured; empty is all rows.
    versus : str
        If set, ``value`` is the difference to this model (candidate minus that) on the same rows.
    method : str
        How the interval was made.
    at_rps : float or None
        The offered load in requests per second, for what depends on load.
    error : str
        Why the measurement could not be made; ``value`` is then meaningless.
    """

    metric: str
    value: float
    low: float = _BELOW
    high: float = _ABOVE
    confidence: float = 0.95
    n: int = 0
    slice: str = ""
    versus: str = ""
    method: str = ""
    at_rps: float | None = None
    error: str = ""

    def __post_init__(self) -> None:
        """Keep NaN out, and the default infinities identical to themselves, so that they are left out of JSON."""
        put = msgspec.structs.force_setattr
        value, low, high = float(self.value), float(self.low), float(self.high)
        if not math.isfinite(value):
            put(self, "error", self.error or f"{self.metric} came out as {value}")
            value, low, high = 0.0, _BELOW, _ABOVE
        put(self, "value", value)
        put(self, "low", low if math.isfinite(low) else _BELOW)
        put(self, "high", high if math.isfinite(high) else _ABOVE)

    @property
    def known(self) -> bool:
        """Whether anything was learned: no error, and an interval with at least one end."""
        return not self.error and not (self.low == _BELOW and self.high == _ABOVE)

    @property
    def has_value(self) -> bool:
        """Whether there is an estimate, be it without an interval."""
        return self.known or (not self.error and self.method.startswith(_BARE))

    @property
    def load_rps(self) -> float:
        """The load, in requests per second; infinite at full load, and for what depends on none."""
        return math.inf if self.at_rps is None else self.at_rps

    @classmethod
    def exact(cls, name: str, value: float, **fields: object) -> Measurement:
        """A number without uncertainty."""
        value = float(value)
        return msgspec.convert(
            {"metric": name, "value": value, "low": value, "high": value, "confidence": 1.0, **fields}, cls
        )

    @classmethod
    def failed(cls, name: str, error: str, **fields: object) -> Measurement:
        """A measurement that could not be made, through a fault that somebody should mend: the verdict is an error."""
        return msgspec.convert({"metric": name, "value": 0.0, "error": error, **fields}, cls)

    @classmethod
    def bare(cls, name: str, value: float, reason: str, **fields: object) -> Measurement:
        """A number that nobody can put an interval to, such as one reading of what varies: the verdict is inconclusive."""
        return msgspec.convert({"metric": name, "value": float(value), "method": f"{_BARE}: {reason}", **fields}, cls)

    @classmethod
    def unknown(cls, name: str, reason: str, **fields: object) -> Measurement:
        """A measurement for want of data: nothing is known of its value, and the verdict is inconclusive."""
        return msgspec.convert({"metric": name, "value": 0.0, "method": reason, **fields}, cls)


def difference(candidate: Measurement, champion: Measurement, versus: str) -> Measurement:
    """Candidate minus champion, from two independent intervals.

    Where the same rows were measured for both, a paired interval is narrower: prefer it.

    References
    ----------
    G. Y. Zou, A. Donner, "Construction of confidence limits about effect measures: a general approach",
    Statistics in Medicine 27(10), 2008, eq. 7 (MOVER), doi:10.1002/sim.3095.

    Examples
    --------
    >>> a = Measurement("accuracy_score", 0.9, 0.87, 0.93)
    >>> b = Measurement("accuracy_score", 0.8, 0.76, 0.84)
    >>> d = difference(a, b, "digits:1")
    >>> round(d.value, 3), round(d.low, 3), round(d.high, 3)
    (0.1, 0.05, 0.15)
    """
    value = candidate.value - champion.value
    return Measurement(
        metric=candidate.metric,
        value=value,
        low=value - math.hypot(candidate.value - candidate.low, champion.high - champion.value),
        high=value + math.hypot(candidate.high - candidate.value, champion.value - champion.low),
        confidence=min(candidate.confidence, champion.confidence),
        n=min(candidate.n, champion.n),
        slice=candidate.slice,
        versus=versus,
        method="difference of independent intervals (MOVER)",
        at_rps=candidate.at_rps,
    )
