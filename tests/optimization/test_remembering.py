"""The original is asked the same batches for every form that it is compared with."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from fairway.bundle.format import Bundle
from fairway.core.tensors import Tensors
from fairway.model import Model
from fairway.optimization.remembering import Answers, Remembering
from tests.optimization.conftest import bundle_of


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    made: list[int] = []
    real = Model.infer

    def counted(self: Model, feed: Tensors, *, raw: bool = False) -> Tensors:
        made.append(len(next(iter(feed.values()))))
        return real(self, feed, raw=raw)

    monkeypatch.setattr(Model, "infer", counted)
    return made


@pytest.fixture(scope="module")
def digits_bundle(mlp_graph: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return bundle_of(tmp_path_factory.mktemp("bundle") / "digits", mlp_graph)


def rows(bundle: Bundle, *values: float) -> Tensors:
    spec = bundle.manifest.inputs[0]
    return {spec.name: np.stack([np.full(spec.shape[1:], value, np.float32) for value in values])}


def test_only_rows_that_were_not_asked_before_are_computed(digits_bundle: Bundle, calls: list[int]) -> None:
    answers = Answers(worth_s=0)
    with Model(digits_bundle) as model:
        truth = model.infer(rows(digits_bundle, 0, 1, 2, 3))
    calls.clear()
    for values, asked in (((0, 1), [2]), ((1, 0), []), ((3, 1, 2), [2]), ((0, 1, 2, 3), [])):
        with Remembering(digits_bundle, answers) as model:  # opened again, as for another form
            found = model.infer(rows(digits_bundle, *values))
        assert calls == asked
        calls.clear()
        for name, answer in truth.items():
            np.testing.assert_allclose(found[name], answer[list(values)], rtol=1e-5)


@pytest.mark.parametrize("answers", [Answers(limit=16, worth_s=0), Answers(worth_s=60)], ids=["no room", "quick"])
def test_what_is_not_kept_is_computed_each_time(digits_bundle: Bundle, calls: list[int], answers: Answers) -> None:
    with Remembering(digits_bundle, answers) as model:
        for _ in range(2):
            model.infer(rows(digits_bundle, 0, 1))
    assert calls == [2, 2]
    assert not answers.rows


def test_where_rows_depend_on_each_other_every_call_is_made(digits_bundle: Bundle, calls: list[int]) -> None:
    engine = msgspec.structs.replace(digits_bundle.manifest.engine, batching=False)
    alone = Bundle(digits_bundle.path, msgspec.structs.replace(digits_bundle.manifest, engine=engine))
    with Remembering(alone, Answers(worth_s=0)) as model:
        for _ in range(2):
            model.infer(rows(alone, 0, 1))
    assert calls == [2, 2]
