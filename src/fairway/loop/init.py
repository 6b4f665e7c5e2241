"""The verb ``init``: look at a checkpoint and a data file, and write a ``fairway.toml`` to start from."""

from __future__ import annotations

import math
import os
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fairway.core.errors import InvalidConfig
from fairway.core.manifest import NAME
from fairway.settings import FILE

if TYPE_CHECKING:
    from fairway.sources.inspect import DataLook, SourceLook
    from fairway.sources.tables import Table


def init(
    source: str,
    data: Path | str,
    *,
    reference: Path | str | None = None,
    label: str | None = None,
    name: str | None = None,
    trust: bool = False,
    out: Path | str = FILE,
    replace: bool = False,
) -> Path:
    """Write a commented ``fairway.toml``; returns its path. Nothing is converted or run.

    Parameters
    ----------
    source : str
        A checkpoint's path, or ``module:callable``.
    data : path, pattern, URL or query
        The test set, as ``[data] test``. ``reference`` is data such as the model was trained on, if there is any.
    label : str, optional
        The column to predict; guessed from the data by default.
    name : str, optional
        The model's name; by default from the checkpoint's.
    trust : bool, default False
        Let the checkpoint run code that it carries (a pickle, say).

    Raises
    ------
    InvalidConfig
        If the file exists and ``replace`` is not set, or the name or label cannot be used.
    InvalidSource, UntrustedSource, InvalidData
        If the checkpoint or data file cannot be read.
    """
    from fairway.core.errors import UntrustedSource
    from fairway.sources.inspect import inspect_data, inspect_source
    from fairway.sources.tables import load_table

    target = Path(out)
    if target.exists() and not replace:
        raise InvalidConfig(f"{target} exists; edit it, or write another with --replace")
    looked = inspect_source(source)
    if looked.needs_trust and not trust:
        raise UntrustedSource(
            f"{source} is {looked.why}: reading it runs code that it carries. If you made it yourself, or trust whoever did as "
            "you would trust a program, run this again with --trust; else ask for it as ONNX or safetensors"
        )
    table = load_table(data)
    seen = inspect_data(table)
    label = label or seen.label or ""
    if label and label not in table.columns:
        raise InvalidConfig(f"{data} has no column {label!r}; it has: {', '.join(table.columns[:20])}")
    model = name or _name(source)
    if not NAME.fullmatch(model):
        raise InvalidConfig(f"{model!r} cannot name a model; give --name with letters, digits, '.', '_' and '-'")
    text = _text(model, source, looked, seen, table, target, str(data), str(reference or ""), label, trust)
    tomllib.loads(text)  # what we write, we can read
    partial = target.with_name(f".{target.name}.part")
    try:
        partial.write_text(text, "utf-8")
        partial.replace(target)
    except OSError as error:
        raise InvalidConfig(f"cannot write {target}: {error.strerror}; choose another place with --out") from None
    return target


def _text(
    model: str,
    source: str,
    looked: SourceLook,
    seen: DataLook,
    table: Table,
    target: Path,
    data: str,
    reference: str,
    label: str,
    trust: bool,
) -> str:
    task = looked.task or seen.task or "classification"
    lines = [
        "# One model's whole life. Paths are relative to this file. `fairway --help` lists the commands that read it.",
        "",
        "[model]",
        f"name = {_quoted(model)}",
        f"task = {_quoted(task)}  # guessed: {_one_line(looked.why)}",
        f"source = {_quoted(_relative(source, target))}  # {looked.kind}",
        *(["trust = true  # it carries code, and you said that you trust it"] if trust and looked.needs_trust else []),
        "",
        "[data]",
        f"test = {_quoted(_relative(data, target))}  # {seen.rows:,} rows; the evaluation is made on them",
        f"reference = {_quoted(_relative(reference, target))}"
        + ("" if reference else "  # rows such as it was trained on: they calibrate int8 and are the drift baseline"),
        f"label = {_quoted(label)}" + ("" if label else "  # the column to predict: name it, or nothing can be scored"),
        '# features = ["*"]  # glob patterns of the columns that the model takes; default: all but the label',
        "",
        "# [[slices]]  # parts of the data that must not be worse; SQL over the columns",
        '# name = "small"',
        f'# where = "{seen.features[0] if seen.features else "column"} < 0.5"',
        "",
        "# Written once; read by evaluation, optimization and release.",
        "# Bounds: min, max, slice_min, slice_max, max_drop, max_rise.",
        "[gate]",
        *_quality(task, table, label),
        f"latency_p99_ms = {{ max = 50, at_rps = {_load(source)} }}  # as served, at this many requests per second",
        f"memory_mb = {{ max = {_memory(source)} }}",
        "error_rate = { max = 0.01 }  # live traffic is judged by this and by the latencies",
        "",
        "[optimize]",
        'time_budget = "5m"',
        "",
        "[serve]",
        'host = "127.0.0.1"',
        "port = 8000",
        "",
        "[release]",
        "weight = 0.1  # share of the callers that a new version gets at first",
        "",
        "[monitor]",
        "window_s = 60.0",
        "",
    ]
    return "\n".join(lines)


def _quality(task: str, table: Table, label: str) -> list[str]:
    """A limit that this many rows can decide, above what a constant answer would score."""
    if task == "regression":
        return ["r2_score = { min = 0.5 }  # always answering the mean scores 0: set what you need"]
    if task != "classification" or not label:
        return []
    import numpy as np

    _, counts = np.unique(table.column(label).astype(str), return_counts=True)
    constant = float(counts.max() / counts.sum())
    floor = math.floor((constant + (1 - constant) / 2) * 100) / 100
    drop = math.ceil(3 * math.sqrt(0.02 / max(table.rows, 1)) / 0.005) * 0.005
    return [
        f"accuracy_score = {{ min = {floor:g}, max_drop = {drop:g} }}"
        f"  # always answering the most frequent class scores {constant:.2f}: set what you need.",
        f"#   {table.rows:,} rows can hardly tell a smaller drop than that from none; more rows can",
    ]


def _memory(source: str) -> int:
    """Generous: the runtime's own 150 MB, and the weights three times over."""
    return 300 + 100 * math.ceil(3 * _size(source) / 1e8)


def _load(source: str) -> int:
    """Measuring takes 1,000 requests: seconds for a small model; a large one would not keep up with many at once."""
    return 200 if _size(source) < 1e7 else 20


def _size(source: str) -> int:
    path = Path(source)
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else []
    return sum(file.stat().st_size for file in files)


def _relative(path: str, target: Path) -> str:
    if not path or (":" in path and not Path(path).exists()):
        return path
    return Path(os.path.relpath(Path(path).absolute(), target.absolute().parent)).as_posix()


def _name(source: str) -> str:
    return source.partition(":")[0].rpartition(".")[2] if ":" in source else Path(source).stem


def _quoted(text: str) -> str:
    import msgspec

    return msgspec.json.encode(text).decode()  # a JSON string is a TOML basic string


def _one_line(value: Any) -> str:
    return " ".join(str(value).split())[:80]
