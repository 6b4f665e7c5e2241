"""Passes are found by name, each with what it needs, what it changes and what it can be set to."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import Any

import msgspec
import pytest

from fairway.core.errors import InvalidConfig
from fairway.optimization import registry
from fairway.optimization.passes.base import Parameter, Pass
from fairway.optimization.registry import missing_extras, passes


@pytest.mark.parametrize("name", passes())
def test_every_pass_is_described(name: str) -> None:
    described = passes()[name]
    assert described.name == name
    assert described.summary
    assert described.changes
    assert described.settings() == {key: parameter.default for key, parameter in described.parameters.items()}
    for parameter in described.parameters.values():
        assert parameter.summary
        assert parameter.choices or (parameter.low is not None and parameter.high is not None)


def test_a_description_says_what_each_kind_of_pass_can_change() -> None:
    changed = {name: described.changes for name, described in passes().items()}
    assert changed["openvino"] == {"engine"}
    assert changed["narrow"] == {"graph"}
    assert changed["int8-dynamic"] == {"graph", "weights"}
    assert [name for name, p in passes().items() if not p.independent_rows] == ["int8-dynamic"]
    assert {name for name, p in passes().items() if p.needs.data} == {
        "int8-mixed", "int8-nncf", "int8-static", "prune", "shapes", "smooth", "tokens",
    }  # fmt: skip


def test_a_setting_outside_what_a_pass_allows_is_refused() -> None:
    described = passes()["tokens"]
    assert described.settings({"share": 0.5, "rows": 256}) == {"first": 2, "share": 0.5, "rows": 256}
    with pytest.raises(ValueError, match=r"tokens: share cannot be 1\.5"):
        described.settings({"share": 1.5})
    assert not Parameter("n", 1, low=0, high=2).allows(True)


def test_anybodys_pass_is_found_and_anything_else_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def entries(value: str) -> Any:
        return lambda group: [EntryPoint("other", value, group)]

    monkeypatch.setattr(registry, "entry_points", entries("fairway.optimization.passes.graph:PASS"))
    with pytest.raises(InvalidConfig, match="'other'"):
        passes.__wrapped__()


def test_an_extra_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    described = passes()["int8-nncf"]
    monkeypatch.setattr(registry, "find_spec", lambda name: None if name == "nncf" else object())
    assert missing_extras(described) == ("nncf",)
    assert missing_extras(msgspec.structs.replace(described, needs=Pass.__struct_defaults__[1])) == ()
