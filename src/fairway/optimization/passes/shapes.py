"""Every size that the reference rows agree on is written into the graph, but for the number of rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fairway.core.extras import require
from fairway.optimization.graphs import external_files, load, save_data
from fairway.optimization.passes.base import Needs, NothingToDo, Pass, Sample


def _apply(source: Path, destination: Path, _parameters: Mapping[str, Any], sample: Sample) -> None:
    utilities: Any = require("onnxruntime.tools.onnx_model_utils", extra="optimize")
    model = load(source, data=True)
    sizes = dict(_sizes(model.graph, sample))
    if not sizes:
        raise NothingToDo("the graph leaves nothing open but the number of rows and what a tokenizer decides")
    for name, size in sizes.items():
        utilities.make_dim_param_fixed(model.graph, name, size)
    save_data(model, destination, bool(external_files(source)))


def _sizes(graph: Any, sample: Sample) -> Iterator[tuple[str, int]]:
    """The open axes of the inputs, each by its name in the graph, and their sizes; an axis without a name is given one."""
    rows = {each.type.tensor_type.shape.dim[0].dim_param for each in graph.input if each.type.tensor_type.shape.dim}
    for each in graph.input:
        if each.name in sample.made or each.name not in sample.feed:
            continue
        for axis, dim in enumerate(each.type.tensor_type.shape.dim):
            if not axis or dim.dim_value > 0:
                continue
            if not dim.dim_param:
                dim.dim_param = f"{each.name}.{axis}"
            if dim.dim_param not in rows:
                yield dim.dim_param, sample.feed[each.name].shape[axis]


PASS = Pass(
    name="shapes",
    summary="sizes that the reference rows agree on, fixed",
    lossless=True,
    apply=_apply,
    needs=Needs(data=True),
    changes=frozenset({"graph", "inputs"}),
)
