"""Running cases one after another."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterable

from fairway.testing.conformance.case import SUITES, Case, ConformanceFailure, NotOffered, Suite, registered
from fairway.testing.conformance.report import Outcome, Report, Result
from fairway.testing.conformance.target import Target

_MODULES = (
    "surface", "infer", "datatypes", "binary", "http", "management", "shared_memory", "concurrency",
    "rpc_surface", "rpc_infer", "rpc_management", "hostile",
)  # fmt: skip


def cases(suite: Suite = "triton") -> list[Case]:
    """The cases of a suite, in the order in which to run them.

    Parameters
    ----------
    suite : {"oip", "triton", "robust"}, default "triton"
        What the Open Inference Protocol requires; that and Triton's extensions; those and what any server should survive.
        The last holds requests that have crashed servers: don't send them to one that others use.

    Examples
    --------
    >>> [case.id for case in cases("oip")][:2]
    ['server.metadata', 'health.live']
    """
    for name in _MODULES:
        importlib.import_module(f"fairway.testing.conformance.rules.{name}")
    found = [case for case in registered() if case.level in SUITES[suite]]
    return sorted(found, key=lambda case: case.level == "robust")


def run(
    target: Target,
    suite: Suite = "triton",
    *,
    only: Callable[[Case], bool] | None = None,
    told: Callable[[Result], None] | None = None,
    patience_s: float = 5.0,
) -> Report:
    """Run a suite against a server.

    Parameters
    ----------
    target : Target
    suite : {"oip", "triton", "robust"}, default "triton"
        See :func:`cases`.
    only : callable, optional
        Which of its cases.
    told : callable, optional
        Is given each result as it comes.
    patience_s : float, default 5
        How long a server that stopped answering is given to come back, say because something starts it anew.
    """
    results: list[Result] = []
    gone = ""
    for case in filter(only, cases(suite)):
        result = Result(case.id, case.level, "not run", case.rule, gone) if gone else _result(case, target)
        if result.outcome == "failed" and not _comes_back(target, patience_s):
            gone = f"the server stopped answering at {case.id}"
        results.append(result)
        if told is not None:
            told(result)
    name, version = _who(target)
    return Report(target.url, name, version, tuple(results))


def _result(case: Case, target: Target) -> Result:
    begun = time.monotonic()

    def ended(outcome: Outcome, why: str = "", sent: str = "", came: str = "") -> Result:
        return Result(case.id, case.level, outcome, case.rule, why, sent, came, time.monotonic() - begun)

    try:
        case.run(target)
    except NotOffered as reason:
        return ended("not offered", str(reason))
    except ConformanceFailure as failure:
        return ended("failed", failure.wrong, failure.sent, failure.came)
    return ended("passed")


def _comes_back(target: Target, patience_s: float) -> bool:
    end = time.monotonic() + patience_s
    if target.alive():
        return True
    while not target.is_ready():
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True


def _who(target: Target) -> tuple[str, str]:
    try:
        body = target.get("/v2").json
        return str(body["name"]), str(body["version"])
    except (*target.connection_errors, AssertionError, LookupError, TypeError):
        return "", ""


def select(words: Iterable[str], but: Iterable[str] = ()) -> Callable[[Case], bool]:
    """Cases whose id holds any of ``words`` (all, if there are none), and none of ``but``."""
    wanted, unwanted = list(words), list(but)

    def chosen(case: Case) -> bool:
        return not any(word in case.id for word in unwanted) and (not wanted or any(word in case.id for word in wanted))

    return chosen
