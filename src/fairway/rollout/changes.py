"""Start, weigh, promote and roll back: each is one change of a release's row, with its event.

Each decides on the row it read and writes only if that row is still there. Where somebody else was faster, it looks again:
what it wanted may be done already, may still be right, or may no longer make sense, which is a :class:`Conflict`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import msgspec

from fairway.core.errors import Conflict, GateRefused, InvalidConfig
from fairway.core.events import Action
from fairway.core.gate import Verdict
from fairway.registry.records import CHAMPION, Release, Version
from fairway.rollout.store import ReleaseStore

ATTEMPTS = 20
"""How often a change is tried again when others change the same row at the same time."""


def start(
    registry: ReleaseStore,
    ref: str,
    *,
    check: Verdict | None,
    actor: str,
    now: float,
    weight: float = 0.1,
    force: bool = False,
    reason: str = "",
) -> Release:
    """Release a version: as challenger with ``weight`` of the callers, or as champion if there is none yet.

    Parameters
    ----------
    registry : ReleaseStore
    ref : str
        Such as ``digits:4``.
    check : Verdict or None
        Of the version's evaluation report; ``None`` if it has none.
    actor : str
        Who does this, for the audit trail.
    now : float
        Seconds since the epoch. Traffic before it does not count.
    weight : float, default 0.1
        Above 0 and up to 1.
    force : bool, default False
        Release it although its evaluation was not passed. Needs a ``reason``, which is recorded with the verdict.

    Raises
    ------
    GateRefused
        If its evaluation was not passed. The refusal is recorded with the verdict.
    Conflict
        If it is the champion already, or a challenger is being tried.
    ModelNotFound, InvalidConfig
        If there is no such version; if the weight is out of range, or force has no reason.
    """
    _check_weight(weight)
    if force and not reason.strip():
        raise InvalidConfig("releasing against the gate needs a reason, which is recorded; add: --reason 'WHY'")
    version = registry.version(ref)
    current = registry.release(version.model)
    evidence = {"evaluation": None if check is None else msgspec.to_builtins(check), "forced": force}
    if not force and (check is None or not check.passed):
        _refuse(registry, version, check, actor, evidence)
    _check_room(version, current)
    forced = bool(force and (check is None or not check.passed))
    champion = current.champion if current else registry.aliases(version.model).get(CHAMPION, version.number)
    if champion == version.number:
        wanted, what = Release(version.model, champion), "the first champion"
    else:
        previous = current.previous if current else None
        wanted = Release(version.model, champion, version.number, weight, previous)
        what = f"challenger of {version.model}:{champion} at {weight:.0%}"
    return registry.save_release(
        msgspec.structs.replace(wanted, started_at=now),
        expected=current.revision if current else None,
        action=Action.RELEASED,
        actor=actor,
        reason=f"{what}{', against the gate' if forced else ''}{': ' + reason if reason else ''}",
        evidence=evidence,
    )


def set_weight(registry: ReleaseStore, model: str, weight: float, *, actor: str, reason: str = "") -> Release:
    """Give the challenger another share of the callers, above 0 and up to 1. Raises :class:`Conflict` without one."""
    _check_weight(weight)
    seen = _read(registry, model)
    challenger = _challenger(seen)

    def wanted(release: Release) -> Release | None:
        _check_same(release, challenger)
        return None if release.weight == weight else msgspec.structs.replace(release, weight=weight)

    why = reason or f"{model}:{challenger} at {weight:.0%}"
    return _change(registry, seen, wanted, Action.WEIGHTED, actor, reason=why)


def promote(registry: ReleaseStore, model: str, *, actor: str, reason: str = "", evidence: Any = None) -> Release:
    """Make the challenger the champion. Raises :class:`Conflict` if there is none, or somebody took it back meanwhile."""
    seen = _read(registry, model)
    challenger = _challenger(seen)

    def wanted(release: Release) -> Release | None:
        if release.challenger is None and release.champion == challenger:
            return None
        _check_same(release, challenger)
        return promoted(release)

    why = reason or f"{model}:{challenger} replaces {model}:{seen.champion}"
    return _change(registry, seen, wanted, Action.PROMOTED, actor, reason=why, evidence=evidence)


def rollback(registry: ReleaseStore, model: str, *, actor: str, reason: str = "", evidence: Any = None) -> Release:
    """Take the challenger out of traffic; without one, make the version before the champion the champion again.

    Raises
    ------
    Conflict
        If there is nothing to go back to, or somebody promoted the challenger meanwhile.
    ModelNotFound
        If there is no such model.
    """
    seen = _read(registry, model)
    challenger, back = seen.challenger, seen.previous
    if challenger is None and back is None:
        raise Conflict(
            f"{model}:{seen.champion} has no challenger, and no champion before it is known; "
            f"release another version with: fairway release {model}:VERSION"
        )

    def wanted(release: Release) -> Release | None:
        if challenger is None:
            if release.champion == back and release.challenger is None:
                return None
            if (release.champion, release.challenger, release.previous) != (seen.champion, None, back):
                raise _moved(release)
            return reverted(release)
        if release.challenger is None and release.champion == seen.champion:
            return None
        _check_same(release, challenger)
        return withdrawn(release)

    gone, stays = (challenger, seen.champion) if challenger is not None else (seen.champion, back)
    why = reason or f"{model}:{gone} goes, {model}:{stays} answers"
    return _change(registry, seen, wanted, Action.ROLLED_BACK, actor, reason=why, evidence=evidence)


def promoted(release: Release) -> Release:
    """The challenger as champion."""
    return msgspec.structs.replace(
        release, champion=_challenger(release), challenger=None, weight=0.0, previous=release.champion
    )


def withdrawn(release: Release) -> Release:
    """Without the challenger."""
    return msgspec.structs.replace(release, challenger=None, weight=0.0)


def reverted(release: Release) -> Release:
    """With the previous champion. Nothing is known before it: a second rollback must not bring the bad one back."""
    return msgspec.structs.replace(release, champion=release.previous or release.champion, previous=None)


def _change(
    registry: ReleaseStore,
    seen: Release,
    wanted: Callable[[Release], Release | None],
    action: Action,
    actor: str,
    *,
    reason: str,
    evidence: Any = None,
) -> Release:
    """Write what ``wanted`` makes of the row; ``None`` is done already. Look again as long as others are faster."""
    for _ in range(ATTEMPTS):
        changed = wanted(seen)
        if changed is None:
            return seen
        try:
            return registry.save_release(
                changed, expected=seen.revision, action=action, actor=actor, reason=reason, evidence=evidence
            )
        except Conflict:
            seen = _read(registry, seen.model)
    raise Conflict(f"the release of {seen.model} keeps changing; stop the other writers, then try again")


def _read(registry: ReleaseStore, model: str) -> Release:
    release = registry.release(model)
    if release is None:
        version = registry.version(model)  # ModelNotFound, if that is what it is
        raise Conflict(f"{model} was never released; run: fairway release {model}:{version.number}")
    return release


def _challenger(release: Release) -> int:
    if release.challenger is None:
        raise Conflict(
            f"{release.model} has no challenger: {release.model}:{release.champion} answers every caller; "
            f"start one with: fairway release {release.model}:VERSION"
        )
    return release.challenger


def _check_same(release: Release, challenger: int) -> None:
    if release.challenger != challenger:
        raise _moved(release)


def _moved(release: Release) -> Conflict:
    challenger = f"challenger {release.challenger} at {release.weight:.0%}" if release.challenger else "no challenger"
    return Conflict(
        f"the release of {release.model} changed meanwhile: now champion {release.champion}, {challenger}; "
        f"look again with: fairway status {release.model}"
    )


def _check_weight(weight: float) -> None:
    if not 0 < weight <= 1:
        raise InvalidConfig(
            f"a challenger's weight is above 0 and up to 1, not {weight:g}; to take it out: fairway rollback NAME"
        )


def _check_room(version: Version, current: Release | None) -> None:
    if current is None:
        return
    model = version.model
    if current.challenger is not None:
        raise Conflict(
            f"{model}:{current.challenger} is being tried against {model}:{current.champion} at {current.weight:.0%}; "
            f"first keep it with: fairway release {model} --promote, or take it out with: fairway rollback {model}"
        )
    if current.champion == version.number:
        raise Conflict(f"{version.ref} is the champion already: it answers every caller")


def _refuse(
    registry: ReleaseStore, version: Version, check: Verdict | None, actor: str, evidence: dict[str, Any]
) -> NoReturn:
    if check is None:
        why = "it carries no evaluation; run: fairway evaluate, then pack and register it again"
    else:
        why = f"its evaluation is {check.outcome}: {'; '.join(check.reasons)}"
    registry.record(version.model, Action.REFUSED, actor, reason=f"{version.ref}: {why}", evidence=evidence)
    raise GateRefused(
        f"{version.ref} is not released: {why}. "
        f"Improve it, or go against the gate with: fairway release {version.ref} --force --reason 'WHY'"
    )
