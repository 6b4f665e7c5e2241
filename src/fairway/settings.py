"""Reads ``fairway.toml`` and ``FAIRWAY_*`` variables: the only reader of settings files and of the environment."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import msgspec

from fairway.core.compute import ComputeSettings
from fairway.core.errors import InvalidConfig
from fairway.core.gate import Limit, check_gate
from fairway.core.metrics import declare
from fairway.evaluation.settings import (
    CheckSettings,
    EvaluationSettings,
    SliceSettings,
    TrackingSettings,
    metric_name,
)
from fairway.monitoring.settings import MonitorSettings
from fairway.optimization.distillation.settings import DistillationSettings
from fairway.optimization.settings import OptimizationSettings
from fairway.registry.settings import RegistrySettings
from fairway.rollout.settings import ReleaseSettings
from fairway.serving.settings import ServeSettings
from fairway.sources.settings import DataSettings, ModelSettings

FILE = "fairway.toml"


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One model's whole life. Every table has good defaults but ``[model]`` and ``[data]``.

    A registry and a server need neither, so both may be absent; a command that needs them says so.
    """

    model: ModelSettings | None = None
    data: DataSettings | None = None
    slices: tuple[SliceSettings, ...] = ()
    checks: tuple[CheckSettings, ...] = ()
    gate: dict[str, Limit] = {}
    evaluate: EvaluationSettings = EvaluationSettings()
    compute: ComputeSettings = ComputeSettings()
    tracking: TrackingSettings = TrackingSettings()
    distill: DistillationSettings = DistillationSettings()
    optimize: OptimizationSettings = OptimizationSettings()
    registry: RegistrySettings = RegistrySettings()
    serve: ServeSettings = ServeSettings()
    release: ReleaseSettings = ReleaseSettings()
    monitor: MonitorSettings = MonitorSettings()


def read_settings(path: Path, environ: Mapping[str, str] = os.environ) -> Settings:
    """Read ``path``; a variable such as ``FAIRWAY_SERVE_PORT`` wins over its key.

    Raises
    ------
    InvalidConfig
        Naming the file, the line or key, and the nearest valid name.
    """
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise InvalidConfig(f"{path} does not exist; write one with: fairway init CHECKPOINT DATA") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidConfig(f"{path} cannot be read: {error}") from None
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidConfig(f"{path} is not TOML: {error}") from None
    return _convert(tables, environ, str(path), text)


def default_settings(environ: Mapping[str, str] = os.environ) -> Settings:
    """The defaults and the environment, where there is no file."""
    return _convert({}, environ, "the environment", "")


def _convert(tables: dict[str, Any], environ: Mapping[str, str], where: str, text: str) -> Settings:
    try:
        settings = msgspec.convert(tables, Settings)
    except msgspec.ValidationError as error:
        raise InvalidConfig(_explain(str(error), where, text)) from None
    for reference in settings.evaluate.metrics:
        try:
            declare(metric_name(reference))
        except InvalidConfig as error:
            raise InvalidConfig(f"{where}{_line(text, 'evaluate', 'metrics')}: evaluate.metrics: {error}") from None
    for name, limit in settings.gate.items():
        try:
            check_gate({name: limit})
        except InvalidConfig as error:
            raise InvalidConfig(f"{where}{_line(text, 'gate', name)}: {error}") from None
    return _with_environment(settings, environ)


def _with_environment(settings: Settings, environ: Mapping[str, str]) -> Settings:
    changed: dict[str, Any] = {}
    for table in ("registry", "serve", "release", "monitor", "optimize", "distill", "evaluate", "compute", "tracking"):
        part = getattr(settings, table)
        prefix = f"FAIRWAY_{table.upper()}_"
        given = {name.removeprefix(prefix).lower(): name for name in environ if name.startswith(prefix)}
        if not given:
            continue
        for key, name in given.items():
            if key not in part.__struct_fields__:
                raise InvalidConfig(f"{name} sets nothing; {_nearest(key, part.__struct_fields__)}")
        values = {key: _value(environ[name], getattr(part, key)) for key, name in given.items()}
        try:
            whole = {**msgspec.to_builtins(part), **values}
            changed[table] = msgspec.convert(whole, type(part), strict=False)
        except msgspec.ValidationError as error:
            raise InvalidConfig(f"{', '.join(given.values())}: {error}") from None
    return msgspec.structs.replace(settings, **changed)


