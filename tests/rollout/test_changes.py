"""Start, weigh, promote, roll back: what each does, refuses, records, and does when somebody else is faster."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.core.errors import Conflict, FairwayError, GateRefused, InvalidConfig, ModelNotFound
from fairway.core.events import Action
from fairway.core.gate import Finding, Outcome, Verdict
from fairway.rollout.changes import ATTEMPTS, promote, rollback, set_weight, start
from tests.rollout.conftest import GOOD
from tests.rollout.fakes import MODEL, FakeRegistry

BAD = Verdict(
    Outcome.FAILED,
    (Finding("accuracy_score", "min", 0.95, Outcome.FAILED, "accuracy_score is 0.9, min 0.95"),),
    0.025,
    0.05,
)


def state(registry: FakeRegistry) -> tuple[int, int | None, float, int | None]:
    release = registry.releases[MODEL]
    return release.champion, release.challenger, release.weight, release.previous


# Start


def test_the_first_version_becomes_the_champion_and_the_next_its_challenger(registry: FakeRegistry) -> None:
    start(registry, "digits:1", check=GOOD, actor="ann", now=500.0, weight=0.3)
    assert state(registry) == (1, None, 0.0, None)
    release = start(registry, "digits:2", check=GOOD, actor="ann", now=1000.0, weight=0.3)
    assert state(registry) == (1, 2, 0.3, None)
    assert release.started_at == 1000.0
    assert registry.actions == [Action.RELEASED, Action.RELEASED]


def test_a_champion_by_alias_counts_although_nothing_was_released(registry: FakeRegistry) -> None:
    registry.champion[MODEL] = 1
    start(registry, "digits:2", check=GOOD, actor="ann", now=1000.0)
    assert state(registry) == (1, 2, 0.1, None)


@pytest.mark.parametrize(
    ("check", "why"),
    [
        (BAD, "accuracy_score is 0.9"),
        (None, "no evaluation"),
        (Verdict(Outcome.INCONCLUSIVE, (), 0, 0), "inconclusive"),
    ],
)
def test_a_version_whose_evaluation_is_not_passed_is_refused_with_its_evidence(
    registry: FakeRegistry, check: Verdict | None, why: str
) -> None:
    with pytest.raises(GateRefused, match=why):
        start(registry, "digits:1", check=check, actor="ann", now=500.0)
    assert registry.releases == {}
    [event] = registry.trail
    assert (event.action, event.actor) == (Action.REFUSED, "ann")
    assert why in event.reason
    assert (event.evidence["evaluation"] is None) == (check is None)


def test_force_needs_a_reason_and_records_it_with_the_verdict(registry: FakeRegistry) -> None:
    with pytest.raises(InvalidConfig, match="--reason"):
        start(registry, "digits:1", check=BAD, actor="ann", now=500.0, force=True, reason=" ")
    start(registry, "digits:1", check=BAD, actor="ann", now=500.0, force=True, reason="the label was wrong")
    [event] = registry.trail
    assert event.action is Action.RELEASED
    assert "against the gate: the label was wrong" in event.reason
    assert event.evidence["forced"] is True
    assert event.evidence["evaluation"]["outcome"] == "failed"


def test_a_second_challenger_must_wait_and_is_told_for_what(trying: FakeRegistry) -> None:
    with pytest.raises(Conflict, match=r"digits:2 is being tried .* --promote, or .* fairway rollback digits"):
        start(trying, "digits:3", check=GOOD, actor="ann", now=2000.0)
    assert state(trying) == (1, 2, 0.1, None)


def test_the_champion_cannot_challenge_itself(registry: FakeRegistry) -> None:
    start(registry, "digits:1", check=GOOD, actor="ann", now=500.0)
    with pytest.raises(Conflict, match="champion already"):
        start(registry, "digits:1", check=GOOD, actor="ann", now=600.0)


@pytest.mark.parametrize("weight", [0.0, -0.1, 1.1, float("nan")])
def test_a_weight_is_above_0_and_up_to_1(trying: FakeRegistry, weight: float) -> None:
    with pytest.raises(InvalidConfig, match="above 0 and up to 1"):
        start(trying, "digits:3", check=GOOD, actor="ann", now=500.0, weight=weight)
    with pytest.raises(InvalidConfig, match="above 0 and up to 1"):
        set_weight(trying, MODEL, weight, actor="ann")


def test_of_two_who_start_at_once_one_is_told(registry: FakeRegistry) -> None:
    start(registry, "digits:1", check=GOOD, actor="ann", now=500.0)
    registry.before_save = lambda: start(registry, "digits:3", check=GOOD, actor="bob", now=999.0)
    with pytest.raises(Conflict):
        start(registry, "digits:2", check=GOOD, actor="ann", now=1000.0)
    assert state(registry) == (1, 3, 0.1, None)


# Weigh, promote, roll back


def test_a_weight_can_be_changed_on_the_way(trying: FakeRegistry) -> None:
    assert set_weight(trying, MODEL, 0.5, actor="ann").weight == 0.5
    assert trying.releases[MODEL].started_at == 1000.0
    set_weight(trying, MODEL, 0.5, actor="ann")
    assert trying.actions.count(Action.WEIGHTED) == 1


def test_a_promoted_challenger_is_the_champion_and_the_old_one_is_remembered(trying: FakeRegistry) -> None:
    promote(trying, MODEL, actor="ann")
    assert state(trying) == (2, None, 0.0, 1)
    assert trying.aliases(MODEL) == {"champion": 2}


def test_rolling_back_removes_the_challenger(trying: FakeRegistry) -> None:
    rollback(trying, MODEL, actor="ann", reason="users complain", evidence={"tickets": 3})
    assert state(trying) == (1, None, 0.0, None)
    assert (trying.trail[-1].reason, trying.trail[-1].evidence) == ("users complain", {"tickets": 3})


def test_rolling_back_without_a_challenger_returns_to_the_previous_champion_once(trying: FakeRegistry) -> None:
    promote(trying, MODEL, actor="ann")
    rollback(trying, MODEL, actor="ann")
    assert state(trying) == (1, None, 0.0, None)
    with pytest.raises(Conflict, match="no champion before it"):
        rollback(trying, MODEL, actor="ann")
    assert state(trying) == (1, None, 0.0, None)


def test_without_a_release_each_says_what_to_do(registry: FakeRegistry) -> None:
    for change in (promote, rollback):
        with pytest.raises(Conflict, match="never released; run: fairway release digits:9"):
            change(registry, MODEL, actor="ann")
        with pytest.raises(ModelNotFound):
            change(registry, "nobody", actor="ann")


def test_without_a_challenger_there_is_nothing_to_promote_or_weigh(registry: FakeRegistry) -> None:
    start(registry, "digits:1", check=GOOD, actor="ann", now=500.0)
    with pytest.raises(Conflict, match="no challenger"):
        promote(registry, MODEL, actor="ann")
    with pytest.raises(Conflict, match="no challenger"):
        set_weight(registry, MODEL, 0.5, actor="ann")


# Somebody else is faster


def test_what_still_makes_sense_is_tried_again(trying: FakeRegistry) -> None:
    trying.before_save = lambda: set_weight(trying, MODEL, 0.5, actor="bob")
    promote(trying, MODEL, actor="ann")
    assert state(trying) == (2, None, 0.0, 1)


def test_what_is_done_already_is_not_done_twice(trying: FakeRegistry) -> None:
    trying.before_save = lambda: promote(trying, MODEL, actor="bob")
    promote(trying, MODEL, actor="ann")
    assert trying.actions.count(Action.PROMOTED) == 1


def test_two_rollbacks_at_once_go_back_one_step_not_two(trying: FakeRegistry) -> None:
    promote(trying, MODEL, actor="ann")
    start(trying, "digits:3", check=GOOD, actor="ann", now=2000.0)
    trying.before_save = lambda: rollback(trying, MODEL, actor="bob")
    rollback(trying, MODEL, actor="ann")
    assert state(trying) == (2, None, 0.0, 1)


def test_two_rollbacks_of_a_champion_at_once_go_back_one_step(trying: FakeRegistry) -> None:
    promote(trying, MODEL, actor="ann")
    trying.before_save = lambda: rollback(trying, MODEL, actor="bob")
    rollback(trying, MODEL, actor="ann")
    assert state(trying) == (1, None, 0.0, None)
    assert trying.actions.count(Action.ROLLED_BACK) == 1


def test_a_rollback_of_what_was_promoted_meanwhile_asks_to_look_again(trying: FakeRegistry) -> None:
    trying.before_save = lambda: promote(trying, MODEL, actor="bob")
    with pytest.raises(Conflict, match="changed meanwhile: now champion 2"):
        rollback(trying, MODEL, actor="ann")
    assert state(trying) == (2, None, 0.0, 1)


def test_a_promotion_of_what_was_rolled_back_meanwhile_asks_to_look_again(trying: FakeRegistry) -> None:
    trying.before_save = lambda: rollback(trying, MODEL, actor="bob")
    with pytest.raises(Conflict, match="changed meanwhile"):
        promote(trying, MODEL, actor="ann")
    assert state(trying) == (1, None, 0.0, None)


def test_a_row_that_never_stands_still_is_given_up(trying: FakeRegistry) -> None:
    tries = []

    def faster() -> None:
        tries.append(1)
        set_weight(trying, MODEL, len(tries) / 100, actor="bob")
        trying.before_save = faster

    trying.before_save = faster
    with pytest.raises(Conflict, match="keeps changing"):
        promote(trying, MODEL, actor="ann")
    assert len(tries) == ATTEMPTS


steps = st.sampled_from(["start 1", "start 2", "start 3", "weigh", "promote", "roll back"])


@given(st.lists(steps, max_size=15))
def test_any_course_of_events_leaves_a_release_that_makes_sense(course: list[str]) -> None:
    registry = FakeRegistry()
    for at, what in enumerate(course):
        try:
            if what.startswith("start"):
                start(registry, f"digits:{what[-1]}", check=GOOD, actor="ann", now=float(at))
            elif what == "weigh":
                set_weight(registry, MODEL, 0.5, actor="ann")
            else:
                (promote if what == "promote" else rollback)(registry, MODEL, actor="ann")
        except FairwayError:
            continue
        release = registry.releases[MODEL]  # the registry refuses what contradicts itself
        assert release.revision == len(registry.trail)
        assert registry.champion[MODEL] == release.champion
        assert (release.challenger is None) == (release.weight == 0)
        assert release.previous != release.champion
