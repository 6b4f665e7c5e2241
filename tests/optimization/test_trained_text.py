"""Every form of a transformer that has learned something still knows it, on texts that it has not seen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from fairway.optimization.build import apply_recipe
from fairway.optimization.recipes import Stage, recipes
from fairway.optimization.settings import MORE, OptimizationSettings
from tests.optimization.test_transformers import answer
from tests.optimization.trained_text import LIBRARIES, Trained, trained

pytest.importorskip("transformers")
pytestmark = pytest.mark.torch

OTHER_MACHINES = ("openvino-bf16", "cuda", "tensorrt")
AGREES = {"fewer-tokens": 0.90, "fewer-tokens-int8": 0.90, "int4-weights": 0.90}
"""Rows with the original's class, at least; 0.97 for the others."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return trained(tmp_path_factory.mktemp("trained"))


def stages(name: str) -> Sequence[Stage]:
    settings = OptimizationSettings(candidates=(name,))
    return recipes(settings, {"rows": 128, "seed": 0, "data": "sha256:0"})[0].stages


def test_it_has_learned_something(model: Trained) -> None:
    right = answer(model.graph, model.feed).argmax(axis=1) == model.labels
    assert right.mean() > 1.8 / len(LIBRARIES)


@pytest.mark.parametrize("name", [name for name in MORE if name not in OTHER_MACHINES])
def test_every_recipe_keeps_what_was_learned(name: str, model: Trained, tmp_path: Path) -> None:
    made, _ = apply_recipe(model.graph, stages(name), model.sample, tmp_path)
    before, after = (answer(graph, model.feed).argmax(axis=1) for graph in (model.graph, made))
    assert np.mean(after == before) >= AGREES.get(name, 0.97)
    lost = np.mean(before == model.labels) - np.mean(after == model.labels)
    assert lost < 0.02
