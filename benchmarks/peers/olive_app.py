"""Run by Olive's own Python: every form of a BERT classifier that Olive's passes for CPUs make, one workflow each.

``python olive_app.py MODEL.onnx ROWS.npz DESTINATION SECONDS`` writes ``DESTINATION/NAME/model.onnx`` and, after each
workflow, ``DESTINATION/found.json``. Workflows are in the order of what they promise; none starts after ``SECONDS``.

Olive's own search is not used: in 0.13.0 every point after the first that shares a pass with one before ends in
``"FootprintNode" object has no field "model_config"``. All that these workflows make is timed by the benchmark instead.
Not among them: passes of Intel's Neural Compressor, whose release 3.10 lacks the modules that Olive asks for, and half
precision, which Olive itself advises against on CPUs.
"""
# mypy: ignore-errors

from __future__ import annotations

import json
import logging
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from olive.data.registry import Registry

HEADS, HIDDEN, BATCH = 12, 384, 16


@Registry.register_dataset()
def calibration_rows(path: str, **_: Any) -> list[tuple[dict[str, Any], int]]:
    """Rows as the graph gets them; what they should be answered is not asked for."""
    arrays = dict(np.load(path))
    return [
        ({name: array[row] for name, array in arrays.items()}, 0) for row in range(len(next(iter(arrays.values()))))
    ]


def _fused(**options: Any) -> dict[str, Any]:
    shape = {"model_type": "bert", "num_heads": HEADS, "hidden_size": HIDDEN}
    return {"type": "OrtTransformersOptimization", **shape, **({"optimization_options": options} if options else {})}


def _dynamic(per_channel: bool = True, **more: Any) -> dict[str, Any]:
    return {"type": "OnnxDynamicQuantization", "per_channel": per_channel, "reduce_range": False, **more}


def _static(method: str = "MinMax", **more: Any) -> dict[str, Any]:
    """Products with weights; unsigned activations are the fast ones on x86."""
    return {
        "type": "OnnxStaticQuantization", "data_config": "calibration", "per_channel": True, "calibrate_method": method,
        "quant_format": "QDQ", "activation_type": "uint8", "precision": "int8", "prepare_qdq_config": False,
        "op_types_to_quantize": ["MatMul", "Gemm"], "extra_options": {"MatMulConstBOnly": True}, **more,
    }  # fmt: skip


def _blocks(kind: str, bits: int, **more: Any) -> dict[str, Any]:
    """Weights in blocks with a scale each, multiplied as integers."""
    return {"type": kind, "bits": bits, "accuracy_level": 4, **more}


def _masks(model: Path) -> list[str]:
    """What adds a mask to scores, and what it is added for: its lowest number leaves a scale nothing to tell with."""
    import onnx

    nodes = onnx.load(model, load_external_data=False).graph.node
    masked = {name for node in nodes if node.op_type == "Softmax" for name in node.input}
    return [node.name for node in nodes if node.op_type in ("Softmax", "Where") or masked.intersection(node.output)]


def workflows(model: Path) -> dict[str, list[dict[str, Any]]]:
    """Passes in order, by name. A name says "dynamic" where the rows of a call share a scale."""
    rough = {"enable_gelu_approximation": True}
    floats = {"MatMulConstBOnly": True, "OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm"]}
    whole = {"prepare_qdq_config": True, "op_types_to_quantize": None, "extra_options": None}
    unmasked = {**whole, "nodes_to_exclude": _masks(model)}
    peephole, scripted = {"type": "OnnxPeepholeOptimizer"}, {"type": "OnnxScriptFusion"}
    kquant, rtn = "OnnxKQuantQuantization", "OnnxBlockWiseRtnQuantization"
    return {
        "dynamic-per-channel": [_dynamic()],
        "static-whole-but-masks": [_static(**unmasked)],
        "dynamic": [_dynamic(per_channel=False)],
        "fused-dynamic-per-channel": [_fused(), _dynamic()],
        "fused-dynamic": [_fused(), _dynamic(per_channel=False)],
        "rough-gelu-dynamic-per-channel": [_fused(**rough), _dynamic()],
        "static-float-outputs": [_static(extra_options=floats)],
        "fused-static-float-outputs": [_fused(), _static(extra_options=floats)],
        "fused-static-float-outputs-entropy": [_fused(), _static("Entropy", extra_options=floats)],
        "fused-static-float-outputs-percentile": [_fused(), _static("Percentile", extra_options=floats)],
        "static-whole-but-masks-percentile": [_static("Percentile", **unmasked)],
        "fused": [_fused()],
        "rough-gelu": [_fused(**rough)],
        "scripted": [scripted],
        "scripted-dynamic-per-channel": [scripted, _dynamic()],
        "scripted-folded-dynamic-per-channel": [scripted, peephole, _dynamic()],
        "peephole-fused-dynamic-per-channel": [peephole, _fused(), _dynamic()],
        "fused-dynamic-products": [_fused(), _dynamic(op_types_to_quantize=["MatMul", "Attention"])],
        "static": [_static()],
        "static-whole": [_static(**whole)],
        "fused-static": [_fused(), _static()],
        "fused-static-operators": [_fused(), _static(quant_format="QOperator", precision="uint8", per_channel=False)],
        "fused-kquant8-blocks-of-128": [_fused(), _blocks(kquant, 8, block_size=128)],
        "fused-rtn8-blocks-of-128": [_fused(), _blocks(rtn, 8, block_size=128)],
        "fused-kquant4": [_fused(), _blocks(kquant, 4)],
        "peephole": [peephole],
    }


