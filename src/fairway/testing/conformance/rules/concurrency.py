"""Many callers at once: everybody gets an answer to their own question."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from fairway.testing.conformance.case import case, expect, expect_equal
from fairway.testing.conformance.target import Target, head, outputs
from fairway.testing.conformance.tensors import Tensor, same, tensor
from fairway.testing.conformance.wire import Reply

CALLERS, EACH = 16, 12
T = TypeVar("T")


def together(ask: Callable[[int], T], count: int, callers: int = CALLERS) -> list[T]:
    """``ask(0)`` … from many threads; the first failure is raised."""
    with ThreadPoolExecutor(callers) as pool:
        return list(pool.map(ask, range(count)))


@case("concurrency.rows")
def rows(target: Target) -> None:
    """Rows are never given to another caller, whoever shares the batch (MLServer#1306)."""
    model = target.standard("identity_fp32").name

    def ask(number: int) -> None:
        given = tensor("x", "FP32", [[number, row, 0.5] for row in range(1 + number % 5)])
        reply = target.infer_json(model, [given], id=f"c{number}")
        same(outputs(reply)["y"], Tensor("y", "FP32", given.array))
        expect_equal(head(reply).get("id"), f"c{number}", "id")

    together(ask, CALLERS * EACH)


@case("concurrency.shapes", level="required")
def shapes(target: Target) -> None:
    """Requests of different shapes at the same time are answered each in its own."""
    model = target.standard("row_sum").name

    def ask(number: int) -> None:
        given = np.full((1 + number % 3, 1 + number % 7), number, np.float32)
        found = outputs(target.infer_json(model, [Tensor("x", "FP32", given)]))["y"]
        expect_equal(found.array.tolist(), given.sum(axis=1, keepdims=True).tolist(), "the sums")

    together(ask, CALLERS * EACH)


@case("concurrency.wanted")
def wanted(target: Target) -> None:
    """Callers who want different outputs at the same time get each their own (MLServer#514)."""
    model = target.standard("add_sub").name

    def ask(number: int) -> None:
        inputs = [tensor("a", "INT32", [[number] * 4]), tensor("b", "INT32", [[1] * 4])]
        name, value = (("sum", number + 1), ("difference", number - 1))[number % 2]
        found = outputs(target.infer_json(model, inputs, outputs=[{"name": name}]))
        expect_equal({k: t.array.tolist() for k, t in found.items()}, {name: [[value] * 4]}, "the outputs")

    together(ask, CALLERS * EACH)


@case("concurrency.alone")
def fails_alone(target: Target) -> None:
    """A request that fails, fails alone: those beside it are answered."""
    model = target.standard("picky").name

    def ask(number: int) -> None:
        index = 9 if number % 4 == 0 else number % 4
        reply = target.infer_json(model, [tensor("x", "INT64", [[index]])])
        if index == 9:
            expect(reply.status >= 400, f"the bad request was answered {reply.status}")
        else:
            expect_equal(outputs(reply)["y"].array.tolist(), [[index * 10.0]], "the answer")

    together(ask, CALLERS * EACH)


@case("batch.many_rows")
def many_rows(target: Target) -> None:
    """A request of many rows is answered with as many."""
    given = tensor("x", "FP32", [[row, -row] for row in range(50)])
    same(
        outputs(target.infer_json(target.standard("identity_fp32").name, [given]))["y"],
        Tensor("y", "FP32", given.array),
    )


@case("batch.too_large")
def too_large(target: Target) -> None:
    """A request above the largest batch is answered in full or refused with an error; never cut (bentoml#3859)."""
    reply, given = _eleven(target)
    if reply.status == 200:
        same(outputs(reply)["y"], Tensor("y", "FP32", given.array))
    else:
        expect(400 <= reply.status < 500, f"answered {reply.status}")
        _ = reply.error


@case("batch.too_large.split", level="robust")
def split(target: Target) -> None:
    """A request above the largest batch is split, run and joined."""
    reply, given = _eleven(target)
    same(outputs(reply)["y"], Tensor("y", "FP32", given.array))


def _eleven(target: Target) -> tuple[Reply, Tensor]:
    """More rows than ``small_batches`` takes at once."""
    given = tensor("x", "FP32", [[row, row + 0.5, -row, 1] for row in range(11)])
    return target.infer_json(target.standard("small_batches").name, [given]), given


@case("slow.others", level="robust")
def others_answer(target: Target) -> None:
    """While one model computes, health and other models answer."""
    slow, quick = target.standard("slow").name, target.standard("identity_fp32").name
    outputs(target.infer_json(slow, [tensor("x", "INT64", [[200]])]))  # a server may learn from it what the model costs

    def ask(number: int) -> float:
        begun = time.monotonic()
        if number == 0:
            outputs(target.infer_json(slow, [tensor("x", "INT64", [[1500]])]))
        else:
            time.sleep(0.1)  # the slow one is being computed by now
            begun = time.monotonic()
            if number % 2:
                expect_equal(target.get("/v2/health/live").status, 200, "the status of health")
            else:
                outputs(target.infer_json(quick, [tensor("x", "FP32", [[1, 2]])]))
        return time.monotonic() - begun

    slowest, *others = together(ask, 7, callers=7)
    expect(max(others) < slowest / 2, f"others took {max(others):.2f} s beside a request of {slowest:.2f} s")


@case("slow.timeout", level="robust", extensions=["schedule_policy"])
def timeout(target: Target) -> None:
    """A request whose timeout passes in the queue is refused then, not after the one in progress (triton#7512)."""
    model = target.standard("slow").name

    def ask(number: int) -> tuple[float, int]:
        begun = time.monotonic()
        fields = {} if number == 0 else {"parameters": {"timeout": 100_000}}
        if number:
            time.sleep(0.2)
            begun = time.monotonic()
        reply = target.infer_json(model, [tensor("x", "INT64", [[3000 if number == 0 else 1]])], **fields)
        return time.monotonic() - begun, reply.status

    (slowest, _), (waited, status) = together(ask, 2, callers=2)
    expect(status >= 400 or waited < slowest / 2, f"answered {status} after {waited:.2f} s")
    expect(
        waited < slowest / 2, f"refused after {waited:.2f} s, its limit being 0.1 s (the other took {slowest:.2f} s)"
    )
