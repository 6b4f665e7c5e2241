"""What flows through a graph, batch by batch."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fairway.core.tensors import Tensor
from fairway.optimization.graphs import external_files, load
from fairway.optimization.passes.base import Sample


def watch(source: Path, names: Sequence[str], sample: Sample) -> Iterator[list[Tensor]]:
    """The values called ``names`` for each batch of the sample; only one batch's are in memory."""
    import onnxruntime as ort

    model = load(source)
    known = {value.name for value in model.graph.output}
    model.graph.output.extend(type(model.graph.output[0])(name=name) for name in names if name not in known)
    with tempfile.TemporaryDirectory(prefix=".watch.", dir=source.parent) as folder:
        for name in external_files(source):
            target = Path(folder) / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.hardlink_to(source.parent / name)
        path = Path(folder) / "watched.onnx"
        path.write_bytes(model.SerializeToString())
        options: Any = ort.SessionOptions()
        options.log_severity_level = 4
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    for feed in sample.batches():
        yield session.run(list(names), dict(feed))
