"""Exported torch programs (``.pt2``) without what could run code: checked, and rewritten, before torch sees them.

``torch.export.load`` unpickles weights, constants and example inputs that the archive marks as pickled, evaluates sizes as
Python expressions, imports modules that a pytree names, runs guards as Python code, and resolves an operator such as
``torch.os.system``. None of this is needed for a program of ATen operators, so nothing of it is let through.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from fairway.core.errors import InvalidBundle
from fairway.core.extras import require

_MODEL = "models/model.json"
_SAMPLES = "data/sample_inputs/model.pt"
_CONFIGS = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")
_PLAIN = (*_CONFIGS, _MODEL, _SAMPLES, "archive_format", "archive_version", "byteorder", ".data/version")
_TENSOR = re.compile(r"data/(weights/weight|constants/tensor)_\d+")
_UNREAD = (".data/serialization_id", ".format_version", ".storage_alignment", "version")

_OPERATOR = re.compile(
    r"torch\.ops\.aten\.(?!from_file|save|load)[a-z0-9_]+\.[A-Za-z0-9_]+"
    r"|_operator\.(getitem|add|sub|mul|floordiv|truediv|mod|neg|pow|eq|ne|lt|le|gt|ge|and_|or_)"
    r"|math\.(ceil|floor|trunc|sqrt)|torch\.sym_(int|float|max|min|not|ite|sqrt)"
)
_WORDS = (
    "none", "tanh", "mean", "sum", "prod", "amax", "amin", "floor", "trunc", "left", "right", "ij", "xy", "constant",
    "reflect", "replicate", "circular",
)  # fmt: skip
"""Texts that operators are given. None of them is a path that anybody would mind."""
_EXPRESSION = {
    "Symbol", "Integer", "Rational", "Add", "Mul", "Pow", "Max", "Min", "FloorDiv", "Mod", "PythonMod", "CleanDiv", "CeilDiv",
    "IntTrueDiv", "FloorToInt", "ToFloat", "Eq", "Ne", "Lt", "Le", "Gt", "Ge", "positive", "integer", "nonnegative",
    "negative", "True", "False",
}  # fmt: skip
_TREES = (None, "builtins.tuple", "builtins.list", "builtins.dict")


def read_program(path: Path) -> Any:
    """The ``ExportedProgram`` in ``path``.

    Raises
    ------
    InvalidBundle
        If it is none, was exported by a torch that this one does not read, or holds what could run code.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InvalidBundle(f"{path.name} cannot be read: {error.strerror}") from None
    return load_program(content, path.name)


def load_program(content: bytes, name: str) -> Any:
    """The ``ExportedProgram`` that a file of that name holds. Raises as :func:`read_program` does."""
    torch = require("torch", extra="torch")
    clean = clean_program(content, name)
    try:
        return torch.export.load(io.BytesIO(clean))
    except Exception as error:
        made = _exporter(clean)
        raise InvalidBundle(
            f"torch {torch.__version__} cannot load {name}, which torch {made} exported ({_first_line(error)}); install "
            f"torch {made}, or export the model again with this one"
        ) from error


def clean_program(content: bytes, name: str = "the program") -> bytes:
    """The same program, and nothing else: no pickles, no compiled code, no notes of the machine that exported it.

    The same program gives the same bytes.

    Raises
    ------
    InvalidBundle
        Naming what is not let through.
    """
    try:
        files = _files(content)
        documents = {file: json.loads(files[file]) for file in (*_CONFIGS, _MODEL)}
        _check(documents)
    except _Refused as refused:
        raise InvalidBundle(f"{name}: {refused}; export it with fairway, or serve this model as ONNX") from None
    except (zipfile.BadZipFile, LookupError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidBundle(f"{name} is no exported torch program (.pt2), or is cut off: {error}") from None
    program = documents[_MODEL]
    program["guards_code"] = []
    for node in _dicts(program):
        if "target" in node and "metadata" in node:
            node["metadata"] = {}
    files[_MODEL] = json.dumps(program).encode()
    files[_SAMPLES] = b""
    return _archive(files)


class _Refused(Exception):
    """Why a program is not let through."""


_ENCRYPTED = 1


def _files(content: bytes) -> dict[str, bytes]:
    """The archive's files, without the folder that they lie in."""
    files: dict[str, bytes] = {}
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for entry in archive.infolist():
            name = PurePosixPath(*PurePosixPath(entry.filename).parts[1:]).as_posix()
            if name in _UNREAD:
                continue
            if name not in _PLAIN and not _TENSOR.fullmatch(name):
                raise _Refused(f"it holds {name!r}, which is neither the graph nor a tensor")
            if name in files:
                raise _Refused(f"it holds {name!r} twice")
            if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & _ENCRYPTED:
                raise _Refused(f"{name!r} in it is compressed or encrypted, as torch writes none")
            files[name] = archive.read(entry)
    return files


def _check(documents: dict[str, Any]) -> None:
    for config in _CONFIGS:
        for tensor, entry in documents[config]["config"].items():
            if entry["use_pickle"] or entry["tensor_meta"] is None:
                raise _Refused(f"{tensor!r} is pickled")
    for symbol in documents[_MODEL]["range_constraints"]:
        _check_expression(symbol)
    for part in _dicts(documents[_MODEL]):
        _check_part(part)


def _check_part(part: dict[str, Any]) -> None:
    """A node, an argument, a size or a signature: whatever the graph is made of."""
    for key in ("target", "as_operator"):
        operator = part.get(key)
        if isinstance(operator, str) and not _OPERATOR.fullmatch(operator):
            raise _Refused(f"it calls {operator!r}, which is no operator of ATen")
    for text in (part.get("as_string"), *(part.get("as_strings") or ())):
        if text is not None and text not in _WORDS:
            raise _Refused(f"an operator is given the text {text!r}")
    if "as_custom_obj" in part or "as_graph" in part:
        raise _Refused("it holds an object or a graph within the graph")
    if isinstance(part.get("expr_str"), str):
        _check_expression(part["expr_str"])
    for key in ("in_spec", "out_spec"):
        if part.get(key):
            _check_tree(json.loads(part[key])[1])


def _check_expression(text: str) -> None:
    """It is evaluated by SymPy, which is Python's ``eval``."""
    bare = re.sub(r"'[a-z]+\d*'", "", text)
    words = {word for word in re.findall(r"[^\W\d]\w*", bare) if not re.fullmatch(r"[su]\d+", word)}
    if words - _EXPRESSION or not re.fullmatch(r"[\w\s(),=+*/<>-]*", bare):
        raise _Refused(f"a size is {text!r}, which is no arithmetic of sizes")


def _check_tree(tree: dict[str, Any]) -> None:
    if tree["type"] not in _TREES:
        raise _Refused(
            f"it takes or gives a {tree['type']!r}; only tensors, tuples, lists and dictionaries can be read"
        )
    for part in tree["children_spec"]:
        _check_tree(part)


def _dicts(value: Any) -> Iterator[dict[str, Any]]:
    """Every dictionary in a JSON document."""
    if isinstance(value, dict):
        yield value
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _dicts(part)


def _archive(files: dict[str, bytes]) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            archive.writestr(zipfile.ZipInfo(f"program/{name}"), files[name])
    return held.getvalue()


def _exporter(content: bytes) -> str:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return str(json.loads(archive.read(f"program/{_MODEL}")).get("torch_version", "of another version"))


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
