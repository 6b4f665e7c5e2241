"""The original is asked the same batches for every form that it is compared with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fairway.bundle.format import Bundle
from fairway.model import Model
from fairway.optimization.remembering import Remembering
from tests.optimization.conftest import bundle_of


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    made: list[int] = []
    real = Model.infer

    def counted(self: Model, feed: dict[str, np.ndarray], *, raw: bool = False) -> dict[str, np.ndarray]:
        made.append(len(next(iter(feed.values()))))
        return real(self, feed, raw=raw)

    monkeypatch.setattr(Model, "infer", counted)
    return made


@pytest.fixture(scope="module")
def digits_bundle(mlp_graph: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return bundle_of(tmp_path_factory.mktemp("bundle") / "digits", mlp_graph)


def test_what_was_asked_before_is_not_computed_again(digits_bundle: Bundle, calls: list[int]) -> None:
    with Remembering(digits_bundle) as model:
        spec = model.inputs[0]
        feed = {spec.name: np.random.default_rng(0).random((4, *spec.shape[1:])).astype(np.float32)}
        first = model.infer(feed)
        again = model.infer({spec.name: feed[spec.name].copy()})
        other = model.infer({spec.name: feed[spec.name] + 1})
    assert calls == [4, 4]
    for name, answer in first.items():
        np.testing.assert_array_equal(again[name], answer)
    assert any((other[name] != answer).any() for name, answer in first.items())


def test_beyond_its_limit_it_computes_each_time(digits_bundle: Bundle, calls: list[int]) -> None:
    with Remembering(digits_bundle, limit=16) as model:
        spec = model.inputs[0]
        feed = {spec.name: np.zeros((4, *spec.shape[1:]), np.float32)}
        for _ in range(2):
            model.infer(feed)
    assert calls == [4, 4]
