"""`fairway evaluate` on digits, breast-cancer and diabetes: every form of the report, and an exit code that CI understands."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.model_selection import train_test_split

OUT = Path("example-output/evaluate").absolute()
FORMS = {"--html": "report.html", "--markdown": "report.md", "--junit": "report.xml"}

TRAIN = """\
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def fit():
    table = pq.read_table(Path(__file__).parent / "train.parquet")
    names = [name for name in table.column_names if name.startswith("x_")]
    estimator = make_pipeline(StandardScaler(), {estimator})
    return estimator.fit(np.column_stack([table[name] for name in names]).astype(np.float32), table["label"].to_numpy())
"""

SETTINGS = """\
[model]
name = "{name}"
task = "{task}"
source = "train:fit"

[data]
test = "test.parquet"
reference = "train.parquet"
label = "label"
features = ["x_*"]

{more}
latency_p99_ms = {{ max = 1000, at_rps = 400 }}

[evaluate]
processes = 2
analyses = {analyses}
"""


class Case(NamedTuple):
    """A data set, an estimator for it, and what is asked of it."""

    task: str
    load: Callable[..., Any]
    estimator: str
    asked: str
    analyses: list[str]
    code: int
    """What the gate makes of it: 0 passed, 1 failed, 2 inconclusive."""


CASES = {
    "digits": Case(
        "classification",
        load_digits,
        "LogisticRegression(max_iter=1000)",
        '[[slices]]\nname = "faint ink"\nwhere = "mean < 4.4"\n\n[gate]\naccuracy_score = { min = 0.93, slice_min = 0.80 }',
        ["errors", "calibration", "data_checks"],
        0,
    ),
    "breast-cancer": Case(
        "classification",
        load_breast_cancer,
        "LogisticRegression()",
        "[gate]\naccuracy_score = { min = 0.90 }\nroc_auc_score = { min = 0.97 }",
        ["errors", "calibration", "thresholds", "importance", "weak_slices", "robustness", "data_checks"],
        2,  # 200 rows do not tell whether the area is as large as that
    ),
    "diabetes": Case(
        "regression",
        load_diabetes,
        "Ridge()",
        "[gate]\nr2_score = { min = 0.90 }",
        ["errors", "importance", "weak_slices", "data_checks"],
        1,  # no linear model explains so much of it
    ),
}


def write_project(folder: Path, name: str, case: Case) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    x, y = case.load(return_X_y=True)
    parts = train_test_split(x.astype(np.float32), y, test_size=0.35, random_state=0)
    for file, rows, labels in (("train", parts[0], parts[2]), ("test", parts[1], parts[3])):
        columns = {f"x_{place:02}": rows[:, place] for place in range(rows.shape[1])}
        pq.write_table(pa.table({**columns, "mean": rows.mean(axis=1), "label": labels}), folder / f"{file}.parquet")
    (folder / "train.py").write_text(TRAIN.format(estimator=case.estimator))
    (folder / "fairway.toml").write_text(
        SETTINGS.format(name=name, task=case.task, more=case.asked, analyses=case.analyses)
    )


def main() -> None:
    for name, case in CASES.items():
        folder = OUT / name
        write_project(folder, name, case)
        forms = [str(part) for option, file in FORMS.items() for part in (option, folder / file)]
        command = [sys.executable, "-m", "fairway", "evaluate", "--project", str(folder), *forms]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        print("\n".join(done.stdout.splitlines()[:24]), "\n  …")
        print(f"exit code {done.returncode}; look at {folder / FORMS['--html']}\n")
        assert done.returncode == case.code, done.stdout
        assert all((folder / file).stat().st_size for file in FORMS.values())


if __name__ == "__main__":
    main()
