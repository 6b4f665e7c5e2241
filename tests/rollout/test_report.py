"""What a release's state looks like, and which command it tells to type next."""

from __future__ import annotations

import json

from fairway.core.gate import Gate, Limit
from fairway.rollout.changes import promote, start
from fairway.rollout.controller import Step, step
from fairway.rollout.report import as_json, as_text
from fairway.rollout.settings import ReleaseSettings
from tests.rollout.conftest import GOOD
from tests.rollout.fakes import MODEL, FakeRegistry

GATE = {"error_rate": Limit(max=0.01), "latency_p99_ms": Limit(max=10.0), "accuracy_score": Limit(min=0.9)}
SETTINGS = ReleaseSettings()


def seen(registry: FakeRegistry, gate: Gate = GATE, act: bool = False) -> Step:
    return step(registry, MODEL, gate, now=1720.0, settings=SETTINGS, act=act)


def text(done: Step) -> str:
    return as_text(MODEL, done, settings=SETTINGS, now=1720.0)


def test_a_failed_challenger_is_shown_with_intervals_error_rates_and_the_way_back(trying: FakeRegistry) -> None:
    trying.flush(1, 1010, requests=9000, errors=9)
    trying.flush(2, 1010, requests=1000, errors=50, ms=2.5)
    assert text(seen(trying)) == EXPECTED_FAILED


EXPECTED_FAILED = """\
digits: champion 1 (90% of callers), challenger 2 (10%), for 12 min
                requests      errors      p50 ms      p95 ms      p99 ms
  champion         9,000           9           2           2           2
  challenger       1,000          50         2.5         2.5         2.5

  ✗ error_rate is 0.05 [0.02784, 0.08094], max 0.01
  ✓ latency_p99_ms is 2.5 [2.5, 2.5], max 10
  judged at evaluation: accuracy_score min 0.9

verdict: failed
Looked at however often, a challenger that keeps every limit fails in at most 5% of releases,
and one that breaks a limit passes in at most 2.5%.
next: fairway rollback digits"""


def test_a_passed_challenger_can_be_promoted(trying: FakeRegistry) -> None:
    trying.flush(1, 1010, requests=9000)
    trying.flush(2, 1010, requests=2000)
    assert text(seen(trying)).endswith("next: fairway release digits --promote")


def test_a_passed_challenger_with_few_requests_says_how_many_are_missing(trying: FakeRegistry) -> None:
    trying.flush(2, 1010, requests=400)
    shown = text(seen(trying, {"error_rate": Limit(max=0.05)}))
    assert "promoted by itself after 100 more requests" in shown


def test_an_undecided_challenger_says_how_much_is_missing(trying: FakeRegistry) -> None:
    trying.flush(2, 1010, requests=100)
    shown = text(seen(trying))
    assert "? error_rate is 0" in shown
    assert "verdict: inconclusive" in shown
    assert shown.endswith("next: fairway release digits --watch")


def test_a_gate_without_a_live_limit_says_what_to_add(trying: FakeRegistry) -> None:
    shown = text(seen(trying, {"accuracy_score": Limit(min=0.9)}))
    assert "? no limit in [gate] can be judged on live traffic; add one there, such as: error_rate" in shown
    assert "in at most" not in shown


def test_what_was_done_is_said(trying: FakeRegistry) -> None:
    trying.flush(2, 1010, requests=1000, errors=50)
    shown = text(seen(trying, act=True))
    assert shown.startswith("digits: version 1 answers every caller")
    assert "verdict: failed, rolled back" in shown


def test_windows_that_do_not_count_are_told(trying: FakeRegistry) -> None:
    trying.flush_bytes(2, 1010, b"?")
    assert "1 window does not count: a traffic window is damaged" in text(seen(trying))


def test_without_a_challenger_it_says_who_answers_and_how_to_go_back(trying: FakeRegistry) -> None:
    promote(trying, MODEL, actor="ann")
    assert text(seen(trying)) == (
        "digits: version 2 answers every caller\nnext: fairway rollback digits, to go back to version 1"
    )


def test_without_a_release_it_says_how_to_make_one(registry: FakeRegistry) -> None:
    assert text(seen(registry)).endswith("next: fairway release digits:VERSION")
    start(registry, "digits:1", check=GOOD, actor="ann", now=1.0)
    assert text(seen(registry)) == "digits: version 1 answers every caller"


def test_json_says_the_same(trying: FakeRegistry) -> None:
    trying.flush(2, 1010, requests=1000, errors=50)
    document = json.loads(as_json(MODEL, seen(trying)))
    assert document["release"]["challenger"] == 2
    assert document["verdict"]["verdict"]["outcome"] == "failed"
    assert document["next"] == "fairway rollback digits"
    assert json.loads(as_json(MODEL, Step(None)))["verdict"] is None
