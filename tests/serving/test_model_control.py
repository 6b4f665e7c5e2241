"""Loading and unloading by hand, and a budget of memory over all models."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.bundle.archive import write_archive
from fairway.bundle.format import MANIFEST, Bundle
from fairway.core.errors import (
    DeadlineExceeded,
    FairwayError,
    InvalidBundle,
    InvalidRequest,
    MemoryExceeded,
    ModelNotFound,
    ModelNotReady,
    Overloaded,
    RequestTooLarge,
)
from fairway.core.messages import InferRequest
from fairway.registry.settings import RegistrySettings
from fairway.registry.store import Registry
from fairway.serving.batches import Batch
from fairway.serving.follow import Follower
from fairway.serving.inference import InferenceCore
from fairway.serving.memory import Holding, make_room
from fairway.serving.models import Models
from fairway.serving.repository import GivenBundles
from fairway.serving.routing import Route
from fairway.serving.settings import ModelServeSettings, ServeSettings
from fairway.serving.telemetry import Telemetry
from fairway.testing.builders import linear_bundle

X = {"x": np.zeros((1, 1), np.float32)}


def bundle_saying(path: Path, answer: int, name: str = "linear") -> Bundle:
    """Answers every row with class ``answer``: so an answer proves which bundle gave it."""
    bias = np.zeros(8)
    bias[answer] = 50.0
    return linear_bundle(path, name=name, weights=np.zeros((1, 8)), bias=bias)


@asynccontextmanager
async def serving(*bundles: Bundle, **settings: Any) -> AsyncIterator[InferenceCore]:
    telemetry = Telemetry()
    models = Models(ServeSettings(**settings), telemetry)
    given = GivenBundles(bundles)
    models.repository = given
    try:
        for name in given.names():
            await models.load_model(name)
        yield InferenceCore(models, telemetry)
    finally:
        await models.close()


async def who(core: InferenceCore, name: str = "linear", **request: Any) -> int:
    answer = await core.infer(InferRequest(name, X, **request))
    return int(np.argmax(answer.outputs["probabilities"]))


def states(core: InferenceCore) -> dict[str, str]:
    return {f"{entry.name}:{entry.version}": entry.state.value for entry in core.models.index()}


def replaced(path: Path, by: Bundle) -> None:
    shutil.rmtree(path)
    shutil.copytree(by.path, path)


# -- load


async def test_loading_again_takes_what_lies_there_now(tmp_path: Path) -> None:
    bundle = bundle_saying(tmp_path / "b", 1)
    async with serving(bundle) as core:
        replaced(bundle.path, bundle_saying(tmp_path / "new", 2))
        assert await who(core) == 1
        await core.models.load_model("linear")
        assert await who(core) == 2
        assert states(core) == {"linear:1": "READY"}


async def test_while_it_is_loaded_again_the_old_one_answers_every_request(tmp_path: Path) -> None:
    bundle = bundle_saying(tmp_path / "b", 1)
    async with serving(bundle) as core:
        replaced(bundle.path, bundle_saying(tmp_path / "new", 2))
        loading = asyncio.create_task(core.models.load_model("linear"))
        seen = []
        while not loading.done():
            seen.append(await who(core))
        await loading
        assert set(seen) <= {1, 2}
        assert seen == sorted(seen)
        assert await who(core) == 2


@pytest.mark.parametrize("wrong", ["altered", "truncated", "gone", "another model"])
async def test_a_load_that_fails_leaves_what_serves(tmp_path: Path, wrong: str) -> None:
    bundle = bundle_saying(tmp_path / "b", 1)
    async with serving(bundle) as core:
        graph = bundle.file("model.onnx")
        if wrong == "altered":
            graph.write_bytes(bytes(len(graph.read_bytes())))
        elif wrong == "truncated":
            graph.write_bytes(graph.read_bytes()[:-1])
        elif wrong == "gone":
            shutil.rmtree(bundle.path)
        else:
            replaced(bundle.path, bundle_saying(tmp_path / "other", 2, name="other"))
        with pytest.raises(InvalidBundle):
            await core.models.load_model("linear")
        assert await who(core) == 1
        assert states(core) == {"linear:1": "READY"}


async def test_an_unknown_name_cannot_be_loaded_and_may_be_unloaded(tmp_path: Path) -> None:
    async with serving(bundle_saying(tmp_path / "b", 1)) as core:
        with pytest.raises(ModelNotFound, match="known here: linear"):
            await core.models.load_model("nope")
        await core.models.unload_model("nope")
        assert states(core) == {"linear:1": "READY"}


async def test_a_configuration_limits_the_model_until_it_is_loaded_without(tmp_path: Path) -> None:
    bundle = bundle_saying(tmp_path / "b", 1)
    async with serving(bundle, max_queue_rows=7) as core:
        rows = InferRequest("linear", {"x": np.zeros((64, 1), np.float32)})
        batches: list[int] = []

        async def largest_batch() -> int:
            (served,) = core.models.live()
            ran = served.stats.ran

            def noted(batch: Batch) -> None:
                batches.append(batch.rows)
                ran(batch)

            served.stats.ran = noted  # type: ignore[method-assign]
            await core.infer(rows)
            return max(batches)

        await core.models.load_model("linear", {"name": "linear", "max_batch_size": 4, "max_queue_requests": 9})
        assert await largest_batch() == 4
        batches.clear()
        await core.models.load_model("linear")
        assert await largest_batch() == 64


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"name": "other"}, "'other'"),
        ({"backend": "python"}, "'backend' cannot be changed"),
        ({"max_batch_size": 0}, "max_batch"),
        ({"max_batch_size": "many"}, "max_batch"),
        ({"version_policy": {"latest": {"num_versions": 0}}}, "num_versions"),
        ({"version_policy": {"specific": {"versions": [3]}}}, "no version 3; it has: 1, 2"),
        ({"version_policy": "all"}, "version_policy"),
        ({"dynamic_batching": {"preferred_batch_size": [4]}}, "max_queue_delay_microseconds"),
    ],
)
async def test_a_configuration_that_means_nothing_here_is_refused(
    tmp_path: Path, config: dict[str, Any], said: str
) -> None:
    async with serving(bundle_saying(tmp_path / "a", 1), bundle_saying(tmp_path / "b", 2)) as core:
        with pytest.raises(InvalidRequest, match=said):
            await core.models.load_model("linear", config)
        assert await who(core) == 2


async def test_a_version_policy_chooses_among_versions(tmp_path: Path) -> None:
    async with serving(bundle_saying(tmp_path / "a", 1), bundle_saying(tmp_path / "b", 2)) as core:
        await core.models.load_model("linear", {"version_policy": {"specific": {"versions": [1]}}})
        assert (await who(core), states(core)) == (1, {"linear:1": "READY"})
        await core.models.load_model("linear", {"version_policy": {"latest": {}}})
        assert (await who(core), states(core)) == (2, {"linear:2": "READY"})
        await core.models.load_model("linear")
        assert states(core) == {"linear:1": "READY", "linear:2": "READY"}


# -- files


def files_of(bundle: Bundle) -> dict[str, bytes]:
    return {name: (bundle.path / name).read_bytes() for name in (MANIFEST, *bundle.manifest.files)}


@pytest.mark.parametrize("form", ["files", "in a version's folder", "archive"])
async def test_a_bundle_that_is_sent_is_served_until_the_next_load(
    tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    sent = bundle_saying(tmp_path / "sent", 3)
    files = files_of(sent)
    if form == "archive":
        files = {"b.tar": write_archive(sent, tmp_path / "b.tar").read_bytes()}
    elif form != "files":
        files = {f"5/{path}": content for path, content in files.items()}
    async with serving(bundle_saying(tmp_path / "b", 1)) as core:
        await core.models.load_model("linear", {}, files)
        assert await who(core) == 3
        assert list(states(core)) == ["linear:5" if form == "in a version's folder" else "linear:1"]
        assert not any(scratch.iterdir())
        await core.models.load_model("linear")
        assert (await who(core), states(core)) == (1, {"linear:1": "READY"})


async def test_files_that_are_no_bundle_are_refused_and_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    good = files_of(bundle_saying(tmp_path / "sent", 3))
    cases: list[tuple[type[FairwayError], dict[str, bytes]]] = [
        (InvalidBundle, {"1/model.onnx": good["model.onnx"]}),
        (InvalidBundle, good | {"model.onnx": b"other"}),
        (InvalidBundle, good | {"more": b"other"}),
        (InvalidBundle, {MANIFEST: good[MANIFEST]}),
        (InvalidBundle, {MANIFEST: b"{}"}),
        (InvalidBundle, {"x.tar": b"nonsense"}),
        (InvalidRequest, files_of(bundle_saying(tmp_path / "other", 3, name="other"))),
        (RequestTooLarge, good | {"large": bytes(2**20)}),
    ]
    async with serving(bundle_saying(tmp_path / "b", 1), max_body_bytes=2**20) as core:
        for error, files in cases:
            with pytest.raises(error):
                await core.models.load_model("linear", {}, files)
            assert not any(scratch.iterdir())
        assert await who(core) == 1


# -- unload


async def test_what_is_unloaded_says_so_until_it_is_loaded(tmp_path: Path) -> None:
    async with serving(bundle_saying(tmp_path / "b", 1)) as core:
        await core.models.unload_model("linear")
        (entry,) = core.models.index()
        assert (entry.version, entry.state.value, entry.reason) == ("1", "UNAVAILABLE", "unloaded")
        for version in (None, "1"):
            with pytest.raises(ModelNotReady, match="was unloaded"):
                await who(core, version=version)
        await core.models.unload_model("linear")
        await core.models.load_model("linear")
        assert (await who(core), states(core)) == (1, {"linear:1": "READY"})


async def test_unloading_answers_what_was_accepted(tmp_path: Path) -> None:
    async with serving(bundle_saying(tmp_path / "b", 1), inline_us=0) as core:
        (served,) = core.models.live()
        taken = [asyncio.create_task(who(core)) for _ in range(20)]
        await asyncio.sleep(0)
        await core.models.unload_model("linear")
        assert [await answer for answer in taken] == [1] * 20
        assert served.scheduler.queued_requests == 0


async def test_changes_of_one_name_at_once_come_one_after_the_other(tmp_path: Path) -> None:
    bundle = bundle_saying(tmp_path / "b", 1)
    async with serving(bundle) as core:
        models = core.models
        await asyncio.gather(*(models.load_model("linear") for _ in range(4)), models.unload_model("linear"))
        assert states(core) == {"linear:1": "UNAVAILABLE"}
        await asyncio.gather(models.unload_model("linear"), *(models.load_model("linear") for _ in range(4)))
        assert (await who(core), states(core)) == (1, {"linear:1": "READY"})


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with Registry.open(RegistrySettings(), root=tmp_path) as opened:
        for version in (1, 2):
            opened.register(bundle_saying(tmp_path / f"b{version}", version))
        opened.set_alias("linear", "champion", 1, actor="test")
        yield opened


async def test_a_follower_leaves_alone_what_was_unloaded_by_hand(registry: Registry, tmp_path: Path) -> None:
    telemetry = Telemetry()
    models = Models(ServeSettings(), telemetry)
    core = InferenceCore(models, telemetry)
    follower = Follower(registry, models, (), settings=ServeSettings(), url="", cache_dir=tmp_path / "cache")
    models.repository = follower
    await follower.first()
    try:
        await models.unload_model("linear")
        registry.set_alias("linear", "champion", 2, actor="test")
        await follower.first()
        assert states(core) == {"linear:1": "UNAVAILABLE"}
        with pytest.raises(InvalidRequest, match="register the bundle"):
            await models.load_model("linear", {}, files_of(bundle_saying(tmp_path / "sent", 3)))
        await models.load_model("linear")
        assert (await who(core), states(core)) == (2, {"linear:2": "READY"})
        registry.set_alias("linear", "champion", 1, actor="test")
        await follower.first()
        assert await who(core) == 1
    finally:
        await models.close()
        await follower.close()


async def test_limits_that_do_not_go_with_the_servers_are_refused_and_nothing_is_loading_for_ever(
    tmp_path: Path,
) -> None:
    async with serving(*three(tmp_path)[:1]) as core:
        core.models.repository = GivenBundles(three(tmp_path))
        with pytest.raises(InvalidRequest, match="there are 0 levels"):
            await core.models.load_model("b", {"priority": 3})
        assert states(core) == {"a:1": "READY"}


# -- memory


def sizes(**mb: float) -> dict[str, Any]:
    return {"models": {name: ModelServeSettings(memory_mb=size) for name, size in mb.items()}}


def three(path: Path) -> list[Bundle]:
    return [bundle_saying(path / name, answer, name=name) for answer, name in enumerate("abc")]


async def test_the_longest_unused_makes_room_and_comes_back_when_asked_for(tmp_path: Path) -> None:
    async with serving(*three(tmp_path)[:2], memory_mb=100, **sizes(a=40, b=40, c=40)) as core:
        assert await who(core, "a") == 0  # b is now the longest unused
        core.models.repository = GivenBundles(three(tmp_path))
        await core.models.load_model("c")
        assert states(core) == {"a:1": "READY", "b:1": "UNAVAILABLE", "c:1": "READY"}
        assert await who(core, "a") == 0
        assert await who(core, "b") == 1
        assert states(core) == {"a:1": "READY", "b:1": "READY", "c:1": "UNAVAILABLE"}


async def test_without_a_size_of_its_own_a_model_counts_for_what_it_takes_and_not_for_the_whole_budget(
    tmp_path: Path,
) -> None:
    async with serving(*three(tmp_path), memory_mb=1000) as core:
        assert states(core) == {"a:1": "READY", "b:1": "READY", "c:1": "READY"}


async def test_no_more_wait_for_a_model_to_be_loaded_again_than_its_own_queue_holds(tmp_path: Path) -> None:
    limits = {"a": ModelServeSettings(memory_mb=40, max_queue_requests=2), "b": ModelServeSettings(memory_mb=40)}
    async with serving(*three(tmp_path)[:2], memory_mb=50, models=limits) as core:
        assert states(core)["a:1"] == "UNAVAILABLE"
        answers = await asyncio.gather(*(who(core, "a") for _ in range(5)), return_exceptions=True)
        assert answers[:2] == [0, 0]
        assert [type(answer) for answer in answers[2:]] == [Overloaded] * 3
        assert await asyncio.gather(*(who(core, "b") for _ in range(5))) == [1] * 5


async def test_versions_that_come_together_fit_into_the_budget_together(tmp_path: Path) -> None:
    both = [bundle_saying(tmp_path / name, answer, name="d") for answer, name in enumerate(("d1", "d2"))]
    async with serving(three(tmp_path)[0], memory_mb=100, **sizes(a=10, d=60)) as core:
        core.models.repository = GivenBundles(both)
        with pytest.raises(MemoryExceeded, match=r"d:2 needs 60\.0 MB"):
            await core.models.load_model("d")
        assert states(core)["a:1"] == "READY"
        assert "d:1" not in {name for name, state in states(core).items() if state == "READY"}
        core.models.repository = GivenBundles(both[:1])
        await core.models.load_model("d")  # what was given up takes no room
        assert states(core)["d:1"] == "READY"


async def test_many_callers_load_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(*three(tmp_path)[:2], memory_mb=50, **sizes(a=40, b=40)) as core:
        assert states(core)["a:1"] == "UNAVAILABLE"
        loads: list[str] = []
        load = core.models.load

        async def counted(name: str, version: str, opened: Any) -> None:
            loads.append(name)
            await load(name, version, opened)

        monkeypatch.setattr(core.models, "load", counted)
        assert await asyncio.gather(*(who(core, "a") for _ in range(30))) == [0] * 30
        assert loads == ["a"]


async def test_what_cannot_fit_is_refused_in_words_and_nobody_goes(tmp_path: Path) -> None:
    async with serving(*three(tmp_path)[:2], memory_mb=100, **sizes(a=40, b=40, c=101)) as core:
        core.models.repository = GivenBundles(three(tmp_path))
        with pytest.raises(
            MemoryExceeded, match=r"c:1 needs 101\.0 MB, and the budget is 100\.0 MB \(loaded: a:1 40\.0 MB"
        ):
            await core.models.load_model("c")
        assert states(core) == {"a:1": "READY", "b:1": "READY", "c:1": "UNAVAILABLE"}


async def test_nobody_goes_for_what_does_not_verify(tmp_path: Path) -> None:
    bundles = three(tmp_path)
    async with serving(*bundles[:2], memory_mb=100, **sizes(a=40, b=40, c=40)) as core:
        core.models.repository = GivenBundles(bundles)
        bundles[2].file("model.onnx").write_bytes(b"nonsense")
        with pytest.raises(InvalidBundle):
            await core.models.load_model("c")
        assert (states(core)["a:1"], states(core)["b:1"]) == ("READY", "READY")


async def test_half_of_a_release_never_goes(tmp_path: Path) -> None:
    first, second = bundle_saying(tmp_path / "1", 1), bundle_saying(tmp_path / "2", 2)
    other = bundle_saying(tmp_path / "o", 3, name="other")
    async with serving(first, second, memory_mb=100, **sizes(linear=40, other=40)) as core:
        core.models.point("linear", Route("1", "2", 0.1))
        core.models.repository = GivenBundles([other])
        with pytest.raises(MemoryExceeded, match=r"linear:1 40\.0 MB \(in use\)"):
            await core.models.load_model("other")
        core.models.point("linear", Route("2"))
        await core.models.load_model("other")
        assert states(core) == {"linear:1": "UNAVAILABLE", "linear:2": "READY", "other:1": "READY"}


async def test_a_request_waits_for_a_load_no_longer_than_its_own_limit_or_the_servers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(*three(tmp_path)[:2], memory_mb=50, load_timeout_s=0.05, **sizes(a=40, b=40)) as core:
        gate = asyncio.Event()
        load = core.models.load

        async def slow(name: str, version: str, opened: Any) -> None:
            await gate.wait()
            await load(name, version, opened)

        monkeypatch.setattr(core.models, "load", slow)
        with pytest.raises(ModelNotReady, match="still being loaded"):
            await who(core, "a")
        with pytest.raises(DeadlineExceeded):
            await who(core, "a", parameters={"timeout": 1000})
        leaver = asyncio.create_task(who(core, "a"))
        await asyncio.sleep(0)
        leaver.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaver
        gate.set()
        await core.models.wake("a", "1")
        assert await who(core, "a") == 0


async def test_what_can_no_longer_be_loaded_is_not_tried_with_every_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundles = three(tmp_path)[:2]
    async with serving(*bundles, memory_mb=50, **sizes(a=40, b=40)) as core:
        graph = bundles[0].file("model.onnx")
        content = graph.read_bytes()
        graph.write_bytes(b"nonsense")
        for _ in range(3):
            with pytest.raises(InvalidBundle):
                await who(core, "a")
        assert await who(core, "b") == 1
        graph.write_bytes(content)
        with pytest.raises(InvalidBundle):  # it is not looked at before its pause is over
            await who(core, "a")
        core.models._cold["a", "1"].retry_at = 0.0
        assert await who(core, "a") == 0


async def test_a_models_size_is_measured_and_at_least_its_files(tmp_path: Path) -> None:
    large = linear_bundle(tmp_path / "large", weights=np.ones((1000, 1000)), bias=np.zeros(1000))
    async with serving(large) as core:
        (served,) = core.models.live()
        assert large.size_bytes <= served.size_bytes < 100 * large.size_bytes


holdings = st.dictionaries(
    st.tuples(st.sampled_from("abcdefgh"), st.just("1")),
    st.builds(Holding, st.integers(1, 50), st.floats(0, 100), st.booleans()),
)


@given(holdings, st.integers(1, 100), st.integers(1, 120))
def test_room_is_made_without_the_pinned_and_without_needless_departures(
    held: dict[tuple[str, str], Holding], limit: int, need: int
) -> None:
    pinned = sum(holding.size_bytes for holding in held.values() if holding.pinned)
    try:
        leaving = make_room(limit, ("new", "1"), need, held)
    except MemoryExceeded:
        assert pinned + need > limit
        return
    left = sum(holding.size_bytes for key, holding in held.items() if key not in leaving)
    assert left + need <= limit or not leaving
    assert not any(held[key].pinned for key in leaving)
    for key in leaving:
        assert left + held[key].size_bytes + need > limit
    assert left + need <= limit
