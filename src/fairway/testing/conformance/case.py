"""What a conformance case is, and how one fails."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from fairway.testing.conformance.target import Target

Level: TypeAlias = Literal["required", "extension", "robust"]
Suite: TypeAlias = Literal["oip", "triton", "robust"]

SUITES: dict[Suite, tuple[Level, ...]] = {
    "oip": ("required",),
    "triton": ("required", "extension"),
    "robust": ("required", "extension", "robust"),
}
"""Which levels each suite runs. ``robust`` holds requests that some servers do not survive."""


class Unmet(AssertionError):
    """Inside a case: the server did not do what the rule says."""


class NotOffered(Exception):
    """Inside a case: the server does not claim to do this, or lacks the model that shows it."""


class ConformanceFailure(AssertionError):
    """A server broke a rule.

    Attributes
    ----------
    case, rule : str
        The case's id, and the rule in words.
    wrong : str
        What was not as the rule says.
    sent, came : str
        The last request of the case, and its answer; shortened.
    """

    def __init__(self, case: str, rule: str, wrong: str, sent: str, came: str) -> None:
        super().__init__(f"{case}: {wrong}\n  rule: {rule}\n  sent: {sent or 'nothing'}\n  came: {came or 'nothing'}")
        self.case, self.rule, self.wrong, self.sent, self.came = case, rule, wrong, sent, came


@dataclass(frozen=True)
class Case:
    """One rule of the protocol, and the requests that show whether a server keeps it.

    Attributes
    ----------
    id : str
        Stable, dotted: what it is about first, such as ``infer.id.absent``.
    rule : str
        The rule in words, with its source.
    level : {"required", "extension", "robust"}
        By the Open Inference Protocol itself; by an extension that Triton defined; or what any server should survive
        and answer well, although Triton may not.
    transport : {"rest", "grpc"}
    extensions : tuple of str
        Names in the server metadata's ``extensions`` of which one must be there; none: always offered.
    strict : bool
        Refusals must say that the caller is at fault (4xx, ``INVALID_ARGUMENT``); else any error will do.
    """

    id: str
    rule: str
    level: Level
    check: Callable[[Target], None]
    transport: Literal["rest", "grpc"] = "rest"
    extensions: tuple[str, ...] = ()
    strict: bool = False

    def run(self, target: Target) -> None:
        """Send this case's requests.

        Raises
        ------
        ConformanceFailure
            If the server breaks the rule: what was sent, what came, and what the rule says.
        NotOffered
            If the server does not claim this, or has not got the model for it.
        """
        target.forget(strict=self.strict)
        target.require(self)
        try:
            self.check(target)
        except Unmet as unmet:
            raise self._failure(target, str(unmet)) from None
        except target.connection_errors as error:
            raise self._failure(target, f"the connection broke: {type(error).__name__}: {error}") from None
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise self._failure(
                target, f"the answer has not the protocol's form: {type(error).__name__}: {error}"
            ) from error

    def _failure(self, target: Target, wrong: str) -> ConformanceFailure:
        return ConformanceFailure(self.id, self.rule, wrong, target.sent, target.came)

    def __str__(self) -> str:
        """The id: pytest shows it."""
        return self.id


Check: TypeAlias = "Callable[[Target], None]"
_CASES: dict[str, Case] = {}


def case(
    name: str,
    *,
    rule: str = "",
    level: Level = "required",
    extensions: Iterable[str] = (),
    strict: bool = False,
) -> Callable[[Check], Check]:
    """Register a case; ids that start with ``grpc.`` speak gRPC. Its rule is the function's docstring, unless given."""

    def register(check: Check) -> Check:
        if name in _CASES:
            raise ValueError(f"two cases are called {name}")
        transport: Literal["rest", "grpc"] = "grpc" if name.startswith("grpc.") else "rest"
        said = (rule or " ".join((check.__doc__ or "").split())).rstrip(".") + "."
        _CASES[name] = Case(name, said, level, check, transport, tuple(extensions), strict)
        return check

    return register


def registered() -> list[Case]:
    """Every case of the modules imported so far, in their order."""
    return list(_CASES.values())


def expect(condition: object, wrong: str) -> None:
    """Raise :class:`Unmet`, saying what is wrong, unless ``condition`` holds."""
    if not condition:
        raise Unmet(wrong)


def expect_equal(found: object, wanted: object, what: str) -> None:
    """Raise :class:`Unmet` unless both are equal."""
    if found != wanted:
        raise Unmet(f"{what} is {found!r}, not {wanted!r}")
