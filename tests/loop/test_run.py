"""``run``: the whole road, as often as you like."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest

import fairway
from fairway.core.events import Action
from fairway.loop.project import Project
from fairway.loop.release import promote, rollback
from fairway.loop.run import run
from tests.projects import FAIRWAY, edit, run_there, without_settings


def actions(folder: Path) -> list[Action]:
    with Project.find(folder).registry(create=False) as registry:
        return [event.action for event in registry.events("digits")]


def test_the_first_version_becomes_the_champion_and_the_second_a_canary(released: Path) -> None:
    with Project.find().registry(create=False) as registry:
        release = registry.release("digits")
    assert release is not None
    assert (release.champion, release.challenger, release.weight) == (1, 2, 0.1)
    assert actions(released) == [Action.REGISTERED, Action.RELEASED] * 2


def test_what_is_registered_carries_its_evidence(released: Path) -> None:
    project = Project.find()
    with project.registry(create=False) as registry:
        bundle = registry.fetch("digits:2", project.cache)
    assert {"model.onnx", "evaluation.json", "baseline.json", "samples.npz"} <= set(bundle.manifest.files)
    assert set(bundle.manifest.lineage.data_digests) >= {"test", "reference"}


def test_running_again_registers_nothing_and_changes_nothing(released: Path) -> None:
    before = actions(released)
    again = run()
    assert again.version == 2
    assert again.refused == ""
    assert actions(released) == before


@pytest.mark.parametrize(
    "change",
    [
        "\n[optimize]\nrepeats = 2\n",
        "\n[registry]\nlock_timeout_s = 7.0\n",
    ],
)
def test_settings_that_do_not_touch_the_bundle_make_no_new_version(released: Path, change: str) -> None:
    path = released / "fairway.toml"
    path.write_text(path.read_text() + change)
    assert run().version == 2


def test_how_it_is_served_and_released_makes_no_new_version(released: Path) -> None:
    edit(released, "min_requests = 100", "min_requests = 200\nweight = 0.5")
    edit(released, "poll_s = 0.05", "poll_s = 0.5")
    assert run().version == 2


def test_a_project_that_moved_goes_on_where_it_was(released: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = released.with_name("elsewhere")
    released.rename(elsewhere)
    monkeypatch.chdir(elsewhere)
    assert run().version == 2


def test_the_source_before_is_the_version_before(released: Path) -> None:
    promote("digits")
    edit(released, "other.onnx", "good.onnx")
    road = run()
    assert road.version == 1
    assert road.release is not None
    assert (road.release.champion, road.release.challenger) == (2, 1)


def test_a_module_that_the_source_imports_is_an_input(tmp_path: Path) -> None:
    write = (tmp_path / "fairway.toml").write_text
    write('[model]\nname = "m"\nsource = "train:fit"\n[data]\ntest = "t.csv"\n')
    (tmp_path / "parts").mkdir()
    helper = tmp_path / "parts" / "layers.py"
    for text in ("size = 1", "size = 2"):
        helper.write_text(text)
        work = Project.find(tmp_path).work()
        assert work == Project.find(tmp_path).work()
        (tmp_path / ".venv").mkdir(exist_ok=True)
        (tmp_path / ".venv" / "other.py").write_text(text)
        assert work == Project.find(tmp_path).work()
    helper.write_text("size = 1")
    assert Project.find(tmp_path).work() != work


@pytest.mark.parametrize("promoted_before", [False, True])
def test_what_was_rolled_back_does_not_come_back_by_itself(released: Path, promoted_before: bool) -> None:
    if promoted_before:
        promote("digits")
    rollback("digits", reason="it stutters")
    before = actions(released)
    road = run()
    assert "rolled back" in road.refused
    assert "fairway release digits:2" in road.refused
    assert road.release is not None
    assert (road.release.champion, road.release.challenger) == (1, None)
    assert actions(released) == before
    fairway.release("digits:2")
    assert run().refused == ""


def test_a_version_that_the_gate_fails_is_registered_but_never_released(released: Path) -> None:
    edit(released, "other.onnx", "bad.onnx")
    answer = run_there(released, "run", environ=without_settings())
    assert answer.code == 1
    assert "accuracy_score" in answer.out
    assert "not released" in answer.out
    with Project.find().registry(create=False) as registry:
        release = registry.release("digits")
        refusal = registry.events("digits", newest=True, limit=1)[0]
    assert release is not None
    assert (release.champion, release.challenger) == (1, 2)
    assert refusal.action is Action.REFUSED
    assert "digits:3" in refusal.reason


STEPS = ("converting", "measuring", "scoring", "packing", "registering")


def test_a_run_that_is_killed_anywhere_goes_on(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for step in rng.permutation(STEPS)[:4]:
        kill_after(folder, step, delay_s=rng.uniform(0, 0.2))
        assert_whole(folder)
    road = run()
    assert road.version == 1
    assert road.refused == ""
    assert actions(folder) == [Action.REGISTERED, Action.RELEASED]


def kill_after(folder: Path, step: str, *, delay_s: float) -> None:
    """Kill ``fairway run`` some time into a step; a step that an earlier run finished is not there any more."""
    with subprocess.Popen(
        [*FAIRWAY, "run"],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=without_settings(),
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith(f"- {step}"):
                break
        try:
            process.wait(delay_s)  # the fault itself, not a wait for anything
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)


def assert_whole(folder: Path) -> None:
    project = Project.find(folder)
    if not (folder / ".fairway" / "registry.db").exists():
        return
    with project.registry() as registry:
        for model in registry.models():
            versions = registry.versions(model)
            assert [version.number for version in versions] == [1][: len(versions)]
            for version in versions:
                registry.fetch(version, project.cache).verify()
