"""Measuring processes: started, brought to the same start, and read; several at once count as one server."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import msgspec

from fairway.bundle.format import Bundle
from fairway.serving.probe import READY, Observed, Plan, Span

_GONE = "another of the measuring processes did not begin"


def observe_together(bundle: Bundle, plans: Sequence[Plan]) -> Observed | str:
    """What processes with these plans observe, which begin their loads at the same time; or why nothing could be.

    Their requests count as those of one server. What each process has for itself (memory, time to load) is that of the
    largest.
    """
    start = threading.Barrier(len(plans))
    with ThreadPoolExecutor(len(plans)) as pool:
        seen = list(pool.map(lambda plan: _observe(bundle, plan, start), plans))
    if failed := [each for each in seen if isinstance(each, str)]:
        return next((why for why in failed if why != _GONE), failed[0])
    return joined([each for each in seen if isinstance(each, Observed)])


def joined(seen: Sequence[Observed]) -> Observed:
    """Several at once as one.

    Examples
    --------
    >>> one = Observed(10.0, 1.0, 50.0, [1.0, 2.0], [0.1, 0.2], 0, "")
    >>> other = Observed(12.0, 2.0, 40.0, [3.0], [0.1], 1, "late")
    >>> both = joined([one, other])
    >>> both.load_ms, both.latencies_ms, both.failures
    (12.0, [1.0, 2.0, 3.0], 1)
    """
    if len(seen) == 1:
        return seen[0]
    return Observed(
        load_ms=max(each.load_ms for each in seen),
        first_ms=max(each.first_ms for each in seen),
        memory_mb=max(each.memory_mb for each in seen),
        latencies_ms=[latency for each in seen for latency in each.latencies_ms],
        finished_s=[at for each in seen for at in each.finished_s],
        failures=sum(each.failures for each in seen),
        first_failure=next((each.first_failure for each in seen if each.first_failure), ""),
        saturated=[_span(spans) for spans in zip(*(each.saturated for each in seen), strict=False)],
    )


def _span(spans: Sequence[Span]) -> Span:
    """The counters are of the whole processor, whoever reads them."""
    joules = [span.joules for span in spans if span.joules is not None]
    seconds = sum(span.seconds for span in spans) / len(spans)
    rate = sum(span.answered / span.seconds for span in spans)
    return Span(
        seconds=seconds,
        answered=round(rate * seconds),
        cpu_s=sum(span.cpu_s / span.seconds for span in spans) * seconds,
        joules=sum(joules) / len(joules) if len(joules) == len(spans) else None,
    )


def _observe(bundle: Bundle, plan: Plan, start: threading.Barrier) -> Observed | str:
    command = [sys.executable, "-m", "fairway.serving.probe", str(bundle.path.absolute())]
    limit_s = plan.seconds * 3 + plan.saturate_s * 10 + 120
    late = threading.Event()
    with tempfile.TemporaryFile() as errors:  # no pipe: a full one would stop the process
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors) as process:

            def end() -> None:
                late.set()
                process.kill()

            timer = threading.Timer(limit_s, end)
            timer.start()
            try:
                out = _run(process, plan, start)
            except threading.BrokenBarrierError:
                process.kill()
                return _GONE
            finally:
                timer.cancel()
        if late.is_set():
            return f"the measuring process did not end within {limit_s:.0f} s"
        if process.returncode != 0:
            errors.seek(0)
            said = errors.read().decode(errors="replace").strip().splitlines()
            return f"the measuring process failed: {said[-1] if said else f'status {process.returncode}'}"
    try:
        return msgspec.json.decode(out, type=Observed)
    except msgspec.MsgspecError as error:
        return f"the measuring process ended without a result ({error}); measure again"


def _run(process: subprocess.Popen[bytes], plan: Plan, start: threading.Barrier) -> bytes:
    """What the process writes of its load, which it begins once all are ready."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(msgspec.json.encode(plan) + b"\n")
        process.stdin.flush()
        if process.stdout.readline().strip() != READY:
            start.abort()
            return b""
        start.wait()
        process.stdin.write(b"go\n")
        process.stdin.flush()
    except BrokenPipeError:  # it has ended, and its status says how
        start.abort()
    return process.stdout.read()
