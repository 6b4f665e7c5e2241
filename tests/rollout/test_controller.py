"""A controller looks, decides and acts; any number of them, on whatever windows reached the registry."""

from __future__ import annotations

from typing import Any

import pytest

from fairway.core.events import Action
from fairway.core.gate import Limit, Outcome, Verdict
from fairway.registry.records import Release
from fairway.rollout.analysis import ReleaseVerdict, Tally
from fairway.rollout.changes import rollback, set_weight, start
from fairway.rollout.controller import Step, decide, step
from fairway.rollout.settings import ReleaseSettings
from fairway.rollout.watch import LATE_S, Watch
from tests.rollout.conftest import GOOD
from tests.rollout.fakes import MODEL, FakeRegistry

GATE = {"error_rate": Limit(max=0.01), "accuracy_score": Limit(min=0.9)}
SETTINGS = ReleaseSettings()


def look(registry: FakeRegistry, now: float = 1060.0, **options: Any) -> Step:
    return step(registry, MODEL, options.pop("gate", GATE), now=now, settings=SETTINGS, **options)


# Decide


def verdict(outcome: Outcome, requests: int) -> ReleaseVerdict:
    tally = Tally(requests, 0, requests, None, None, None)
    return ReleaseVerdict(Verdict(outcome, (), 0.05, 0.05), ("error_rate max 0.01",), (), tally, tally, 0.05)


@pytest.mark.parametrize(
    ("outcome", "requests", "waited_s", "action"),
    [
        (Outcome.PASSED, 500, 10, Action.PROMOTED),
        (Outcome.PASSED, 499, 10, None),
        (Outcome.PASSED, 499, 90_000, None),
        (Outcome.FAILED, 1, 10, Action.ROLLED_BACK),
        (Outcome.INCONCLUSIVE, 10_000, 86_399, None),
        (Outcome.INCONCLUSIVE, 10_000, 86_400, Action.ROLLED_BACK),
        (Outcome.ERROR, 10_000, 10, None),
    ],
)
def test_decisions(outcome: Outcome, requests: int, waited_s: float, action: Action | None) -> None:
    release = Release(MODEL, 1, 2, 0.1, started_at=1000.0)
    assert decide(verdict(outcome, requests), release, settings=SETTINGS, now=1000.0 + waited_s) is action


def test_without_a_longest_wait_it_waits() -> None:
    release = Release(MODEL, 1, 2, 0.1, started_at=0.0)
    settings = ReleaseSettings(max_wait_s=0)
    assert decide(verdict(Outcome.INCONCLUSIVE, 1), release, settings=settings, now=1e9) is None


# Step


def test_a_failing_challenger_goes_back_and_the_event_holds_the_evidence(trying: FakeRegistry) -> None:
    trying.flush(1, 1010, requests=1800)
    trying.flush(2, 1010, requests=200, errors=20)
    done = look(trying)
    assert done.action is Action.ROLLED_BACK
    assert done.release == trying.releases[MODEL]
    assert (trying.releases[MODEL].champion, trying.releases[MODEL].challenger) == (1, None)
    event = trying.trail[-1]
    assert (event.action, event.actor) == (Action.ROLLED_BACK, "controller")
    assert event.reason.startswith("digits:2 failed: error_rate is 0.1")
    assert event.evidence["challenger"]["errors"] == 20
    assert event.evidence["verdict"]["findings"][0]["measurement"]["low"] > 0.01


def test_a_good_challenger_is_promoted_once_there_is_enough_evidence(trying: FakeRegistry) -> None:
    actions = []
    for look_at in range(1010, 1100, 10):
        trying.flush(1, look_at, requests=900)
        trying.flush(2, look_at, requests=100)
        actions.append(look(trying, look_at + 10.0).action)
    assert actions == [None] * 6 + [Action.PROMOTED, None, None]
    assert (trying.releases[MODEL].champion, trying.releases[MODEL].previous) == (2, 1)


def test_a_challenger_without_a_verdict_goes_when_the_time_is_up_and_the_event_says_why(trying: FakeRegistry) -> None:
    assert look(trying, 1000.0 + 86_399).action is None
    assert look(trying, 1000.0 + 86_400, gate={"accuracy_score": Limit(min=0.9)}).action is Action.ROLLED_BACK
    assert "inconclusive after 86400 s: no limit in [gate]" in trying.trail[-1].reason


def test_without_a_challenger_there_is_nothing_to_do(registry: FakeRegistry) -> None:
    assert look(registry) == Step(None)
    start(registry, "digits:1", check=GOOD, actor="ann", now=500.0)
    assert look(registry) == Step(registry.releases[MODEL])


