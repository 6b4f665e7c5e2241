"""Every error has a form on every wire."""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus

import pytest

from fairway.core.errors import FairwayError, InvalidBundle, Overloaded
from fairway.serving.status import WIRE, is_fault_of_server, wire

GRPC = {
    "INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
    "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "DEADLINE_EXCEEDED",
}  # fmt: skip


def kinds(base: type[FairwayError] = FairwayError) -> Iterator[type[FairwayError]]:
    yield base
    for kind in base.__subclasses__():
        if kind.__module__.startswith("fairway.core"):
            yield from kinds(kind)


@pytest.mark.parametrize("kind", list(kinds()))
def test_every_error_has_its_own_row(kind: type[FairwayError]) -> None:
    assert kind.code in WIRE


def test_every_row_is_an_error_that_every_wire_knows() -> None:
    assert set(WIRE) == {kind.code for kind in kinds()}
    for row in WIRE.values():
        assert HTTPStatus(row.http) >= 400
        assert row.grpc in GRPC
        assert row.queue in ("retry", "dead_letter")


def test_an_error_of_a_plug_in_looks_like_its_base() -> None:
    class Special(InvalidBundle):
        code = "special"

    assert wire(Special("x")) == WIRE["invalid_bundle"]


def test_error_rates_count_what_is_not_the_callers_fault() -> None:
    assert is_fault_of_server(Overloaded("full"))
    assert [code for code, row in sorted(WIRE.items()) if row.http == 504] == ["deadline_exceeded"]
