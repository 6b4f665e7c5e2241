"""A recipe applied again makes the same digests, or the replay says which pass differs first, and what is otherwise."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fairway.bundle.format import Bundle, write_bundle
from fairway.core.errors import InvalidBundle
from fairway.core.manifest import PassRecord
from fairway.optimization import replay as replaying
from fairway.optimization.build import build_candidate
from fairway.optimization.recipes import Recipe, Stage, recipes
from fairway.optimization.replay import Reference, Replay, replay
from fairway.optimization.sampling import draw_sample
from fairway.optimization.settings import OptimizationSettings
from fairway.sources.tables import Table, make_table
from tests.conftest import Digits
from tests.optimization.conftest import bundle_of

ROWS, SEED = 64, 3


@pytest.fixture(scope="module")
def reference(digits: Digits) -> Table:
    return make_table(dict(zip(digits.columns, digits.x_train.T, strict=True)))


@pytest.fixture(scope="module")
def source(mlp_graph: Path, digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return bundle_of(tmp_path_factory.mktemp("replay") / "mlp.fairway", mlp_graph, digits.columns)


@pytest.fixture(scope="module")
def made(source: Bundle, reference: Table) -> Bundle:
    """Statically quantized: three passes, the last of which was calibrated."""
    settings = OptimizationSettings(candidates=("int8-static",))
    (recipe,) = recipes(settings, {"rows": ROWS, "seed": SEED, "data": reference.digest})
    sample = draw_sample(source, reference, rows=ROWS, seed=SEED)
    return build_candidate(source, recipe, sample, source.path.parent / "made")


@pytest.fixture
def again(source: Bundle, reference: Table, tmp_path: Path) -> Any:
    def call(bundle: Bundle, *, origin: Bundle = source, rows: Reference | None = None) -> Replay:
        here = Reference(lambda count, seed: draw_sample(source, reference, rows=count, seed=seed), reference.digest)
        return replay(bundle, origin, here if rows is None else rows, tmp_path / "work")

    return call


def changed(bundle: Bundle, path: Path, **changes: Any) -> Bundle:
    """The same files under another manifest."""
    manifest = msgspec.structs.replace(bundle.manifest, **changes)
    return write_bundle(path, manifest, {name: bundle.file(name) for name in manifest.files})


def in_environment(bundle: Bundle, path: Path, **environment: str) -> Bundle:
    lineage = bundle.manifest.lineage
    lineage = msgspec.structs.replace(lineage, environment={**lineage.environment, **environment})
    return changed(bundle, path, lineage=lineage)


def with_record(bundle: Bundle, place: int, **changes: Any) -> tuple[PassRecord, ...]:
    records = list(bundle.manifest.recipe)
    records[place] = msgspec.structs.replace(records[place], **changes)
    return tuple(records)


def test_the_same_rows_and_libraries_make_the_same_digests(again: Any, made: Bundle, tmp_path: Path) -> None:
    found = again(made)
    assert found.same
    assert [stage.name for stage in found.stages] == [record.name for record in made.manifest.recipe]
    assert all(stage.made == stage.recorded for stage in found.stages)
    assert found.causes == ()
    assert "the same digests" in found.as_text()
    assert msgspec.json.decode(found.as_json(), type=Replay) == found
    assert not list((tmp_path / "work").iterdir())


def test_the_first_pass_that_differs_ends_it(again: Any, made: Bundle, tmp_path: Path) -> None:
    first = made.manifest.recipe[0].name
    found = again(changed(made, tmp_path / "b", recipe=with_record(made, 0, after="sha256:" + "0" * 64)))
    assert (found.outcome, found.stages[-1].name, found.left) == ("differs", first, len(made.manifest.recipe) - 1)
    assert f"{first} differs first" in found.as_text()


def test_other_reference_rows_are_named_as_a_cause(again: Any, made: Bundle, source: Bundle, digits: Digits) -> None:
    others = make_table(dict(zip(digits.columns, digits.x_test.T * 0.5, strict=True)))
    rows = Reference(lambda count, seed: draw_sample(source, others, rows=count, seed=seed), others.digest)
    found = again(made, rows=rows)
    assert (found.outcome, found.stages[-1].name) == ("differs", "int8-static")
    assert any("other reference data" in cause and others.digest in cause for cause in found.causes)


def test_without_reference_rows_the_pass_that_used_them_cannot_be_made(again: Any, made: Bundle) -> None:
    found = again(made, rows=Reference())
    assert (found.outcome, found.stages[-1].name) == ("could not be made", "int8-static")
    assert "[data] reference" in found.stages[-1].reason


def test_other_libraries_and_processors_are_named_then_and_now(again: Any, made: Bundle, tmp_path: Path) -> None:
    older = in_environment(made, tmp_path / "b", onnxruntime="0.9", cpu="Abacus 2")
    found = again(changed(older, tmp_path / "c", recipe=with_record(older, -1, after="sha256:" + "0" * 64)))
    assert any(cause.startswith("onnxruntime: 0.9 then, 1.") for cause in found.causes)
    assert any(cause.startswith("cpu: Abacus 2 then,") for cause in found.causes)


def test_where_the_digests_are_the_same_other_libraries_do_not_matter(again: Any, made: Bundle, tmp_path: Path) -> None:
    found = again(in_environment(made, tmp_path / "b", onnxruntime="0.9"))
    assert found.same
    assert found.causes == ()


def test_a_pass_that_is_not_installed_cannot_be_made(again: Any, made: Bundle, tmp_path: Path) -> None:
    found = again(changed(made, tmp_path / "b", recipe=with_record(made, 1, name="magic")))
    assert (found.outcome, found.stages[-1].reason) == ("could not be made", "no pass of this name is installed")


def test_a_missing_extra_is_named(again: Any, made: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replaying, "missing_extras", lambda _: ("optimize",))
    found = again(made)
    assert found.outcome == "could not be made"
    assert "pip install 'fairway[optimize]'" in found.stages[0].reason


def test_a_graph_that_was_changed_after_its_recipe_is_seen(
    again: Any, made: Bundle, linear_graph: Path, tmp_path: Path
) -> None:
    other = write_bundle(tmp_path / "b", made.manifest, {"model.onnx": linear_graph})
    found = again(other)
    assert (found.outcome, found.stages[-1].name) == ("differs", "bundle")
    assert "changed afterwards" in found.stages[-1].reason


def test_another_source_than_the_parent_is_named(
    again: Any, made: Bundle, linear_graph: Path, digits: Digits, tmp_path: Path
) -> None:
    other = bundle_of(tmp_path / "other", linear_graph, digits.columns)
    found = again(made, origin=other)
    assert (found.outcome, found.stages[-1].name) == ("differs", "source")
    assert any(other.digest in cause for cause in found.causes)


def test_a_bundle_that_no_pass_made_is_its_parent(again: Any, source: Bundle) -> None:
    found = again(source)
    assert found.same
    assert "no pass made it" in found.as_text()


def test_a_recipe_goes_on_from_that_of_its_source(source: Bundle, made: Bundle, reference: Table, again: Any) -> None:
    sample = partial(draw_sample, made, reference)(rows=ROWS, seed=SEED)
    recipe = Recipe("more", (Stage("graph", {"level": "extended"}),))
    further = build_candidate(made, recipe, sample, source.path.parent / "further")
    found = again(further, origin=made)
    assert found.same
    assert [stage.name for stage in found.stages] == ["graph"]
    with pytest.raises(InvalidBundle, match="does not go on from"):
        again(made, origin=further)
