"""What the search for a cheaper form of a model may try, and what it must bring."""

from __future__ import annotations

import re
from typing import Annotated, Literal

import msgspec

from fairway.core.errors import InvalidConfig
from fairway.core.metrics import METRICS, metric

CANDIDATES = ("graph", "int8-dynamic", "int8-static", "int8-percentile")
"""What is tried unless said otherwise, the least intrusive first."""

MORE = (
    "fp16-weights", "fused", "openvino", "openvino-bf16", "fused-int8-dynamic", "fused-int8-smooth", "fused-int8-mixed",
    "openvino-int8", "fused-openvino-int8", "fewer-tokens", "fewer-tokens-int8", "fewer-tokens-openvino-int8", "pruned",
    "pruned-int8", "int4-weights", "cuda", "tensorrt",
)  # fmt: skip
"""What else can be tried: for transformers, for other engines, for size."""

TORCH = tuple(
    f"{device}-{mode}-{precision}"
    for device in ("cpu", "cuda")
    for mode in ("eager", "compiled", "aot")
    for precision in ("fp32", "bf16", "fp16")
)
"""How torch may run an exported program."""

_OBJECTIVES = tuple(name for name, known in METRICS.items() if not known.tasks and name != "check_failure_rate")
"""What is measured of every form as it is served."""

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")


class OptimizationSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The table ``[optimize]``.

    Attributes
    ----------
    time_budget : str
        How long to look, such as ``"90s"``, ``"5m"`` or ``"1h30m"``. Past 65 % of it no candidate is made; a round of
        measurements is begun only if there is time for all of it, but the first is always made.
    candidates : tuple of str
        Which to make first, in this order. Those that you name are all examined; of the default, and of what the search tries
        by itself, only what is faster than the best so far. For transformers there are, too: ``fused`` (one operator for each
        attention, and only the rows that the answer reads), ``fused-int8-dynamic``, ``fused-int8-smooth`` (static, outliers
        moved into weights), ``fused-int8-mixed`` (what harms most stays float), ``fewer-tokens`` and ``fewer-tokens-int8``
        (tokens that are attended least are left behind). For these and for images: ``pruned`` and ``pruned-int8`` (filters,
        neurons and heads that matter least are left out). For any graph: ``fp16-weights`` (half the size), ``int4-weights``
        (for language models), ``openvino``, ``openvino-bf16`` and ``openvino-int8`` (which need ``fairway[openvino,nncf]``),
        for transformers ``fused-openvino-int8`` and ``fewer-tokens-openvino-int8``. For a bundle that torch runs (``[model]
        engine``): ``DEVICE-MODE-PRECISION``, such as ``cuda-aot-bf16`` or ``cpu-compiled-fp32``; by default all that this
        machine can run in BF16 and FP32.
    trials : int
        How many other forms the search may try after these: other combinations of the same passes, with other parameters.
        It ends earlier where no candidate is cheaper than the original. 0: only ``candidates`` are tried.
    patience : int
        After so many in a row that do not better the best by ``min_gain``, the search ends.
    finalists : int
        How many forms are measured in the final rounds, and may be chosen: the fastest at first sight.
    held_out : float
        Share of the test rows that the search does not look at, and that judge what it chose. Where they could not settle
        the gate even for the original, or with 0, all rows do both, with intervals widened for the forms examined.
    objective : str
        The performance metric to improve, at the largest load that the gate names. What it says is believed only beyond the
        noise.
    repeats : int
        Rounds of measurements. Each round measures every candidate once, in a new order. From 5 on, the interval is
        that of the median over rounds; below, it is the widest of the rounds' own, and there is none of what each round
        reads once.
    min_gain : float
        Relative improvement below which another graph does not pay (0.03 is 3 %). The interval's worse end counts.
    min_size_gain_mb : float
        With equal speed, a smaller bundle pays if it saves this much (10^6 bytes) and ``min_gain``.
    tune : bool
        Whether to measure, last, how the chosen form is served best: threads of a call (workers take the cores that these
        leave), rows of a call, and how long a batch may wait. What is better beyond the noise goes into the bundle.
    cores : int
        That the server is to have, for ``tune``; 0: all of this machine that Fairway may use.
    equal_requests : float
        The share of requests in production that equal an earlier one, which no test set says. Above 0, ``tune`` tries as well
        to keep answers (``[serve] cache_bytes``): each worker 64 MB.
    level : str
        ONNX Runtime's graph optimizations that the ``graph`` candidate saves. ``extended`` has fused operators that
        only ONNX Runtime knows; ``basic`` stays within the ONNX standard. Both run on any machine.
    fixed_shapes : bool
        Whether forms take inputs only of the sizes that the reference rows have (any number of rows; what a tokenizer makes
        stays open). Requests of other sizes are then refused. For engines that compile for each shape anew.
    calibration_rows : int
        Rows of the reference data that calibrate static quantization.
    percentile : float
        Of the values that ``int8-percentile`` keeps; the rest saturate.
    per_channel : bool
        One scale per output channel of a weight rather than one per weight.
    reduce_range : bool
        Weights of 7 bits. With 8, CPUs without VNNI instructions saturate and answer differently from those with, so a
        quality measured here would not hold there.
    seed : int
        Which reference rows calibrate, which test rows are held out, what is proposed, and the order within rounds.
    """

    time_budget: str = "5m"
    candidates: tuple[str, ...] = CANDIDATES
    trials: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 48
    patience: Annotated[int, msgspec.Meta(ge=1)] = 16
    finalists: Annotated[int, msgspec.Meta(ge=1, le=100)] = 4
    held_out: Annotated[float, msgspec.Meta(ge=0, le=0.9)] = 0.3
    objective: str = "latency_p50_ms"
    repeats: Annotated[int, msgspec.Meta(ge=1, le=100)] = 5
    min_gain: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.03
    min_size_gain_mb: Annotated[float, msgspec.Meta(ge=0)] = 0.1
    tune: bool = True
    cores: Annotated[int, msgspec.Meta(ge=0, le=4096)] = 0
    equal_requests: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    level: Literal["basic", "extended"] = "extended"
    fixed_shapes: bool = False
    calibration_rows: Annotated[int, msgspec.Meta(ge=1)] = 256
    percentile: Annotated[float, msgspec.Meta(gt=50, le=100)] = 99.99
    per_channel: bool = True
    reduce_range: bool = True
    seed: Annotated[int, msgspec.Meta(ge=0)] = 0

    def __post_init__(self) -> None:
        """Raise ``ValueError`` for what types alone do not catch."""
        seconds(self.time_budget)
        if unknown := [name for name in self.candidates if name not in (*CANDIDATES, *MORE, *TORCH)]:
            known = ", ".join((*CANDIDATES, *MORE))
            raise ValueError(
                f"no candidate {unknown[0]!r}; known: {known}; for torch's programs DEVICE-MODE-PRECISION, as cuda-aot-bf16"
            )
        try:
            tasks = metric(self.objective).tasks
        except InvalidConfig as error:
            raise ValueError(f"objective: {error}") from None
        if not tasks and self.objective not in _OBJECTIVES:
            raise ValueError(
                f"objective {self.objective!r} is not measured of a form; choose one of {', '.join(_OBJECTIVES)}"
            )
        if tasks:
            raise ValueError(f"objective {self.objective!r} is a quality; put it into [gate] and choose a cost here")

    @property
    def time_budget_s(self) -> float:
        """``time_budget`` in seconds."""
        return seconds(self.time_budget)


def seconds(duration: str) -> float:
    """Seconds in a duration such as ``"90s"`` or ``"1h30m"``. Raises ``ValueError`` if it is not one.

    Examples
    --------
    >>> seconds("1h30m"), seconds("500ms")
    (5400.0, 0.5)
    """
    parts = _PART.findall(duration)
    if not parts or "".join(number + unit for number, unit in parts) != duration.replace(" ", ""):
        raise ValueError(f"{duration!r} is not a duration; write 90s, 5m or 1h30m")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)
