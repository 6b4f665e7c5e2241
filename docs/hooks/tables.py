"""MkDocs hook: what the code can say about itself is made from the code, so that no page goes stale.

A line ``<!-- settings: serve -->`` in a page gives way to that table of keys; ``<!-- metrics -->``, ``<!-- passes -->``,
``<!-- errors -->`` and ``<!-- prometheus: serving -->`` likewise.
"""

from __future__ import annotations

import inspect
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

from fairway.cli.errors import EXIT_CODES
from fairway.core import errors
from fairway.core.gate import Limit
from fairway.core.metrics import METRICS
from fairway.monitoring.metrics import MonitorMetrics
from fairway.optimization.passes.base import Pass
from fairway.optimization.registry import passes
from fairway.serving.status import WIRE
from fairway.serving.telemetry import Telemetry
from fairway.settings import Settings

MARKER = re.compile(r"^<!-- (\w+)(?:: ([\w.]+))? -->$", re.MULTILINE)
ROLE = re.compile(r":(?:func|class|meth|mod|data|attr|exc):`~?(?:[\w.]*\.)?(\w+)`")
ROLE_IN_HTML = re.compile(r":(?:func|class|meth|mod|data|attr|exc):<code>~?(?:[\w.]*\.)?(\w+)</code>")
ADVICE = Path(__file__).parents[1] / "reference" / "advice.toml"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace markers by what they stand for."""
    return MARKER.sub(lambda found: made(found[1], found[2] or ""), markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Sphinx roles in docstrings, which Markdown does not know, become plain code."""
    return ROLE_IN_HTML.sub(r"<code>\1</code>", html)


def made(what: str, argument: str = "") -> str:
    """The text for one marker."""
    makers: dict[str, Callable[..., str]] = {
        "settings": settings_table,
        "metrics": metrics_table,
        "passes": passes_table,
        "errors": errors_page,
        "prometheus": prometheus,
    }
    return makers[what](argument) if argument else makers[what]()


# -- passes


def passes_table() -> str:
    """Every optimization pass, as it describes itself."""
    rows = (
        (
            f"`{each.name}`",
            each.summary,
            ", ".join(sorted(each.changes)),
            "yes" if each.lossless else "no",
            ", ".join(
                (
                    *(f"`fairway[{e}]`" for e in each.needs.extras if e != "optimize"),
                    *(("rows",) if each.needs.data else ()),
                )
            ),
            "<br>".join(f"`{name}` {p.summary}" for name, p in each.parameters.items()),
        )
        for each in passes().values()
    )
    return _table(("pass", "what it does", "changes", "exact", "needs", "parameters"), rows)


def _extras(described: Pass) -> list[str]:
    return [f"`fairway[{extra}]`" for extra in described.needs.extras if extra != "optimize"]


# -- settings


def settings_table(name: str) -> str:
    """The keys of one table of fairway.toml."""
    kind = struct_of(name)
    about = attributes(kind)
    rows = ((f"`{field.name}`", _type(field.type), _default(field), about[field.name]) for field in _fields(kind))
    return _table(("key", "type", "default", "meaning"), rows)


def struct_of(name: str) -> type[msgspec.Struct]:
    """The struct that reads the table ``name``."""
    if name == "gate":
        return Limit
    kind: type[msgspec.Struct] = Settings
    for part in name.split("."):
        found: Any = next(field.type for field in _fields(kind) if field.name == part)
        while not isinstance(found, msgspec.inspect.StructType):
            match found:
                case msgspec.inspect.UnionType():
                    found = found.types[0]
                case msgspec.inspect.DictType():
                    found = found.value_type
                case _:
                    found = found.item_type
        kind = found.cls
    return kind


def _fields(kind: type[msgspec.Struct]) -> Sequence[msgspec.inspect.Field]:
    found = msgspec.inspect.type_info(kind)
    assert isinstance(found, msgspec.inspect.StructType)
    return found.fields