def test_looking_only_changes_nothing(trying: FakeRegistry) -> None:
    trying.flush(2, 1010, requests=200, errors=20)
    before = trying.releases[MODEL]
    seen = look(trying, act=False)
    assert (seen.verdict and seen.verdict.outcome, seen.action) == (Outcome.FAILED, None)
    assert trying.releases[MODEL] == before


def test_a_second_controller_finds_nothing_left_to_do(trying: FakeRegistry) -> None:
    trying.flush(2, 1010, requests=200, errors=20)
    first, second = look(trying, actor="a"), look(trying, actor="b")
    assert (first.action, second.action) == (Action.ROLLED_BACK, None)
    assert trying.actions.count(Action.ROLLED_BACK) == 1


def test_of_two_controllers_that_decide_at_once_one_acts(trying: FakeRegistry) -> None:
    trying.flush(2, 1010, requests=200, errors=20)
    trying.before_save = lambda: look(trying, actor="faster")
    late = look(trying, actor="late")
    assert late.action is None
    assert late.release == trying.releases[MODEL]
    assert [e.actor for e in trying.trail if e.action is Action.ROLLED_BACK] == ["faster"]


def test_a_release_that_changed_while_it_was_judged_is_left_for_the_next_look(trying: FakeRegistry) -> None:
    trying.flush(2, 1010, requests=200, errors=20)
    trying.before_save = lambda: set_weight(trying, MODEL, 0.5, actor="ann")
    assert look(trying).action is None
    assert trying.releases[MODEL].challenger == 2
    assert look(trying).action is Action.ROLLED_BACK


# Which traffic counts


def requests_seen(done: Step) -> tuple[int, int]:
    assert done.verdict is not None
    return done.verdict.champion.requests, done.verdict.challenger.requests


def test_only_traffic_since_the_release_started_counts(trying: FakeRegistry) -> None:
    trying.flush(1, 900)
    trying.flush(1, 995)  # began before the release: some of its calls were before
    trying.flush(1, 1000)
    trying.flush(2, 1000, replica="a")
    trying.flush(2, 1000, replica="b")
    trying.flush(3, 1000)
    assert requests_seen(look(trying)) == (100, 200)


def test_a_challenger_tried_again_starts_from_nothing(trying: FakeRegistry) -> None:
    watch = Watch()
    trying.flush(2, 1010, requests=50)
    assert requests_seen(look(trying, watch=watch)) == (0, 50)
    rollback(trying, MODEL, actor="ann")
    start(trying, "digits:2", check=GOOD, actor="ann", now=1100.0)
    trying.flush(2, 1110, requests=7)
    assert requests_seen(look(trying, 1130.0, watch=watch)) == (0, 7)


def test_a_kept_watch_reads_only_what_is_new_and_counts_each_window_once(trying: FakeRegistry) -> None:
    watch = Watch()
    for at in range(1000, 11_000, 10):
        trying.flush(1, at, requests=3)
        trying.flush(2, at, requests=1)
        now = at + 10.0
        if at % 100 == 0:
            step(trying, MODEL, GATE, now=now, settings=SETTINGS, watch=watch, act=False)
    kept, fresh = look(trying, now, watch=watch, act=False), look(trying, now, act=False)
    assert requests_seen(kept) == requests_seen(fresh) == (3000, 1000)
    trying.windows_read = 0
    look(trying, now, watch=watch, act=False)
    assert trying.windows_read <= 2 * LATE_S / 10


def test_a_window_that_arrives_late_still_counts(trying: FakeRegistry) -> None:
    watch = Watch()
    trying.flush(2, 1300, requests=5)
    look(trying, 1310.0, watch=watch)
    trying.flush(2, 1290, requests=7, replica="slow")
    look(trying, 1600.0, watch=watch)
    trying.flush(2, 1400, requests=9, replica="slower")
    assert requests_seen(look(trying, 1990.0, watch=watch)) == (0, 21)


def test_a_damaged_window_is_left_out_and_told_but_stops_nothing(trying: FakeRegistry) -> None:
    watch = Watch()
    trying.flush_bytes(2, 1010, b"not a window")
    trying.flush(2, 1020, requests=200, errors=20)
    seen = look(trying, watch=watch, act=False)
    again = look(trying, watch=watch)
    assert seen.unreadable == again.unreadable == 1
    assert "damaged" in again.problem
    assert again.action is Action.ROLLED_BACK
    assert trying.trail[-1].evidence["unreadable_windows"] == 1
