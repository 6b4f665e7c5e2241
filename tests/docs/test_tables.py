"""The tables of the documentation are made from the code, whole; and every page is in the navigation."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from types import ModuleType

import msgspec
import pytest

from fairway.core.events import Action
from fairway.core.metrics import METRICS
from fairway.settings import Settings
from tests.docs.test_docs import ROOT

DOCS = ROOT / "docs"
SETTINGS = (DOCS / "guides" / "settings.md").read_text("utf-8")
TABLES = [*Settings.__struct_fields__, "serve.models"]


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    """The hook, imported as MkDocs does."""
    spec = importlib.util.spec_from_file_location("docs_tables", DOCS / "hooks" / "tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("table", TABLES)
def test_every_key_of_every_settings_table_is_explained(tables: ModuleType, table: str) -> None:
    assert f"<!-- settings: {table} -->" in SETTINGS
    rows = dict(re.findall(r"^\| `(\w+)` \|(.*)\|$", tables.settings_table(table), re.MULTILINE))
    fields = tables.struct_of(table).__struct_fields__
    assert list(rows) == list(fields)
    for key, row in rows.items():
        kind, default, meaning = (cell.strip() for cell in re.split(r"(?<!\\)\|", row))
        assert kind, key
        assert default, key
        assert meaning, f"{table}.{key} has no meaning in its struct's docstring"


@pytest.mark.parametrize("table", TABLES)
def test_every_default_shown_is_what_the_struct_has(tables: ModuleType, table: str) -> None:
    rows = re.findall(r"^\| `(\w+)` \|.*?\| `([^`]+)` \|", tables.settings_table(table), re.MULTILINE)
    shown = tomllib.loads("\n".join(f"{key} = {default}" for key, default in rows))
    required: dict[str, dict[str, object]] = {
        "model": {"name": "m", "source": "m.onnx"},
        "data": {"test": "t"},
        "slices": {"name": "s", "where": "w"},
        "checks": {"name": "c", "kind": "invariant", "change": {"column": "x", "add": 1.0}},
    }
    kind, given = tables.struct_of(table), required.get(table, {})
    assert shown or table in ("slices", "gate", "serve.models")
    assert msgspec.convert({**given, **shown}, kind) == msgspec.convert(given, kind)


def test_every_metric_is_listed(tables: ModuleType) -> None:
    assert re.findall(r"^\| `(\w+)` \|", tables.metrics_table(), re.MULTILINE) == list(METRICS)


def test_every_error_has_a_row_and_a_section_that_says_what_to_do(tables: ModuleType) -> None:
    page = tables.errors_page()
    codes = [kind.code for kind in tables.error_classes() if kind.code != "error"]
    assert len(codes) == len(set(codes)) > 15
    for code in codes:
        assert f"| [`{code}`](#{code}) |" in page
        section = page.partition(f"{{ #{code} }}")[2].partition("\n### ")[0]
        assert len(section.strip().split("\n\n")) == 2, code


def test_an_error_without_advice_fails_the_build(tables: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    from fairway.core import errors

    class Unheard(errors.FairwayError):
        """Nobody wrote about it."""

        code = "unheard"

    monkeypatch.setattr(errors, "Unheard", Unheard, raising=False)
    with pytest.raises(KeyError, match="unheard"):
        tables.errors_page()


def test_prometheus_tables_name_metrics_as_a_scrape_does(tables: ModuleType) -> None:
    assert "| `fairway_infer_requests_total` | counter | `model`, `version` |" in tables.prometheus("serving")
    assert "| `fairway_drift_features` | gauge | `model`, `version` |" in tables.prometheus("monitoring")


def test_docstrings_lose_their_sphinx_roles(tables: ModuleType) -> None:
    html = "<p>See :func:<code>~fairway.core.gate.judge</code> and :class:<code>Limit</code>.</p>"
    assert tables.on_page_content(html) == "<p>See <code>judge</code> and <code>Limit</code>.</p>"


def test_every_event_is_explained() -> None:
    page = (DOCS / "guides" / "releasing.md").read_text("utf-8")
    for action in Action:
        assert f"| `{action.value}` |" in page


def test_every_page_is_in_the_navigation_and_every_decision_in_its_list() -> None:
    nav = (ROOT / "mkdocs.yml").read_text("utf-8").partition("\nnav:")[2]
    listed = (DOCS / "decisions" / "README.md").read_text("utf-8")
    for page in DOCS.rglob("*.md"):
        assert str(page.relative_to(DOCS)) in nav
        if page.parent.name == "decisions" and page.name != "README.md":
            assert f"({page.name})" in listed
