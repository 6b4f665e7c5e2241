"""Run by Olive's own Python: every form of a graph that Olive's passes for CPUs make, one workflow each.

``python olive_app.py MODEL.onnx ROWS.npz DESTINATION SECONDS`` writes ``DESTINATION/NAME.onnx`` and ``DESTINATION/found.json``.
"""
# mypy: ignore-errors

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from olive.data.registry import Registry

_FUSED = {"type": "OrtTransformersOptimization", "model_type": "bert", "num_heads": 12, "hidden_size": 384}
_PEEPHOLE = {"type": "OnnxPeepholeOptimizer"}


@Registry.register_dataset()
def calibration_rows(path: str, **_: Any) -> list[tuple[dict[str, Any], int]]:
    """Rows as the graph gets them; what they should be answered is not asked for."""
    arrays = dict(np.load(path))
    return [
        ({name: array[row] for name, array in arrays.items()}, 0) for row in range(len(next(iter(arrays.values()))))
    ]


def workflows() -> dict[str, list[dict[str, Any]]]:
    """Passes in order, by name."""

    def dynamic(per_channel: bool) -> dict[str, Any]:
        return {"type": "OnnxDynamicQuantization", "per_channel": per_channel, "reduce_range": False}

    def static(method: str) -> dict[str, Any]:
        return {
            "type": "OnnxStaticQuantization", "data_config": "calibration", "per_channel": True, "calibrate_method": method,
            "quant_format": "QDQ", "activation_type": "uint8", "precision": "int8",
        }  # fmt: skip

    return {
        "fused": [_FUSED],
        "dynamic": [dynamic(False)],
        "dynamic-per-channel": [dynamic(True)],
        "fused-dynamic": [_FUSED, dynamic(False)],
        "fused-dynamic-per-channel": [_FUSED, dynamic(True)],
        "peephole-dynamic": [_PEEPHOLE, dynamic(True)],
        "static": [static("MinMax")],
        "fused-static": [_FUSED, static("MinMax")],
        "fused-static-percentile": [_FUSED, static("Percentile")],
    }


def main(model: Path, rows: Path, destination: Path, seconds: float) -> None:
    from olive import run

    began, found = time.perf_counter(), []
    for name, passes in workflows().items():
        started = time.perf_counter()
        if started - began > seconds:
            break
        place = destination / f"{name}.work"
        config = {
            "input_model": {"type": "ONNXModel", "model_path": str(model)},
            "data_configs": [
                {
                    "name": "calibration",
                    "user_script": __file__,
                    "load_dataset_config": {"type": "calibration_rows", "path": str(rows)},
                    "pre_process_data_config": {"type": "skip_pre_process"},
                    "post_process_data_config": {"type": "skip_post_process"},
                    "dataloader_config": {"batch_size": 16},
                }
            ],
            "passes": {f"p{number}": each for number, each in enumerate(passes)},
            "cache_dir": str(destination / "cache"),
            "output_dir": str(place),
            "log_severity_level": 3,
        }
        error = ""
        try:
            run(config)
            shutil.copy(next(place.rglob("*.onnx")), destination / f"{name}.onnx")
        except (Exception, SystemExit) as failure:  # noqa: BLE001 (one that fails is told, the others go on)
            error = f"{type(failure).__name__}: {failure}"[:300]
        shutil.rmtree(place, ignore_errors=True)
        found.append({"name": name, "seconds": round(time.perf_counter() - started, 1), "error": error})
        (destination / "found.json").write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), float(sys.argv[4]))
