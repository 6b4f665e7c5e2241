"""Look at a release, decide, act. Any number of controllers may do so: the registry's compare-and-swap decides between them."""

from __future__ import annotations

import msgspec

from fairway.core.errors import Conflict
from fairway.core.events import Action
from fairway.core.gate import Gate, Outcome
from fairway.registry.records import Release
from fairway.rollout.analysis import ReleaseVerdict, analyse
from fairway.rollout.changes import promoted, withdrawn
from fairway.rollout.settings import ReleaseSettings
from fairway.rollout.store import WindowStore
from fairway.rollout.watch import Watch


class Step(msgspec.Struct, frozen=True):
    """One look at a release.

    Attributes
    ----------
    release : Release or None
        As it is afterwards; ``None`` if the model was never released.
    verdict : ReleaseVerdict or None
        ``None`` if there is no challenger to judge.
    action : Action or None
        What this step did; ``None`` if it waits, or somebody else was faster.
    unreadable : int
        Windows that were damaged, or written by a newer Fairway, and do not count.
    problem : str
        Why the last of those could not be read.
    """

    release: Release | None
    verdict: ReleaseVerdict | None = None
    action: Action | None = None
    unreadable: int = 0
    problem: str = ""


def decide(verdict: ReleaseVerdict, release: Release, *, settings: ReleaseSettings, now: float) -> Action | None:
    """What to do about a challenger: promote it, roll it back, or ``None``: wait. Pure.

    A failed challenger goes at once. A passed one is promoted once it has answered ``min_requests``. One without a verdict
    after ``max_wait_s`` goes: what is not shown to be good does not stay.
    """
    if verdict.outcome is Outcome.FAILED:
        return Action.ROLLED_BACK
    if verdict.outcome is Outcome.PASSED:
        return Action.PROMOTED if verdict.challenger.requests >= settings.min_requests else None
    if settings.max_wait_s and now - release.started_at >= settings.max_wait_s:
        return Action.ROLLED_BACK
    return None


def step(
    registry: WindowStore,
    model: str,
    gate: Gate,
    *,
    now: float,
    settings: ReleaseSettings,
    actor: str = "controller",
    watch: Watch | None = None,
    act: bool = True,
) -> Step:
    """Judge the model's challenger by all of its traffic since the release started, and act on the verdict.

    Idempotent. It acts only on the very release that it judged: if that changed meanwhile, nothing is done.

    Parameters
    ----------
    registry : WindowStore
    model : str
    gate : mapping of metric name to Limit
    now : float
        Seconds since the epoch.
    settings : ReleaseSettings
    actor : str
        Who decides, for the audit trail.
    watch : Watch, optional
        Pass the same one at every step and only new windows are read.
    act : bool, default True
        ``False`` only looks.
    """
    release = registry.release(model)
    if release is None or release.challenger is None:
        return Step(release)
    watch = watch or Watch()
    champion, challenger = watch.look(registry, release, now=now)
    verdict = analyse(gate, champion, challenger, settings=settings)
    action = decide(verdict, release, settings=settings, now=now) if act else None
    seen = Step(release, verdict, action, watch.unreadable, watch.problem)
    if action is None:
        return seen
    try:
        saved = registry.save_release(
            promoted(release) if action is Action.PROMOTED else withdrawn(release),
            expected=release.revision,
            action=action,
            actor=actor,
            reason=_reason(verdict, release, now),
            evidence=verdict.evidence() | {"unreadable_windows": watch.unreadable},
        )
    except Conflict:
        return msgspec.structs.replace(seen, release=registry.release(model), action=None)
    return msgspec.structs.replace(seen, release=saved)


def _reason(verdict: ReleaseVerdict, release: Release, now: float) -> str:
    what = f"{release.model}:{release.challenger} {verdict.outcome}"
    waited = "" if verdict.outcome is Outcome.FAILED else f" after {now - release.started_at:.0f} s"
    return f"{what}{waited}: {'; '.join(verdict.reasons)}"
