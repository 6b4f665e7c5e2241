"""The space of forms: names are points of it, and every point is a recipe of its own."""

from __future__ import annotations

import pytest

from fairway.core.manifest import PassRecord
from fairway.optimization.forms import Forms
from fairway.optimization.recipes import recipes
from fairway.optimization.registry import passes
from fairway.optimization.settings import CANDIDATES, MORE, OptimizationSettings

SAMPLE = {"rows": 256, "seed": 0, "data": "sha256:1"}
EVERY = OptimizationSettings(candidates=(*CANDIDATES, *MORE))


@pytest.fixture(scope="module")
def forms() -> Forms:
    return Forms(EVERY, SAMPLE)


def test_every_name_is_its_recipe(forms: Forms) -> None:
    for recipe in recipes(EVERY, SAMPLE):
        assert forms.recipe(forms.point(recipe.name)) == recipe


def test_every_point_has_a_name_of_its_own_and_parameters_that_its_passes_allow(forms: Forms) -> None:
    names = set()
    for point in forms.space.points():
        recipe = forms.recipe(point)
        names.add(recipe.name)
        assert recipe.stages
        for stage in recipe.stages:
            passes()[stage.name].settings(stage.parameters)
    assert len(names) == forms.space.size


def test_what_the_settings_fix_is_not_searched() -> None:
    forms = Forms(OptimizationSettings(per_channel=False, reduce_range=False, level="basic"), SAMPLE)
    for point in forms.space.points():
        for stage in forms.recipe(point).stages:
            if stage.name.startswith("int8-") and stage.name != "int8-nncf":
                assert stage.parameters["per_channel"] is stage.parameters["reduce_range"] is False
            assert stage.parameters.get("level") in (None, "basic")


def test_a_recipe_in_a_manifest_is_found_again_though_other_rows_calibrated_and_a_stage_had_nothing_to_do(
    forms: Forms,
) -> None:
    point = forms.point("fused-int8-smooth")
    stages = [stage for stage in forms.recipe(point).stages if stage.name != "narrow"]
    records = [PassRecord(s.name, {**s.parameters, **({"seed": 7} if "seed" in s.parameters else {})}) for s in stages]
    assert forms.matching(records) == point


def test_a_recipe_of_other_passes_is_not_found(forms: Forms) -> None:
    assert forms.matching([PassRecord("no-such-pass")]) is None
    assert forms.matching([]) is None


def test_providers_are_tried_where_they_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def runs() -> set[object]:
        return {
            name for point in Forms(EVERY, SAMPLE).space.points() for name in (point["operators"], point.get("engine"))
        }

    assert not {"cuda", "tensorrt"} & runs()
    monkeypatch.setattr(
        "onnxruntime.get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    assert {"cuda", "tensorrt"} & runs() == {"cuda"}
    forms = Forms(EVERY, SAMPLE)
    assert forms.point("cuda") == {"operators": "given", "weights": "float", "engine": "cuda"}
    assert [stage.name for stage in forms.recipe(forms.point("cuda")).stages] == ["cuda"]


def test_a_provider_that_is_named_and_not_there_is_tried_and_says_so() -> None:
    forms = Forms(OptimizationSettings(candidates=("cuda",)), SAMPLE)
    assert [stage.name for stage in forms.recipe(forms.point("cuda")).stages] == ["cuda"]


def test_a_name_of_another_kind_of_model_has_a_summary_too() -> None:
    settings = OptimizationSettings(candidates=("cpu-eager-bf16",))
    assert Forms(settings, SAMPLE).recipe({"operators": "cpu-eager-bf16"}).summary
