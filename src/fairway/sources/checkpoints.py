"""From what a user names to a loaded model: by path, by ``module:callable``, or live."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from fairway.core.errors import InvalidSource, UntrustedSource
from fairway.core.extras import require
from fairway.sources.callables import call_source
from fairway.sources.candidate import Source
from fairway.sources.lineage import path_digest, relative_name

REFERENCE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
"""``module:callable``."""

PICKLES = (".pkl", ".pickle", ".joblib")
TORCH_FILES = (".pt", ".pth", ".pt2")
ACCEPTED = "*.onnx, *.keras, a Hugging Face folder, module:callable and, with trust, *.pkl, *.joblib, *.pt and *.pt2"


def open_source(source: object, *, root: Path, trust: bool) -> Source:
    """Load what ``source`` names, or take it as it is if it is a live model.

    Raises
    ------
    InvalidSource
        If there is nothing there, or it is of no known kind.
    UntrustedSource
        If reading it would run code that it carries, and ``trust`` is not set.
    """
    if isinstance(source, Path) or (isinstance(source, str) and not REFERENCE.fullmatch(source)):
        return _open_path(root / source, root=root, trust=trust)
    if isinstance(source, str):
        return _open_callable(source, root=root, trust=trust)
    kind = type(source[0] if isinstance(source, tuple) and source else source)
    return _live(source, name=f"{kind.__module__}.{kind.__qualname__}")


def refuse_untrusted(path: Path, reason: str, instead: str = "") -> UntrustedSource:
    """The error for a checkpoint that carries code: why, and what to do."""
    return UntrustedSource(
        f"{path} {reason}. If you made it yourself, or trust whoever did as you would trust a program, set trust = true in "
        f"[model] or pass --trust.{' ' + instead if instead else ''}"
    )


def _open_path(path: Path, *, root: Path, trust: bool) -> Source:
    name = relative_name(path, root)
    if not path.exists():
        raise InvalidSource(f"{path} does not exist; a source is {ACCEPTED}")
    suffix = path.suffix.lower()
    if path.is_dir():
        return _open_folder(path, name, trust)
    if suffix == ".onnx":
        return Source("onnx", path, name, path_digest(path))
    if suffix == ".keras":
        from fairway.sources.keras import load_keras

        return Source("keras", load_keras(path), name, path_digest(path))
    if suffix in PICKLES:
        return _live(_unpickle(path, trust), name=name, digest=path_digest(path))
    if suffix in TORCH_FILES:
        from fairway.sources.torch import load_torch

        return _live(load_torch(path, trust=trust), name=name, digest=path_digest(path))
    raise InvalidSource(f"{path} is of no known kind; a source is {ACCEPTED}")


def _open_folder(path: Path, name: str, trust: bool) -> Source:
    if not (path / "config.json").is_file():
        raise InvalidSource(f"{path} is no Hugging Face folder (it has no config.json); a source is {ACCEPTED}")
    from fairway.sources.huggingface import check_folder

    check_folder(path, trust=trust)
    return Source("huggingface", path, name, path_digest(path))


def _open_callable(reference: str, *, root: Path, trust: bool) -> Source:
    made, file = call_source(reference, root)
    if isinstance(made, str | Path):
        opened = _open_path(root / made, root=root, trust=trust)
        return Source(opened.kind, opened.model, f"{reference} → {opened.name}", opened.digest, opened.examples)
    return _live(made, name=reference, digest=path_digest(file) if file is not None else "")


def _unpickle(path: Path, trust: bool) -> Any:
    if not trust:
        reason = "is a pickle: reading it runs whatever code it carries, before anything can be checked"
        raise refuse_untrusted(path, reason, "Or give the estimator through module:callable, or export it to ONNX.")
    joblib = require("joblib", extra="sklearn")
    try:
        return joblib.load(path)
    except Exception as error:
        raise InvalidSource(f"{path} cannot be unpickled: {type(error).__name__}: {error}") from error


def _live(made: object, *, name: str, digest: str = "") -> Source:
    """Dispatch on the type, without importing a framework that made no object."""
    model, examples = (made[0], _examples(made[1])) if isinstance(made, tuple) and len(made) == 2 else (made, ())
    for kind, types in _TYPES.items():
        if any(_is(model, *known) for known in types):
            return Source(kind, model, name, digest, examples)
    raise InvalidSource(
        f"{name} gives a {type(model).__module__}.{type(model).__qualname__}; wanted is a scikit-learn estimator, a torch "
        "module or exported program, a Keras model, (module, example_inputs) or a path"
    )


_TYPES = {  # Keras first: on its torch backend, its models are torch modules too
    "keras": (("keras", "Model"),),
    "torch": (("torch.nn", "Module"), ("torch.export", "ExportedProgram")),
    "sklearn": (("sklearn.base", "BaseEstimator"),),
}


def _is(value: object, module: str, name: str) -> bool:
    known = getattr(sys.modules.get(module), name, None)
    return isinstance(known, type) and isinstance(value, known)


def _examples(given: object) -> tuple[Any, ...]:
    return tuple(given) if isinstance(given, tuple | list) else (given,)
