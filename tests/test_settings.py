"""``fairway.toml``: one file for a model's whole life, and errors that say where and what to write instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairway.core.errors import InvalidConfig
from fairway.core.gate import Limit
from fairway.settings import default_settings, read_settings

GOOD = """\
[model]
name = "digits"
source = "train:fit"

[data]
test = "test.parquet"
label = "digit"

[[slices]]
name = "faint"
where = "ink < 0.25"

[gate]
accuracy_score = { min = 0.95, max_drop = 0.005 }
latency_p99_ms = { max = 10, at_rps = 200 }

[serve]
port = 9000
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "fairway.toml"
    path.write_text(GOOD)
    return path


def refusal(path: Path, text: str) -> str:
    path.write_text(text)
    with pytest.raises(InvalidConfig) as refused:
        read_settings(path, {})
    message = str(refused.value)
    assert str(path) in message
    return message


def test_a_file_becomes_typed_settings(file: Path) -> None:
    settings = read_settings(file, {})
    assert settings.model is not None
    assert settings.model.name == "digits"
    assert settings.gate["accuracy_score"] == Limit(min=0.95, max_drop=0.005)
    assert settings.slices[0].where == "ink < 0.25"
    assert settings.serve.port == 9000


def test_a_missing_file_names_itself_and_the_command_that_writes_one(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"fairway\.toml does not exist; write one with: fairway init"):
        read_settings(tmp_path / "fairway.toml", {})


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("source =", "sorce =", ["line 3", "'model.sorce'", "did you mean 'source'?"]),
        ("[serve]", "[srve]", ["'srve'", "did you mean 'serve'?", "line 17"]),
        ("port = 9000", "prot = 9000", ["line 18", "'serve.prot'", "did you mean 'port'?"]),
        ("port = 9000", 'port = "high"', ["line 18", "serve.port", "int"]),
        ("max_drop = 0.005", "max_dorp = 0.005", ["'gate.max_dorp'", "did you mean 'max_drop'?", "line 14"]),
        ('name = "digits"', 'name = "digits"\ntask = "rankin"', ["'rankin'", "did you mean 'ranking'?"]),
        ('name = "digits"', 'name = "digits"\ntask = "magic"', ["valid here: ", "token-classification"]),
        ("accuracy_score", "acuracy_score", ["line 14", "acuracy_score", "did you mean 'accuracy_score'?"]),
        ("port = 9000", "[serve.models.digits]\nmax_bach = 9", ["line 19", "'serve.models.max_bach'", "'max_batch'?"]),
        ("port = 9000", "[serve.models.digits]\nqueue = 9", ["valid here: max_batch, max_queue_requests,"]),
        ("where =", "were =", ["line 11", "'slices[0].were'", "did you mean 'where'?"]),
        ("max = 10", "min = 10, max_drop = 1", ["latency_p99_ms", "max_rise"]),
    ],
)
def test_a_wrong_key_is_named_with_its_line_and_the_nearest_valid_name(
    file: Path, old: str, new: str, expected: list[str]
) -> None:
    message = refusal(file, GOOD.replace(old, new, 1))
    for part in expected:
        assert part in message


def test_a_missing_key_is_named(file: Path) -> None:
    assert "source" in refusal(file, GOOD.replace('source = "train:fit"\n', ""))


def test_what_is_not_toml_is_told_with_its_line(file: Path) -> None:
    assert "line 3" in refusal(file, '[model]\nname = "digits"\nsource = \n')


def test_what_is_not_text_is_told(file: Path) -> None:
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidConfig, match="cannot be read"):
        read_settings(file, {})


def test_a_variable_wins_over_its_key(file: Path) -> None:
    settings = read_settings(file, {"FAIRWAY_SERVE_PORT": "7000", "FAIRWAY_REGISTRY_URL": "postgresql://db/x"})
    assert settings.serve.port == 7000
    assert settings.registry.url == "postgresql://db/x"
    assert default_settings({"FAIRWAY_SERVE_PORT": "7000"}).serve.port == 7000


def test_a_list_in_a_variable_is_written_with_commas(file: Path) -> None:
    settings = read_settings(file, {"FAIRWAY_OPTIMIZE_CANDIDATES": "graph, int8-static"})
    assert settings.optimize.candidates == ("graph", "int8-static")


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [("FAIRWAY_SERVE_PROT", "1", "did you mean 'port'"), ("FAIRWAY_SERVE_PORT", "high", "FAIRWAY_SERVE_PORT")],
)
def test_a_wrong_variable_is_named(file: Path, variable: str, value: str, expected: str) -> None:
    with pytest.raises(InvalidConfig, match=expected):
        read_settings(file, {variable: value})


def test_an_unknown_key_deep_in_a_table_names_the_keys_of_that_table(tmp_path: Path) -> None:
    file = tmp_path / "fairway.toml"
    file.write_text('[[checks]]\nname = "a"\nkind = "invariant"\nchange = { column = "x", ad = 1 }\n')
    with pytest.raises(InvalidConfig, match=r"unknown key 'checks\[0\]\.change\.ad'.*did you mean 'add'"):
        read_settings(file, {})


def test_checks_are_read(tmp_path: Path) -> None:
    file = tmp_path / "fairway.toml"
    file.write_text('[[checks]]\nname = "a"\nkind = "decreases"\nchange = { column = "x", replace = { a = "b" } }\n')
    (check,) = read_settings(file, {}).checks
    assert check.change.replace == {"a": "b"}
    assert check.max_failure_rate is None
