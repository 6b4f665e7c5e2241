"""A million rows of 50 columns through a logistic regression: the whole process stays under 1 GB, whatever the file's form."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from benchmarks.harness import Figure, figure

ROWS, COLUMNS, PART = 1_000_000, 50, 50_000

CHILD = """
import json, re, sys, time
from pathlib import Path

started = time.perf_counter()
from fairway.bundle.format import read_bundle
from fairway.evaluation.evaluate import evaluate
from fairway.evaluation.fit import check_fit
from fairway.evaluation.settings import EvaluationSettings, SliceSettings
from fairway.model import Model
from fairway.sources.tables import load_table

what, bundle, data = sys.argv[1:]
with Model(read_bundle(Path(bundle))) as model:
    table = load_table(Path(data))
    if what == "answer":
        check_fit([model], table, label="label")
        rows = sum(len(model.infer(feed)["probabilities"]) for _, feed in table.feeds(model.inputs, 256))
    else:
        slices = [SliceSettings("low", "f0 < 0.25")]
        rows = evaluate(model, table, label="label", slices=slices, settings=EvaluationSettings(resamples=100)).rows
peak = int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
print(json.dumps([rows, peak / 1e6, time.perf_counter() - started]))
"""


def measure() -> list[Figure]:
    """Peak resident memory (with all libraries) and seconds, of reading and inference alone and of a whole evaluation."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        bundle, files = _prepare(Path(folder))
        for what, says in (("answer", "checked and answered"), ("evaluate", "evaluated")):
            for file in files:
                peak, seconds = _child(what, bundle, file)
                about = f"a million rows of {COLUMNS} columns {says}, {file.suffix[1:]} of {file.stat().st_size / 1e6:,.0f} MB"
                found += [figure(f"{about}: peak", [peak], "MB", "<= 1000"), figure(f"{about}: time", [seconds], "s")]
    return found


def _child(what: str, bundle: Path, file: Path) -> tuple[float, float]:
    command = [sys.executable, "-c", CHILD, what, str(bundle), str(file)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    rows, peak, seconds = json.loads(done.stdout)
    assert rows == ROWS, rows
    return peak, seconds


def _prepare(folder: Path) -> tuple[Path, list[Path]]:
    """The model, and the rows as Parquet and as CSV, of 64-bit floats; written in parts."""
    from fairway.testing.builders import linear_bundle

    rng = np.random.default_rng(0)
    names = tuple(f"f{number}" for number in range(COLUMNS))
    weights = rng.normal(size=(COLUMNS, 2))
    bundle = linear_bundle(folder / "model.fairway", weights=weights, bias=[0, 0], columns=names)
    schema = pa.schema([*((name, pa.float64()) for name in names), ("label", pa.int64())])
    parquet, csv = folder / "rows.parquet", folder / "rows.csv"
    with pa.parquet.ParquetWriter(parquet, schema) as one, pa.csv.CSVWriter(csv, schema) as other:
        for _ in range(ROWS // PART):
            x = rng.random((PART, COLUMNS))
            label = (x @ (weights[:, 1] - weights[:, 0]) + rng.normal(size=PART) > 0).astype(np.int64)
            part = pa.table([*x.T, label], schema=schema)
            one.write_table(part)
            other.write_table(part)
    return bundle.path, [parquet, csv]
