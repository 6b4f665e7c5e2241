"""What the passes that quantize to int8 have in common."""

from __future__ import annotations

from typing import Any

from fairway.optimization.passes.base import Parameter

FLOAT: dict[str, Any] = {"DefaultTensorType": 1}
"""For ONNX Runtime's quantizer: what is not told by shape inference, which stops at fused operators, is FP32."""

WEIGHTS = {
    "per_channel": Parameter("one scale per output channel of a weight, not one per weight", True, (True, False)),
    "reduce_range": Parameter(
        "weights of 7 bits: with 8, CPUs without VNNI instructions saturate, and answer otherwise than those with",
        True,
        (True, False),
    ),
}
"""Parameters of every int8 weight."""

CALIBRATION = {
    "method": Parameter("how an activation's range is found", "minmax", ("minmax", "percentile", "entropy")),
    "percentile": Parameter("of the values that percentile calibration keeps", 99.99, low=99.0, high=100.0),
}
"""Parameters of activations whose ranges are calibrated."""
