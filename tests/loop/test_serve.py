"""``serve`` in this process: bundles as they are, or whatever the registry says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import fairway
from fairway.client import Client
from fairway.core.errors import FairwayError, InvalidConfig, ModelNotFound, RegistryUnavailable
from tests.conftest import Digits


def versions(client: Client) -> set[tuple[str, str]]:
    return {(entry["name"], entry["version"]) for entry in client.index() if entry["state"] == "READY"}


def test_without_a_name_every_champion_is_served_and_its_challenger(released: Path, digits: Digits) -> None:
    with fairway.serve() as server, fairway.connect(server.url) as client:
        assert versions(client) == {("digits", "1"), ("digits", "2")}
        answer = client.infer("digits", {"x": digits.x_test}, version=2)
        assert answer.version == "2"
        assert (answer.outputs["probabilities"].argmax(axis=1) == digits.y_test).mean() > 0.96


def test_what_was_asked_is_there_to_observe(released: Path, digits: Digits) -> None:
    with fairway.serve("digits:1") as server, fairway.connect(server.url) as client:
        for start in range(0, 450, 50):
            client.infer("digits", {"x": digits.x_test[start : start + 50]})
    seen = fairway.observe("digits:1")
    assert seen.rows == 450
    assert seen.outcome == "no drift"


def test_a_bundle_needs_no_project(released: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = next(released.glob(".fairway/work/digits/*/packed*.fairway"))
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    with fairway.serve(bundle, port=0) as server, fairway.connect(server.url) as client:
        assert versions(client) == {("digits", "1")}
    assert list(empty.iterdir()) == []


@pytest.mark.parametrize(
    ("models", "settings", "error"),
    [
        ("letters", {}, ModelNotFound),
        ("digits:9", {}, ModelNotFound),
        ("digits@staging", {}, ModelNotFound),
        ("digits:", {}, InvalidConfig),
        ("digits", {"port": 70_000}, InvalidConfig),
        ("digits", {"prot": 0}, InvalidConfig),
    ],
)
def test_what_cannot_be_served_is_told(
    released: Path, models: str, settings: dict[str, Any], error: type[FairwayError]
) -> None:
    with pytest.raises(error), fairway.serve(models, **settings):
        pass


def test_without_a_registry_there_is_nothing_to_follow(folder: Path) -> None:
    with pytest.raises(RegistryUnavailable, match="there is no registry"), fairway.serve():
        pass