def _value(text: str, default: Any) -> Any:
    """A list is written with commas."""
    return [item.strip() for item in text.split(",") if item.strip()] if isinstance(default, tuple) else text


def _explain(message: str, where: str, text: str) -> str:
    """Msgspec says what is wrong and where in the tree: add the line, and the nearest valid name."""
    problem, _, path = message.partition(" - at `$")
    path = path.rstrip("`").lstrip(".").replace("[...]", "")
    unknown = re.search(r"unknown field `(.+?)`", problem)
    if unknown is None:
        table, _, key = path.rpartition(".")
        line = _line(text, table, key)
        choices = _choices(table, key) if problem.startswith("Invalid enum value") else ()
        hint = f"; {_nearest(problem.split(chr(39))[1], choices)}" if choices else ""
        return f"{where}{line}: {path or 'the file'}: {problem[0].lower()}{problem[1:]}{hint}"
    key = unknown[1]
    fields = _fields(path)
    key_path = f"{path}.{key}" if path else key
    return f"{where}{_line(text, path, key)}: unknown key {key_path!r}; {_nearest(key, fields)}"


def _fields(path: str) -> tuple[str, ...]:
    """The keys that are valid in the table at ``path``."""
    return tuple(_struct_at(path).__struct_fields__)


def _struct_at(path: str) -> Any:
    """The struct that reads the table at ``path``, such as ``serve.models`` or ``checks[1].change``."""
    kind: Any = Settings
    for part in filter(None, re.sub(r"\[.*?\]", "", path).split(".")):
        fields = {field.encode_name: field.type for field in msgspec.structs.fields(kind)}
        inner = _struct(fields[part]) if part in fields else None
        kind = inner or kind  # the name of an entry, as in a table of tables, leads to no other struct
    return kind


def _struct(kind: Any) -> Any:
    """The struct in a type, such as that of a tuple's or dict's elements; ``None`` if there is none."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return kind
    return next(filter(None, map(_struct, get_args(kind))), None)


def _choices(path: str, key: str) -> tuple[str, ...]:
    """The words that a key of the table at ``path`` takes, if it takes one of several."""
    kind: Any = _struct_at(path)
    field = next((each.type for each in msgspec.structs.fields(kind) if each.encode_name == key), None)
    return tuple(map(str, get_args(field)))


def _nearest(key: str, valid: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(key, valid, n=1)
    return f"did you mean {near[0]!r}?" if near else f"valid here: {', '.join(valid)}"


def _line(text: str, table: str, key: str) -> str:
    """``, line N`` of ``key`` in ``table`` (``slices[1]`` is the second of its name), or nothing if it cannot be told."""
    name, _, rest = table.partition("[")
    nth = rest.partition("]")[0]  # what follows, as in checks[0].change, is written within that entry
    wanted, seen, inside = int(nth or 0), -1, not table
    for number, line in enumerate(text.splitlines(), 1):
        header = re.match(r"\s*\[\[?\s*([\w.\"-]+)\s*\]\]?", line)
        if header:
            seen += header[1] == name
            inside = (header[1] == name and seen == wanted) or (
                name == "serve.models" and header[1].startswith(name)  # a table of tables
            )
            if not table and header[1].partition(".")[0] == key:
                return f", line {number}"
        elif inside and re.search(rf"\b{re.escape(key)}\"?\s*=", line):  # at its start, or in an inline table
            return f", line {number}"
    return ""
