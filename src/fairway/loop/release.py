"""The verbs ``release``, ``promote`` and ``rollback``: which versions answer callers, and on what evidence."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from fairway.core.errors import InvalidConfig
from fairway.core.events import Action
from fairway.core.gate import Verdict
from fairway.core.manifest import ModelRef
from fairway.loop.models import find_version
from fairway.loop.pack import report_of
from fairway.loop.project import Project
from fairway.loop.register import actor

if TYPE_CHECKING:
    from fairway.registry.records import Event, Release, Version
    from fairway.registry.store import Registry
    from fairway.rollout.controller import Step


def release(
    ref: str,
    *,
    weight: float | None = None,
    force: bool = False,
    reason: str = "",
    project: Project | None = None,
) -> Release:
    """Let callers have a version: all of them if the model had none yet, else a share.

    Parameters
    ----------
    ref : str
        ``NAME:VERSION`` starts its release. ``NAME`` of a model with a challenger changes the challenger's share.
    weight : float, optional
        Above 0 and up to 1; ``[release] weight`` by default.
    force : bool, default False
        Release it although the gate did not pass it; needs a ``reason``, which is recorded.

    Raises
    ------
    GateRefused
        If the evaluation that its bundle carries is not passed. The refusal is recorded.
    Conflict
        If it is the champion already, or another challenger is being tried.
    """
    from fairway.rollout.changes import set_weight, start

    project = project or Project.find()
    share = project.settings.release.weight if weight is None else weight
    with project.registry(create=False) as registry:
        version = find_version(registry, ref)
        current = registry.release(version.model)
        if ref == version.model and current is not None and current.challenger is not None:
            return set_weight(registry, ref, share, actor=actor(), reason=reason)
        return start(
            registry,
            version.ref,
            check=_evaluation(registry, version, project),
            actor=actor(),
            now=time.time(),
            weight=share,
            force=force,
            reason=reason,
        )


def promote(model: str, *, reason: str = "", project: Project | None = None) -> Release:
    """Make the challenger the champion, by a person's decision; the traffic's evidence so far is recorded."""
    from fairway.rollout import changes

    _check_name(model, "fairway release {} --promote")
    project = project or Project.find()
    with project.registry(create=False) as registry:
        evidence = _evidence(registry, model, project)
        return changes.promote(registry, model, actor=actor(), reason=reason, evidence=evidence)


def rollback(model: str, *, reason: str = "", project: Project | None = None) -> Release:
    """Take the challenger out of traffic; without one, make the version before the champion the champion again.

    Parameters
    ----------
    model : str
        A model's name.
    reason : str, optional
        Why, for the audit trail.

    Raises
    ------
    Conflict
        If there is nothing to go back to.
    """
    from fairway.rollout import changes

    _check_name(model, "fairway rollback {}")
    project = project or Project.find()
    with project.registry(create=False) as registry:
        evidence = _evidence(registry, model, project)
        return changes.rollback(registry, model, actor=actor(), reason=reason, evidence=evidence)


def watch(
    model: str,
    *,
    project: Project | None = None,
    seen: Callable[[Step], None] = lambda _: None,
    wait: Callable[[float], None] = time.sleep,
) -> Step:
    """Judge the challenger by its traffic until it is promoted or rolled back, and return the step that did it.

    Any number of watchers may run, and may be stopped and started again: the release is a row in the registry.
    """
    from fairway.rollout.controller import step
    from fairway.rollout.watch import Watch

    project = project or Project.find()
    settings = project.settings
    watching = Watch()
    with project.registry(create=False) as registry:
        find_version(registry, model)
        while True:
            taken = step(
                registry,
                model,
                settings.gate,
                now=time.time(),
                settings=settings.release,
                actor=actor(),
                watch=watching,
            )
            seen(taken)
            if taken.action is not None or taken.release is None or taken.release.challenger is None:
                return taken
            wait(settings.release.interval_s)


def look(model: str, *, project: Project | None = None) -> Step:
    """The release as it is, and what its traffic says so far; changes nothing."""
    project = project or Project.find()
    with project.registry(create=False) as registry:
        find_version(registry, model)
        return _look(registry, model, project)


def _check_name(model: str, instead: str) -> None:
    ref = ModelRef.parse(model)
    if str(ref) != ref.name:
        raise InvalidConfig(
            f"{model} is one version, and its model's release is meant; run: {instead.format(ref.name)}"
        )


def withdrawn(registry: Registry, version: Version) -> Event | None:
    """The rollback that took ``version`` from callers, if that is the last that they saw of it."""
    last: Event | None = None
    served = False
    for event in registry.events(version.model, limit=_RECENT, newest=True):
        if "release" not in event.change:
            continue
        state = event.change["release"]
        serves = version.number in (state["champion"], state["challenger"])
        if served and not serves:
            last = event
        served = serves
    return last if not served and last is not None and last.action is Action.ROLLED_BACK else None


_RECENT = 10_000
"""Events: further back than anybody would look."""


def _look(registry: Registry, model: str, project: Project) -> Step:
    from fairway.rollout.controller import step

    settings = project.settings
    return step(registry, model, settings.gate, now=time.time(), settings=settings.release, act=False)


def _evidence(registry: Registry, model: str, project: Project) -> object:
    verdict = _look(registry, model, project).verdict
    return None if verdict is None else verdict.evidence()


def _evaluation(registry: Registry, version: Version, project: Project) -> Verdict | None:
    report = report_of(registry.fetch(version, project.cache))
    return None if report is None else report.verdict
