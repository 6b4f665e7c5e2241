"""What ``[model]`` and ``[data]`` in ``fairway.toml`` may say."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec

Task: TypeAlias = Literal[
    "classification",
    "multi-label",
    "regression",
    "ranking",
    "token-classification",
    "embedding",
    "generation",
    "segmentation",
    "detection",
]
"""What a model is for; it decides which output is the prediction and which metrics apply."""


_Pixels: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=16_384)]


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
    engine : str
        What the bundle runs on: ``onnxruntime``, or ``torch`` for a torch module or a Hugging Face folder, as an exported
        program; on a GPU, say. It is compared with its ONNX graph on the CPU, in FP32.
    options : dict
        Of the torch engine: ``device`` (``cpu``, ``cuda``), ``mode`` (``eager``, ``compiled``, ``aot``), ``precision``
        (``fp32``, ``bf16``, ``fp16``), and how several processes share it. Of ONNX Runtime: ``providers``, such as
        ``["CUDAExecutionProvider"]``, which are offered each operator in turn; what they lack runs on the CPU.
    """

    name: str
    source: str
    task: Task = "classification"
    trust: bool = False
    labels: tuple[str, ...] = ()
    engine: Literal["onnxruntime", "torch"] = "onnxruntime"
    options: dict[str, str | int | float | list[str]] = {}

    def __post_init__(self) -> None:
        """Raise ``ValueError`` for options that nothing reads."""
        if self.engine == "torch":
            return
        if others := sorted(self.options.keys() - {"providers"}):
            raise ValueError(f'options.{others[0]} is no option of ONNX Runtime; leave it out, or set engine = "torch"')
        if not isinstance(self.options.get("providers", []), list):
            raise ValueError('options.providers is a list of names, such as ["CUDAExecutionProvider"]')


class ImageSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How images become a model's input: ``[data.image]``. By default all is taken from the input's shape and datatype.

    Images are turned as their EXIF data say, converted to the input's channels, and resized to its height and width.

    Attributes
    ----------
    size : tuple of int
        ``[HEIGHT, WIDTH]``, where the input takes any size, or all pixels in one axis.
    mode : str
        ``L`` (gray), ``RGB`` or ``RGBA``; ``auto`` is what the input has channels for, and RGB if it takes any number.
    layout : str
        ``channels-first``, ``channels-last``, or as the shape says.
    fit : str
        Where width and height have another ratio: ``stretch``, ``crop`` the middle, or ``pad`` with black.
    resample : str
        ``nearest``, ``bilinear``, ``bicubic`` or ``lanczos``, as Pillow does them.
    scale : float or None
        What pixels of 0 to 255 are multiplied by, for an input of floats. ``None`` is 1 / 255.
    mean, std : tuple of float
        Per channel: subtracted after scaling, and then divided by. Empty: 0 and 1.
    """

    size: Annotated[tuple[_Pixels, ...], msgspec.Meta(max_length=2)] = ()
    mode: Literal["auto", "L", "RGB", "RGBA"] = "auto"
    layout: Literal["auto", "channels-first", "channels-last"] = "auto"
    fit: Literal["stretch", "crop", "pad"] = "stretch"
    resample: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bilinear"
    scale: float | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


class DataSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The data. Paths are relative to ``fairway.toml``.

    ``test``, ``reference`` and ``train`` each are one of

    - a file: csv, tsv, jsonl, parquet, arrow, feather or npz; text files may be compressed (``.csv.gz``);
    - a folder or a pattern (``data/*.parquet``) of such files, where a folder ``year=2024`` is a column ``year``;
    - a folder of images: one folder per class, or a ``metadata.csv``, ``.jsonl`` or ``.parquet`` with a column ``file_name``;
    - a folder that Hugging Face's ``save_to_disk`` wrote, with ``#test`` behind it for one split of several;
    - an fsspec URL of any of these, such as ``s3://bucket/test.parquet``;
    - ``sql:SELECT …``, or ``sql:FILE.sql``: the rows of a query.

    Attributes
    ----------
    test : str
        Rows that the model has not seen; the evaluation is made on them.
    reference : str
        Rows such as the model was trained on: they check conversions, calibrate quantization and are the drift baseline.
        Empty: the test rows serve.
    train : str
        Rows that a smaller model learns from (``fairway distill``). Empty: the reference rows.
    label : str
        The column to predict; empty if there is none.
    features : tuple of str
        Glob patterns of the columns that the model takes, in the table's order. Empty: all but the label.
    types : dict
        Of columns in csv, tsv and jsonl files, where what is inferred is not what is meant: ``bool``, ``int``, ``float``,
        ``text``, ``date`` or ``time``.
    image : ImageSettings
        How images become the model's input.
    database : str
        Where ``sql:`` queries run: ``sqlite:///FILE``, ``duckdb:///FILE`` or another SQLAlchemy URL. ``env:NAME`` takes it from
        that environment variable, which is the place for a URL with a password. Empty: DuckDB, over files that the query names.
    """

    test: str
    reference: str = ""
    train: str = ""
    label: str = ""
    features: tuple[str, ...] = ()
    types: dict[str, str] = {}
    image: ImageSettings = ImageSettings()
    database: str = ""
