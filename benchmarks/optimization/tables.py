"""Rows of a text task, and where what is trained here is kept."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

CACHE = Path(__file__).parents[2] / ".bench" / "optimization"
"""Checkpoints and tables: made once, ignored by git."""

Rows: TypeAlias = list[tuple[str, int]]
"""Texts with the index of their class."""


def write_rows(path: Path, rows: Rows) -> None:
    """As Parquet, with the columns ``text`` and ``label``."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts, labels = zip(*rows, strict=True)
    pq.write_table(pa.table({"text": list(texts), "label": list(labels)}), path)
