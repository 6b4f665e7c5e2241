"""What ``[model]`` and ``[data]`` in ``fairway.toml`` may say."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

Task: TypeAlias = Literal["classification", "regression", "embedding"]
"""What a model is for; it decides which output is the prediction and which metrics apply."""


class ModelSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The model and where it comes from.

    Attributes
    ----------
    name : str
        Letters, digits, ``.``, ``_`` and ``-``.
    source : str
        A checkpoint (``*.onnx``, ``*.keras``, a Hugging Face folder, and with ``trust`` ``*.pkl``, ``*.joblib``, ``*.pt``
        and ``*.pt2``) or ``module:callable``, imported from the folder of ``fairway.toml``. Paths are relative to it.
    task : str
        What it is for: it decides which output is the prediction, and which metrics apply.
    trust : bool, default False
        Let the checkpoint run code that it carries. Only for files that you made.
    labels : tuple of str
        Class names in the order of the model's scores, where the checkpoint does not say.
    """

    name: str
    source: str
    task: Task = "classification"
    trust: bool = False
    labels: tuple[str, ...] = ()


class DataSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The data files: csv, tsv, parquet, arrow, feather or npz. Paths are relative to ``fairway.toml``.

    Attributes
    ----------
    test : str
        Rows that the model has not seen; the evaluation is made on them.
    reference : str
        Rows such as the model was trained on: they check conversions, calibrate quantization and are the drift baseline.
        Empty: the test rows serve.
    label : str
        The column to predict; empty if there is none.
    features : tuple of str
        Glob patterns of the columns that the model takes, in the table's order. Empty: all but the label.
    """

    test: str
    reference: str = ""
    label: str = ""
    features: tuple[str, ...] = ()