def attributes(kind: type[msgspec.Struct]) -> dict[str, str]:
    """What the docstring says about every field. Raises ``KeyError`` for a field that it does not name."""
    _, _, section = inspect.cleandoc(kind.__doc__ or "").partition("Attributes\n----------\n")
    found: dict[str, str] = {}
    names: list[str] = []
    for line in section.splitlines():
        if line and not line[0].isspace():
            names = [name.strip() for name in line.partition(" : ")[0].split(",")]
            found |= dict.fromkeys(names, "")
        else:
            found |= {name: f"{found[name]} {line.strip()}".strip() for name in names}
    return {field: _plain(found[field]) for field in kind.__struct_fields__}


def _type(kind: Any) -> str:
    """In TOML's words."""
    match kind:
        case msgspec.inspect.UnionType():
            return " or ".join(_type(each) for each in kind.types if not isinstance(each, msgspec.inspect.NoneType))
        case msgspec.inspect.VarTupleType():
            return f"array of {_type(kind.item_type)}s"
        case msgspec.inspect.DictType() | msgspec.inspect.StructType():
            return "table"
        case msgspec.inspect.LiteralType():
            return "one of " + ", ".join(f'`"{value}"`' for value in kind.values)
    word = {"Int": "integer", "Float": "float", "Str": "string", "Bool": "boolean"}[
        type(kind).__name__.removesuffix("Type")
    ]
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    limits = [f"{sign} {end:,g}" for name, sign in signs.items() if (end := getattr(kind, name, None)) is not None]
    return ", ".join([word, *limits])


def _default(field: msgspec.inspect.Field) -> str:
    if field.required:
        return "required"
    value = field.default
    if value is None or value is msgspec.NODEFAULT:  # a table that is empty
        return "none"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"`{value:_}`" if value >= 10_000 else f"`{value}`"
    return f"`{msgspec.json.encode(value).decode().replace(',', ', ')}`"


# -- metrics, errors, Prometheus


def metrics_table() -> str:
    """Every metric that a gate may limit."""
    rows = (
        (
            f"`{metric.name}`",
            metric.description,
            "high" if metric.higher_is_better else "low",
            ", ".join(metric.tasks) or "all",
        )
        for metric in METRICS.values()
    )
    return _table(("metric", "what it is", "better", "tasks"), rows)


def errors_page() -> str:
    """A table of all errors, then a section for each."""
    advice = tomllib.loads(ADVICE.read_text("utf-8"))
    leaves = [kind for kind in error_classes() if kind is not errors.FairwayError]
    if {kind.code for kind in leaves} != set(advice):
        raise KeyError(f"{ADVICE.name} and core/errors.py differ: {sorted({k.code for k in leaves} ^ set(advice))}")
    overview = _table(
        ("code", "class", "HTTP", "exit code", "again?"),
        (
            (
                f"[`{k.code}`](#{k.code})",
                f"`{k.__name__}`",
                str(WIRE[k.code].http),
                str(EXIT_CODES[k.code]),
                "later" if WIRE[k.code].queue == "retry" else "no",
            )
            for k in leaves
        ),
    )
    sections = (
        f"### `{k.code}` {{ #{k.code} }}\n\n{_plain(inspect.getdoc(k) or '')}\n\n{advice[k.code].strip()}"
        for k in leaves
    )
    return "\n\n".join((overview, *sections))


def error_classes(base: type[errors.FairwayError] = errors.FairwayError) -> Iterator[type[errors.FairwayError]]:
    """All errors of ``fairway.core.errors``, in the order of their definition."""
    kinds = (kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, base))
    yield from kinds


def prometheus(part: str = "serving") -> str:
    """Every Prometheus metric of a server (``serving``), or of its windows and drift (``monitoring``)."""
    rows = (
        (
            f"`{family.name}{'_total' if family.type == 'counter' else ''}`",
            family.type,
            ", ".join(f"`{label}`" for label in labels) or "none",
            family.documentation,
        )
        for family, labels in _families(part)
    )
    return _table(("metric", "type", "labels", "what it is"), rows)


def _families(part: str) -> Iterator[tuple[Any, Sequence[str]]]:
    if part == "serving":
        yield from ((family, getattr(family, "_labelnames", ())) for family in Telemetry().collect())
        return
    for metric in vars(MonitorMetrics(CollectorRegistry())).values():
        if isinstance(metric, MetricWrapperBase):
            yield next(iter(metric.describe())), metric._labelnames


def _plain(text: str) -> str:
    return ROLE.sub(r"`\1`", text).replace("``", "`")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |" for line in lines
    )
