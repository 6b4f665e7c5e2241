"""Static int8 quantization: activations' ranges are calibrated on reference rows."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fairway.core.extras import require
from fairway.core.tensors import Tensors
from fairway.optimization.graphs import external_files, load, operators, save_data, structure
from fairway.optimization.passes.base import Needs, NothingToDo, Pass, Sample
from fairway.optimization.passes.integers import CALIBRATION, FLOAT, WEIGHTS
from fairway.optimization.quiet import quiet
from fairway.optimization.rewrites.base import Rewriting

OPERATORS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Where int8 saves time."""


class _Reader:
    """ONNX Runtime's calibration data reader, read in strides so that only one batch's activations are in memory."""

    def __init__(self, batches: Iterable[Tensors]) -> None:
        self._batches = [dict(batch) for batch in batches]
        self._next = iter(self._batches)

    def __len__(self) -> int:
        return len(self._batches)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Go on with these batches."""
        self._next = iter(self._batches[start_index:end_index])

    def get_next(self) -> dict[str, Any] | None:
        """The next batch, or ``None``."""
        return next(self._next, None)


def quantize(
    source: Path,
    destination: Path,
    parameters: Mapping[str, Any],
    sample: Sample,
    *,
    floats: Sequence[str] = (),
    only: Sequence[str] = (),
    ranges: Path | None = None,
) -> None:
    """Write ``source`` with int8 products and convolutions: all, all but ``floats``, or ``only`` the nodes called so.

    ``ranges`` is a file that keeps what calibration found, for the next call with the same source, sample and method.
    """
    if not {name for _, name in operators(source)} & set(OPERATORS):
        raise NothingToDo(f"the graph has no {', '.join(OPERATORS)} whose weights could be int8")
    require("onnx", extra="optimize")
    method = parameters["method"]
    with quiet(destination.parent), _with_flat_biases(source, destination.parent) as graph:
        from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

        quantize_static(
            graph,
            destination,
            _Reader(sample.batches()),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(OPERATORS),
            nodes_to_exclude=list(floats),
            nodes_to_quantize=list(only),
            **({"calibration_cache_path": ranges} if ranges else {}),
            per_channel=parameters["per_channel"],
            reduce_range=parameters["reduce_range"],
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            use_external_data_format=bool(external_files(graph)),
            calibrate_method=CalibrationMethod[_METHODS[method]],
            extra_options={
                **FLOAT,
                "CalibStridedMinMax": 1,
                # A product's float result is wanted as it is: scaling it to int8 and back costs time and accuracy.
                "OpTypesToExcludeOutputQuantization": ["Gemm", "MatMul"],
                "MatMulConstBOnly": True,
                # The adjustment for tiny biases does not know weights with one scale per channel, and raises.
                "QDQDisableWeightAdjustForInt32Bias": parameters["per_channel"],
                **({"CalibPercentile": parameters["percentile"]} if method == "percentile" else {}),
            },
        )
        if structure(graph) == structure(destination):
            raise NothingToDo("no product or convolution has constant weights")


@contextmanager
def _with_flat_biases(source: Path, folder: Path) -> Iterator[Path]:
    """The graph with biases of shape ``[1, N]`` as ``[N]``: one scale per channel, of the first axis, does not fit them."""
    model = load(source, data=True)
    graph = Rewriting(model)
    rows = {node.input[2] for node in graph.graph.node if node.op_type == "Gemm" and len(node.input) > 2}
    found = {
        name: bias for name in rows if (bias := graph.value(name)) is not None and bias.ndim == 2 and len(bias) == 1
    }
    if not found:
        yield source
        return
    for node in graph.graph.node:
        if node.op_type == "Gemm" and len(node.input) > 2 and node.input[2] in found:
            node.input[2] = graph.constant(found[node.input[2]][0], "bias")
    graph.sweep()
    with tempfile.TemporaryDirectory(prefix=".biases.", dir=folder) as inside:
        flat = Path(inside) / source.name
        save_data(model, flat, bool(external_files(source)))
        yield flat


_METHODS = {"minmax": "MinMax", "percentile": "Percentile", "entropy": "Entropy"}


def _apply(source: Path, destination: Path, parameters: Mapping[str, Any], sample: Sample) -> None:
    quantize(source, destination, parameters, sample)


PASS = Pass(
    name="int8-static",
    summary="int8 weights and activations, calibrated on reference rows",
    lossless=False,
    apply=_apply,
    needs=Needs(data=True),
    changes=frozenset({"graph", "weights"}),
    parameters={**WEIGHTS, **CALIBRATION},
)
