"""What ``fairway init`` sees: a checkpoint's kind and a data file's columns, without running or unpickling anything."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from fairway.core.errors import InvalidSource
from fairway.core.tensors import Datatype
from fairway.sources.checkpoints import ACCEPTED, PICKLES, REFERENCE, TORCH_FILES
from fairway.sources.columns import is_words
from fairway.sources.labels import as_label
from fairway.sources.settings import Task
from fairway.sources.tables import Table

_SCANNED_BYTES = 64 * 2**20
_MANY = 50
_LABELS = (
    "label",
    "target",
    "class",
    "y",
    "outcome",
    "answer",
    "digit",
    "category",
    "tags",
    "relevance",
    "species",
    "price",
    "value",
)


class SourceLook(msgspec.Struct, frozen=True):
    """What a checkpoint seems to be.

    Attributes
    ----------
    kind : str
        ``sklearn``, ``onnx``, ``torch``, ``huggingface``, ``keras`` or ``callable``.
    task : str or None
        A guess; ``None`` if nothing speaks for any.
    needs_trust : bool
        Whether reading it would run code that it carries.
    why : str
        What the guess rests on.
    """

    kind: str
    task: Task | None
    needs_trust: bool
    why: str


class DataLook(msgspec.Struct, frozen=True):
    """What a data file seems to hold.

    Attributes
    ----------
    rows : int
    columns : dict
        Datatype by column name; empty text where no tensor can hold it.
    label : str or None
        A guess at the column to predict.
    task : str or None
        A guess, from the label's values.
    features : tuple of str
        All other columns.
    """

    rows: int
    columns: dict[str, str]
    label: str | None
    task: Task | None
    features: tuple[str, ...]


def inspect_source(source: str, root: Path | None = None) -> SourceLook:
    """Look at a checkpoint. Raises :class:`InvalidSource` if there is none, or of no known kind."""
    if REFERENCE.fullmatch(source):
        return SourceLook("callable", None, False, "a function of yours")
    path = (root or Path()) / source
    suffix = path.suffix.lower()
    if not path.exists():
        raise InvalidSource(f"{path} does not exist; a source is {ACCEPTED}")
    if path.is_dir() and (path / "config.json").is_file():
        return _huggingface(path)
    if suffix == ".onnx":
        return _onnx(path)
    if suffix == ".keras":
        return _keras(path)
    if suffix in PICKLES:
        return _pickle(path)
    if suffix in TORCH_FILES:
        return SourceLook("torch", None, True, "a torch file")
    raise InvalidSource(f"{path} is of no known kind; a source is {ACCEPTED}")


def inspect_data(table: Table) -> DataLook:
    """Look at a table: its columns, the likely label and the task that this label makes."""
    kinds = {name: table.datatype(name) for name in table.columns}
    label = _label(table, kinds)
    return DataLook(
        rows=table.rows,
        columns={name: str(kind or "") for name, kind in kinds.items()},
        label=label,
        task=None if label is None else _task_of_nested(table, label) or _task_of(table.column(label)),
        features=tuple(name for name in table.columns if name != label),
    )


def _label(table: Table, kinds: dict[str, Datatype | None]) -> str | None:
    """A column of a telling name; else the last one, if it is not like the one before it."""
    by_name = {name.lower(): name for name in table.columns}
    known = next((by_name[name] for name in _LABELS if name in by_name), None)
    if known is not None or table.rows == 0 or len(table.columns) < 2:
        return known
    last, before = table.columns[-1], table.columns[-2]
    if _task_of_nested(table, last):
        return None
    values = table.column(last)
    few = values.ndim == 1 and len({as_label(value) for value in values.tolist()}) <= min(_MANY, table.rows // 2)
    return last if few and (kinds[last] is not kinds[before] or kinds[last] is Datatype.INT64) else None


def _task_of_nested(table: Table, name: str) -> Task | None:
    """What a column of lists or structs is the label of."""
    from pyarrow import types

    kind = table.schema.field(name).type
    if is_words(kind):
        return "multi-label"
    return "detection" if types.is_nested(kind) else None


def _task_of(values: Any) -> Task:
    if values.dtype.kind != "f":
        numbers = values.dtype.kind in "iu" and len(np.unique(values)) > _MANY
        return "regression" if numbers else "classification"
    known = values[np.isfinite(values)]
    whole = bool((known == np.floor(known)).all())
    return "classification" if whole and len(np.unique(known)) <= _MANY else "regression"


def _huggingface(path: Path) -> SourceLook:
    from fairway.sources.huggingface import read_json, tasks_of

    config = read_json(path / "config.json")
    architecture = str((config.get("architectures") or ["an encoder"])[0])
    pickled = not any(path.glob("*.safetensors"))
    return SourceLook("huggingface", tasks_of(config)[0], pickled, architecture)


def _onnx(path: Path) -> SourceLook:
    from fairway.core.errors import InvalidBundle
    from fairway.engines.onnxruntime import OnnxRuntimeEngine

    try:
        engine = OnnxRuntimeEngine(path)
    except InvalidBundle as error:
        raise InvalidSource(f"{path}: {error}") from error
    engine.close()
    outputs = ", ".join(f"{spec.name} {spec.datatype} {list(spec.shape)}" for spec in engine.outputs)
    scores = any(spec.datatype.is_float and len(spec.shape) == 2 and spec.shape[1] != 1 for spec in engine.outputs)
    return SourceLook("onnx", "classification" if scores else "regression", False, f"outputs {outputs}")


def _keras(path: Path) -> SourceLook:
    try:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InvalidSource(f"{path} cannot be read: {error}") from None
    layers = config.get("config", {}).get("layers") or [{}]
    last = layers[-1].get("config", {})
    task: Task = "regression" if last.get("units") == 1 and last.get("activation") == "linear" else "classification"
    return SourceLook("keras", task, False, f"the last layer is {layers[-1].get('class_name', 'unknown')}")


def _pickle(path: Path) -> SourceLook:
    """The names of classes stand in a pickle as text; reading them runs nothing."""
    with path.open("rb") as stream:
        raw = stream.read(_SCANNED_BYTES)
    names = [match.decode() for match in re.findall(rb"sklearn\.[\w.]{1,80}", raw)]
    classes = [match.decode() for match in re.findall(rb"[A-Z][A-Za-z]{2,40}", raw)]
    known = next((name for name in classes if name.endswith(("Classifier", "Regressor"))), "")
    task: Task | None = None
    if known:
        task = "regression" if known.endswith("Regressor") else "classification"
    elif names:
        known = next((name for name in classes if name in _BY_NAME), "")
        task = _BY_NAME.get(known)
    return SourceLook(
        "sklearn", task, True, f"a pickle that names {known or (names[0] if names else 'no known class')}"
    )


_BY_NAME: dict[str, Task] = {
    "LogisticRegression": "classification",
    "GaussianNB": "classification",
    "LinearSVC": "classification",
    "SVC": "classification",
    "LinearRegression": "regression",
    "Ridge": "regression",
    "Lasso": "regression",
    "ElasticNet": "regression",
    "SVR": "regression",
}
