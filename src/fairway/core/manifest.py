"""What a bundle holds, as data. Its canonical JSON's SHA-256 is the bundle's identity."""

from __future__ import annotations

import hashlib
import re
from typing import Annotated, Any, Literal

import msgspec

from fairway.core.errors import InvalidConfig
from fairway.core.tensors import TensorSpec

FORMAT = 1
"""The bundle format that this version writes, and the newest that it reads."""

EVIDENCE = ("evaluation.json", "baseline.json", "README.md", "bom.cdx.json")
"""Files of a packed bundle that tell of this very graph: of another one they would be untrue."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
"""Model names: safe in a path, a URL, a metric label and an OCI tag."""


class FileEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of the bundle: ``sha256`` as 64 hex digits, ``size`` in bytes."""

    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    size: Annotated[int, msgspec.Meta(ge=0)]


_NEAR = 0.1
"""A batch is large enough where the fixed cost of a call is at most this share of its rows' cost."""


class Cost(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Measured time of one engine call on ``n`` rows: ``base_us + row_us * n`` microseconds."""

    base_us: float
    row_us: float

    def of(self, rows: int) -> float:
        """Expected microseconds for ``rows`` rows."""
        return self.base_us + self.row_us * rows

    def enough(self, largest: int) -> int:
        """The batch, a power of two, from which more rows save hardly anything; at most ``largest``.

        Examples
        --------
        >>> Cost(base_us=80, row_us=100).enough(64), Cost(base_us=900, row_us=1).enough(64)
        (8, 64)
        """
        rows = 1
        while rows < largest and self.base_us > _NEAR * self.row_us * rows:
            rows *= 2
        return min(rows, largest)


_ON_CPU = frozenset(
    f"{name}ExecutionProvider" for name in ("ACL", "ArmNN", "Azure", "CPU", "Dnnl", "OpenVINO", "Vitis", "Xnnpack")
)
"""ONNX Runtime's providers that compute on the CPU, or for all that is known may."""


class EngineSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Which engine runs which file, and its tuning.

    ``threads`` 1 is right for small models: the server's parallelism is over requests. ``max_batch`` is in rows.
    ``batching``: rows of several requests may share a call, which needs a first axis of any size and answers that do not
    depend on the other rows; a dynamically quantized graph scales over all of a call's rows, so it must not.
    ``max_wait_us``: how long a batch may wait for more requests, where the server learns that waiting pays.
    ``cache_bytes``: what a server may keep of its answers, for requests that equal an earlier one.
    ``options`` are the engine's own, such as OpenVINO's ``precision``; an engine refuses those that it does not know.
    """

    name: str = "onnxruntime"
    file: str = "model.onnx"
    threads: Annotated[int, msgspec.Meta(ge=0, le=1024)] = 1
    max_batch: Annotated[int, msgspec.Meta(ge=1)] = 64
    batching: bool = True
    max_wait_us: Annotated[float, msgspec.Meta(ge=0, le=10_000_000)] = 0.0
    cache_bytes: Annotated[int, msgspec.Meta(ge=0)] = 0
    cost: Cost | None = None
    options: dict[str, Any] = {}

    @property
    def accelerated(self) -> bool:
        """Whether it computes on a device of its own, which one process keeps busy, rather than on the CPU."""
        providers = self.options.get("providers", ())
        return bool(self.options.get("device", "cpu") != "cpu") or any(each not in _ON_CPU for each in providers)


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A named, parametrized processing step that could not be fused into the graph, such as a tokenizer."""

    name: str
    parameters: dict[str, Any] = {}


class Processing(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Steps before and after the engine. A raw request skips both."""

    pre: tuple[Step, ...] = ()
    post: tuple[Step, ...] = ()


class PassRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One optimization pass that was applied: its parameters, and the graph digests before and after."""

    name: str
    parameters: dict[str, Any] = {}
    before: str = ""
    after: str = ""


class Prediction(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which output answers the task, and how to read it.

    ``kind``: ``probabilities`` or ``logits`` of shape ``[rows, classes]`` (of tokens ``[rows, tokens, tags]``, of pixels
    ``[rows, classes, height, width]``); ``label`` or ``value`` of shape ``[rows]`` or ``[rows, 1]``, being the predicted class
    itself or the predicted number; ``embedding``, a vector per row; ``token_log_probabilities`` of shape ``[rows, tokens]``,
    of each token after those before it; ``text``; ``boxes`` of shape ``[rows, boxes, 4]``, with outputs ``scores`` and
    ``labels`` beside them.
    """

    output: str
    kind: Literal["probabilities", "logits", "label", "value", "embedding", "token_log_probabilities", "text", "boxes"]


class Lineage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where a bundle comes from. Digests are ``sha256:…``; nothing here depends on when it was built."""

    source: str = ""
    source_kind: str = ""
    source_digest: str = ""
    data_digests: dict[str, str] = {}
    parent: str = ""
    code_revision: str = ""
    hyperparameters: dict[str, Any] = {}
    environment: dict[str, str] = {}


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A bundle's table of contents.

    Attributes
    ----------
    name, task
        As in ``fairway.toml``.
    inputs, outputs : tuple of TensorSpec
        What callers send and get, after pre- and post-processing.
    prediction : Prediction or None
        ``None`` when no output answers a task that Fairway can score.
    labels : tuple of str
        Class names, in the order of the scores.
    deterministic : bool
        Whether equal requests have equal answers. If not, no answer is ever taken from a cache.
    recipe : tuple of PassRecord
        The optimization passes that made the graph, in order.
    files : dict
        Every file of the bundle but the manifest and its signature.
    """

    name: str
    task: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    files: dict[str, FileEntry]
    engine: EngineSpec = EngineSpec()
    processing: Processing = Processing()
    prediction: Prediction | None = None
    labels: tuple[str, ...] = ()
    deterministic: bool = True
    recipe: tuple[PassRecord, ...] = ()
    lineage: Lineage = Lineage()
    format: int = msgspec.field(default=FORMAT)

    def encode(self) -> bytes:
        """Canonical JSON: sorted keys, no spaces, ``format`` always present."""
        data = msgspec.to_builtins(self)
        data["format"] = self.format
        return msgspec.json.encode(data, order="sorted")

    @property
    def repeatable(self) -> bool:
        """Whether equal requests have equal answers, so that an answer may be kept for the next."""
        return self.deterministic and self.task != "generation"

    @property
    def digest(self) -> str:
        """``sha256:`` and the hex digest of :meth:`encode`: the bundle's identity."""
        return "sha256:" + hashlib.sha256(self.encode()).hexdigest()


class ModelRef(msgspec.Struct, frozen=True):
    """A model, and perhaps which of its versions: ``digits``, ``digits:4`` or ``digits@champion``.

    Examples
    --------
    >>> ModelRef.parse("digits:4")
    ModelRef(name='digits', version=4, alias=None)
    >>> str(ModelRef.parse("digits@champion"))
    'digits@champion'
    """

    name: str
    version: int | None = None
    alias: str | None = None

    @classmethod
    def parse(cls, text: str) -> ModelRef:
        """Raise :class:`InvalidConfig` unless ``text`` is a reference."""
        match = re.fullmatch(rf"({NAME.pattern})(?::(\d{{1,9}})|@({NAME.pattern}))?", text)
        if match is None:
            raise InvalidConfig(
                f"{text!r} is not a model reference; write NAME, NAME:VERSION or NAME@ALIAS, such as digits:4"
            )
        name, version, alias = match.groups()
        return cls(name, int(version) if version else None, alias)

    def __str__(self) -> str:
        """The form that :meth:`parse` reads."""
        return self.name + (f":{self.version}" if self.version is not None else f"@{self.alias}" if self.alias else "")
