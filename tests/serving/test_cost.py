"""What the cost curve learns from calls that took far longer than expected."""

from __future__ import annotations

from fairway.serving.cost import BLOCKING_US, CostCurve


def quick(curve: CostCurve) -> CostCurve:
    for _ in range(200):
        curve.learn(1, 10.0)
    return curve


def test_one_stall_of_the_machine_moves_the_curve_little() -> None:
    curve = quick(CostCurve())
    curve.learn(1, 1e6)
    assert curve.expect(1) < 11


def test_one_call_that_surely_took_long_says_that_the_next_may() -> None:
    curve = quick(CostCurve(BLOCKING_US))
    curve.learn(1, 40_000.0)
    assert curve.expect(1) > 250


def test_it_is_forgotten_when_it_does_not_happen_again() -> None:
    curve = quick(CostCurve(BLOCKING_US))
    curve.learn(1, 40_000.0)
    for _ in range(1500):
        curve.learn(1, 10.0)
    assert curve.expect(1) < 11
