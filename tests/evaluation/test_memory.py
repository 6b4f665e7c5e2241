"""Five times the rows, hardly more memory: features are never held all at once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from fairway.testing.builders import linear_bundle

COLUMNS = 50

CODE = """
import json, re, sys
from pathlib import Path
from fairway.bundle.format import read_bundle
from fairway.evaluation.fit import check_fit
from fairway.evaluation.settings import SliceSettings
from fairway.model import Model
from fairway.sources.readers import delimited, spool
from fairway.sources.tables import load_table

delimited.CHUNK_BYTES = spool.CHUNK_BYTES = 2**20  # as small beside these files as the real ones are beside large files
delimited._BLOCK = 2**17
spool.KEPT_BYTES = 2**22


def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024


peaks, rows = [], []
with Model(read_bundle(Path(sys.argv[1]))) as model:
    for path in sys.argv[2:]:
        table = load_table(path)
        check_fit([model], table, label="label", slices=[SliceSettings("low", "f0 < 0.5")])
        rows.append(sum(len(model.infer(feed)["probabilities"]) for _, feed in table.feeds(model.inputs, 256)))
        peaks.append(peak())
print(json.dumps([rows, peaks]))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize(("form", "few"), [("parquet", 60_000), ("arrow", 60_000), ("csv", 40_000)])
def test_memory_does_not_grow_with_the_rows(form: str, few: int, tmp_path: Path) -> None:
    names = tuple(f"f{number}" for number in range(COLUMNS))
    bundle = linear_bundle(tmp_path / "m", weights=np.ones((COLUMNS, 2)), bias=[0, 0], columns=names)
    rng = np.random.default_rng(0)
    part = pa.table([*rng.random((COLUMNS, few)), rng.integers(0, 2, few)], names=[*names, "label"])
    paths = [tmp_path / f"{times}.{form}" for times in (1, 5)]
    for path, times in zip(paths, (1, 5), strict=True):
        write(pa.concat_tables([part] * times), path)
    command = [sys.executable, "-c", CODE, str(bundle.path), *map(str, paths)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    rows, peaks = json.loads(done.stdout)
    assert rows == [few, 5 * few]
    features = 4 * few * COLUMNS * 8
    growth = peaks[1] - peaks[0]
    assert growth < features / 2, (growth / 1e6, features / 1e6, peaks)


def write(table: pa.Table, path: Path) -> None:
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(table, path, use_dictionary=False, data_page_size=2**16)
    elif path.suffix == ".csv":
        pyarrow.csv.write_csv(table, path)
    else:
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as file:
            file.write_table(table, max_chunksize=10_000)
