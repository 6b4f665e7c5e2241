"""Logging never keeps a server waiting, whatever becomes of its reader."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import httpx
import pytest

from fairway.bundle.format import Bundle
from fairway.serving import logs
from fairway.serving.access_lines import AnswerLog, access, log_request
from fairway.serving.log_settings import LogSettings
from fairway.serving.logs import QueuedLines
from fairway.serving.transports.reading import TurnClock
from tests.serving.conftest import request_of


def _take(written: bytearray, _: int, parts: Sequence[bytes]) -> int:
    content = b"".join(parts)
    written.extend(content)
    return len(content)


def record(text: str) -> logging.LogRecord:
    return logging.LogRecord("fairway", logging.INFO, __file__, 0, text, (), None)


def test_lines_are_written_whole_and_in_order_however_little_the_reader_takes_at_a_time() -> None:
    written = bytearray()

    def write(_: int, parts: Sequence[bytes]) -> int:
        content = b"".join(parts)
        written.extend(content[:7])
        return min(7, len(content))

    handler = QueuedLines(2, write=write, patience_s=20)
    texts = [f"line {n} ünd half a pair \ud800" for n in range(500)]
    for text in texts:
        handler.handle(record(text))
    handler.close()
    assert written.decode().splitlines() == [text.replace("\ud800", "\\ud800") for text in texts]


def test_above_the_limit_lines_are_dropped_and_counted() -> None:
    written: list[str] = []
    entered, go_on = threading.Event(), threading.Event()

    def write(_: int, parts: Sequence[bytes]) -> int:
        content = b"".join(parts)
        entered.set()
        assert go_on.wait(20)
        written.append(content.decode())
        return len(content)

    handler = QueuedLines(2, limit=3, write=write, patience_s=20)
    handler.handle(record("first"))
    assert entered.wait(20)
    for n in range(10):
        handler.handle(record(str(n)))
    go_on.set()
    while len("".join(written).split()) < 4:
        assert go_on.wait(20)
    handler.setFormatter(logging.Formatter("%(message)s"))
    handler.handle(record("last"))
    handler.close()
    assert "".join(written).split() == ["first", "0", "1", "2", "log_lines_dropped", "last"]


def test_whoever_logs_while_a_line_is_queued_waits_for_nobody() -> None:
    """The garbage collector may run at any time, and what it collects may log."""
    written = bytearray()
    handler = QueuedLines(2, write=partial(_take, written), patience_s=20)

    class Logs(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            handler.line("collected")
            return super().format(record)

    handler.setFormatter(Logs())
    handler._dropped = 1  # the next line tells of it, from within
    thread = threading.Thread(target=handler.line, args=["next"], daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
    handler.close()
    assert sorted(written.decode().split()) == ["collected", "log_lines_dropped", "next"]


def test_a_reader_that_left_or_a_full_disk_are_no_matter() -> None:
    calls = []

    def write(_: int, parts: Sequence[bytes]) -> int:
        content = b"".join(parts)
        calls.append(content)
        raise BrokenPipeError

    handler = QueuedLines(2, write=write, patience_s=20)
    handler.handle(record("a"))
    handler.close()
    assert b"".join(calls) == b"a\n"


def test_what_a_full_disk_did_not_take_is_counted_and_cuts_no_later_line() -> None:
    disk, full = bytearray(), threading.Event()

    def write(_: int, parts: Sequence[bytes]) -> int:
        content = b"".join(parts)
        if len(disk) < 5:
            disk.extend(content[: 5 - len(disk)])
            return 5
        if not full.is_set():
            full.set()
            raise OSError(errno.ENOSPC, "no space left on device")
        disk.extend(content)
        return len(content)

    handler = QueuedLines(2, write=write, patience_s=20)
    handler.handle(record("a line that is cut"))
    assert full.wait(20)
    while not handler._dropped:  # it is counted right after
        threading.Event().wait(0.001)
    handler.handle(record("the next"))
    handler.close()
    assert disk.decode().splitlines() == ["a lin", "log_lines_dropped", "the next"]


def test_a_server_whose_log_has_no_room_on_its_disk_answers_and_stops(
    bundles: tuple[Bundle, ...], tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "fairway", "serve", str(bundles[0].path), "--port", "0", "--json"]
    with (
        Path("/dev/full").open("w") as full,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=full, cwd=tmp_path) as process,
    ):
        try:
            assert process.stdout is not None
            url = json.loads(process.stdout.readline())["url"]
            with httpx.Client(base_url=url, timeout=20) as http:
                for _ in range(200):
                    assert http.post("/v2/models/linear/infer", json=request_of()).status_code == 200
            process.send_signal(2)
            assert process.wait(30) == 0
        finally:
            process.kill()


def test_a_server_whose_log_nobody_reads_answers_and_stops(bundles: tuple[Bundle, ...], tmp_path: Path) -> None:
    reader, writer = os.pipe()  # 64 KiB, about 200 requests
    command = [sys.executable, "-m", "fairway", "serve", str(bundles[0].path), "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=writer, cwd=tmp_path) as process:
        try:
            assert process.stdout is not None
            url = json.loads(process.stdout.readline())["url"]
            with httpx.Client(base_url=url, timeout=20) as http:
                for _ in range(1000):
                    assert http.post("/v2/models/linear/infer", json=request_of()).status_code == 200
            process.send_signal(2)
            assert process.wait(30) == 0
        finally:
            process.kill()
            os.close(reader)
            os.close(writer)


@pytest.mark.parametrize("trace", [None, ("a" * 32, ""), ("a" * 32, "b" * 16)])
@pytest.mark.parametrize("grpc_status", [None, 5])
@pytest.mark.parametrize("path", ["/v2/models/m/infer", '/"\\\n\ud800ü'])
def test_the_access_log_says_the_same_whether_or_not_a_record_is_made(
    monkeypatch: pytest.MonkeyPatch, path: str, grpc_status: int | None, trace: tuple[str, str] | None
) -> None:
    """A record is made where anybody but Fairway has a say in the logging: a second handler, say."""
    monkeypatch.setattr(time, "time", lambda: 1767225600.2505)
    monkeypatch.setattr(time, "time_ns", lambda: 1767225600_250_500_000)  # what records ask from Python 3.13 on
    root, lines = logging.getLogger(), []
    for others in ([], [logging.NullHandler()]):
        written = bytearray()
        handler = QueuedLines(2, write=partial(_take, written))
        handler.setFormatter(logs._Formatter(logging.Formatter()))
        monkeypatch.setattr(root, "handlers", [handler, *others])
        monkeypatch.setattr(access, "disabled", False)
        access.setLevel(logging.INFO)
        log_request("POST", path, 200, seconds=0.25, size=7, client="::1", grpc_status=grpc_status, trace=trace)
        access.setLevel(logging.NOTSET)
        handler.close()
        lines.append(json.loads(written))
    assert lines[0] == lines[1]
    assert lines[0]["@timestamp"] == "2026-01-01T00:00:00.250Z"
    assert lines[0]["event"] == {"duration": 250_000_000}
    assert lines[0]["url"]["path"] == path
    assert lines[0]["process"]["pid"] == os.getpid()
    assert ("transaction" in lines[0]) == (trace is not None and bool(trace[1]))


def test_answers_of_one_turn_have_a_line_each_in_their_order_also_where_they_are_alike(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written = bytearray()
    handler = QueuedLines(2, write=partial(_take, written))
    handler.setFormatter(logs._Formatter(logging.Formatter()))
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler])
    monkeypatch.setattr(access, "disabled", False)
    monkeypatch.setattr(access, "level", logging.INFO)
    now = time.perf_counter_ns()
    monkeypatch.setattr(time, "perf_counter_ns", lambda: now + 5_000)
    ids, answers = ("a" * 32, "b" * 16), AnswerLog()
    alike = ("::1", b"/100%d", 200, now + 1_000, 7, None)
    other, later = ("::1", b"/%b", 503, now + 1_000, 7, None), ("::2", b"/100%d", 200, now + 2_000, 70, None)
    answers.waiting += [alike, other, alike, (*alike[:5], ids), later]
    answers.write()
    handler.close()
    said = [json.loads(line) for line in written.splitlines()]
    assert [line["url"]["path"] for line in said] == ["/100%d", "/%b", "/100%d", "/100%d", "/100%d"]
    assert [line["event"]["duration"] for line in said] == [4_000, 4_000, 4_000, 4_000, 3_000]
    assert [line["http"]["response"]["body"]["bytes"] for line in said] == [7, 7, 7, 7, 70]
    assert [line["http"]["response"]["status_code"] for line in said] == [200, 503, 200, 200, 200]
    assert [line["client"]["address"] for line in said] == ["::1"] * 4 + ["::2"]
    assert ["trace" in line for line in said] == [False, False, False, True, False]


def test_what_one_turn_of_the_loop_reads_came_at_one_time_and_the_next_turn_has_its_own() -> None:
    async def turns() -> list[int]:
        loop, clock, found = asyncio.get_running_loop(), TurnClock(), list[int]()
        for _ in range(2):
            found += [clock.now or clock.read(loop) for _ in range(3)]
            await asyncio.sleep(0)
        return found

    found = asyncio.run(turns())
    assert len(set(found[:3])) == len(set(found[3:])) == 1
    assert found[0] < found[3]


def test_more_answers_of_one_turn_than_may_wait_are_written_where_none_waits() -> None:
    written = bytearray()
    handler = QueuedLines(2, limit=3, write=partial(_take, written), patience_s=20)
    handler.extend(b"1\n2\n3\n4\n", 4)
    handler.close()
    assert written == b"1\n2\n3\n4\n"


def test_log_settings_hold_for_the_access_log_from_the_next_millisecond_on(monkeypatch: pytest.MonkeyPatch) -> None:
    written = bytearray()
    handler = QueuedLines(2, write=partial(_take, written))
    handler.setFormatter(logs._Formatter(logging.Formatter()))
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler])
    monkeypatch.setattr(access, "disabled", False)
    monkeypatch.setattr(logging.getLogger("fairway"), "level", logging.INFO)
    access.setLevel(logging.NOTSET)  # forgets what it found out of the level of before
    settings, answers, now = LogSettings(), AnswerLog(), time.perf_counter_ns()
    for turn, wanted in enumerate((True, False, True), 1):
        monkeypatch.setattr(time, "perf_counter_ns", partial(int, now + 2_000_000 * turn))
        if turn > 1:
            settings.update({"log_info": wanted})
        answers.waiting.append(("::1", b"/", 200, now, turn, None))
        answers.write()
    settings.close()
    handler.close()
    assert [json.loads(line)["http"]["response"]["body"]["bytes"] for line in written.splitlines()] == [1, 3]
