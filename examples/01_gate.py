"""Evaluate a scikit-learn model against a gate: what it scores, how sure that is, and whether that is enough."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import fairway

TRAIN = """\
from pathlib import Path
import numpy as np
import pyarrow.parquet as pq
from sklearn.linear_model import LogisticRegression


def fit():
    table = pq.read_table(Path(__file__).parent / "train.parquet")
    pixels = [name for name in table.column_names if name.startswith("pixel_")]
    return LogisticRegression(max_iter=1000).fit(np.column_stack([table[name] for name in pixels]), table["digit"])
"""

SETTINGS = """\
[model]
name = "digits"
source = "train:fit"               # a function of train.py; a checkpoint file would do as well

[data]
test = "test.parquet"
label = "digit"
features = ["pixel_*"]

[[slices]]
name = "faint ink"
where = "ink < 0.27"               # SQL over the columns, also over those that the model does not take

[gate]
accuracy_score = { min = 0.93, slice_min = 0.80 }
latency_p99_ms = { max = 1000, at_rps = 500 }
"""


def write_project(folder: Path) -> None:
    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype(np.float32)
    x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=450, random_state=0, stratify=y)
    for name, rows, labels in (("train", x_train, y_train), ("test", x_test, y_test)):
        columns = {f"pixel_{i}": rows[:, i] for i in range(64)}
        pq.write_table(pa.table({**columns, "ink": rows.mean(axis=1), "digit": labels}), folder / f"{name}.parquet")
    (folder / "train.py").write_text(TRAIN)
    (folder / "fairway.toml").write_text(SETTINGS)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_project(Path(folder))
        project = fairway.Project.find(folder)

        report = fairway.evaluate(project=project)
        print(report.as_text())
        assert report.passed

        # The gate never guesses: where the interval straddles the limit, the verdict is "inconclusive".
        settings = Path(folder, "fairway.toml")
        settings.write_text(SETTINGS.replace("min = 0.93", "min = 0.97"))
        doubtful = fairway.evaluate(project=fairway.Project.find(folder))
        print(f"\nwith min = 0.97: {doubtful.verdict.outcome}, because {doubtful.verdict.reasons[0]}")
        assert doubtful.verdict.outcome == "inconclusive"


if __name__ == "__main__":
    main()