class _Failures(logging.Handler):
    """Keeps what Olive logs of a pass that failed, for a workflow that fails is not raised."""

    last: BaseException | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and self.last is None:
            self.last = record.exc_info[1]


failures = _Failures()


def make(name: str, passes: list[dict[str, Any]], model: Path, rows: Path, destination: Path) -> None:
    """One workflow; its graph is there once ONNX Runtime has answered rows with it, whole or not at all."""
    import onnx
    from olive import run

    failures.last = None
    place = destination / "work"
    shutil.rmtree(place, ignore_errors=True)
    made = run(
        {
            "input_model": {"type": "ONNXModel", "model_path": str(model)},
            "systems": {
                "cpu": {
                    "type": "LocalSystem",
                    "accelerators": [{"device": "cpu", "execution_providers": ["CPUExecutionProvider"]}],
                }
            },
            "data_configs": [
                {
                    "name": "calibration",
                    "user_script": __file__,
                    "load_dataset_config": {"type": "calibration_rows", "path": str(rows)},
                    "pre_process_data_config": {"type": "skip_pre_process"},
                    "post_process_data_config": {"type": "skip_post_process"},
                    "dataloader_config": {"batch_size": BATCH},
                }
            ],
            "passes": {f"p{number}": each for number, each in enumerate(passes)},
            "host": "cpu",
            "target": "cpu",
            "cache_dir": str(destination / "cache"),
            "output_dir": str(place),
            "log_severity_level": 3,
        }
    )
    best = made.get_best_candidate()
    if best is None:
        raise failures.last or RuntimeError("Olive made no model")
    graph = place / "ready" / "model.onnx"
    graph.parent.mkdir()
    onnx.save_model(onnx.load(best.model_path), str(graph))
    _answers(graph, rows)
    (destination / name).mkdir()
    graph.replace(destination / name / "model.onnx")


def _answers(graph: Path, rows: Path) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    taken = {each.name for each in session.get_inputs()}
    for answer in session.run(None, {name: array[:2] for name, array in np.load(rows).items() if name in taken}):
        if not np.isfinite(answer).all():
            raise RuntimeError("an answer is not finite")


def main(model: Path, rows: Path, destination: Path, seconds: float) -> None:
    began, found = time.perf_counter(), []
    logging.getLogger("olive").addHandler(failures)
    destination.mkdir(parents=True, exist_ok=True)
    for name, passes in workflows(model).items():
        started = time.perf_counter()
        if started - began > seconds:
            break
        error = ""
        try:
            make(name, passes, model, rows, destination)
        except (Exception, SystemExit) as failure:  # noqa: BLE001 (one that fails is told, the others go on)
            cause = failure.__cause__ or failure
            error = " ".join(f"{type(cause).__name__}: {cause}".split())[:300]
        took = round(time.perf_counter() - started, 1)
        found.append({"name": name, "passes": passes, "seconds": took, "error": error})
        (destination / "found.json").write_text(json.dumps(found, indent=2))
    for scratch in ("work", "cache"):
        shutil.rmtree(destination / scratch, ignore_errors=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), float(sys.argv[4]))
