"""``fairway serve --workers N`` where the machine, its owner or the program itself gets in the way."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import msgspec
import psutil
from prometheus_client.parser import text_string_to_metric_families

from fairway.bundle.format import Bundle
from fairway.core.launch import python
from fairway.loop.workers import Spec
from fairway.serving.channel import Start
from fairway.serving.workers import automatic, cores
from tests.projects import without_settings
from tests.serving.conftest import request_of
from tests.serving.test_workers import INFER, SOON_S, Server, server, two, until

__all__ = ["two"]  # a fixture


def answers(running: Server) -> bool:
    return httpx.post(running.url + INFER, json=request_of(), timeout=20).status_code == 200


def test_a_pause_of_the_whole_server_kills_no_worker(bundles: tuple[Bundle, ...], tmp_path: Path) -> None:
    """As when a container is paused: whoever wakes first must not take the others for stuck."""
    with server(bundles[0], tmp_path, table="worker_timeout_s = 1.0\n") as running:
        before = running.workers()
        watching = psutil.Process(running.running.pid)
        for pid in (watching.pid, *before):
            os.kill(pid, signal.SIGSTOP)
        time.sleep(3.0)  # the pause itself
        turns = watching.num_ctx_switches().voluntary
        watching.resume()
        until(lambda: watching.num_ctx_switches().voluntary > turns + 2, "turn of the process that watches")
        for pid in before:
            os.kill(pid, signal.SIGCONT)
        assert answers(running)
        assert not running.events("worker_stuck")
        assert running.workers() == before


def test_a_worker_that_cannot_be_started_is_started_later_and_the_others_serve(two: Server) -> None:
    watching = psutil.Process(two.running.pid)
    allowed = watching.rlimit(psutil.RLIMIT_NOFILE)
    watching.rlimit(psutil.RLIMIT_NOFILE, (1, allowed[1]))  # no more files, so no more processes
    os.kill(two.workers()[0], signal.SIGKILL)
    (said, *_) = until(lambda: two.events("worker_not_started"), "word of it")
    assert "no process can be started" in said["reason"]
    assert answers(two)
    two.running.send_signal(signal.SIGHUP)
    until(lambda: two.events("workers_replacing"), "word of it")
    assert answers(two)
    watching.rlimit(psutil.RLIMIT_NOFILE, allowed)
    until(lambda: two.serving() >= 3, "new worker")
    assert answers(two)


def test_a_worker_that_hangs_holds_up_nobody_who_asks_another_for_all_counts(two: Server) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(httpx.Client(base_url=two.url, timeout=10)) for _ in range(8)]
        for client in clients:  # each is connected to one of the two by now
            assert client.post(INFER, json=request_of()).status_code == 200
        until(lambda: two.count() == 8, "sum")
        stuck = two.workers()[0]
        os.kill(stuck, signal.SIGSTOP)

        def scrape(client: httpx.Client) -> str:
            try:
                return client.get("/metrics", timeout=5).text
            except httpx.ReadTimeout:
                return ""

        with ThreadPoolExecutor(8) as pool:
            scraped = set(pool.map(scrape, clients))
        os.kill(stuck, signal.SIGCONT)
    assert scraped - {""}
    for text in scraped - {""}:
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        assert sum(sample.value for sample in samples if sample.name == "fairway_infer_requests_total") == 8


def test_settings_that_are_wrong_by_now_keep_the_old_workers(two: Server, tmp_path: Path) -> None:
    before = two.workers()
    file = tmp_path / "fairway.toml"
    good = file.read_text()
    file.write_text(good + "max_queue_rows = 'many'\n")
    two.running.send_signal(signal.SIGHUP)
    (said,) = until(lambda: two.events("worker_not_replaced"), "word of it")
    assert "max_queue_rows" in said["reason"]
    assert two.workers() == before
    assert answers(two)
    os.kill(before[0], signal.SIGKILL)
    until(lambda: len(two.events("worker_died")) >= 2, "second try")  # the first new one reads the same settings
    assert answers(two)
    file.write_text(good)
    until(lambda: two.serving() == 3, "worker that could read them")
    assert before[1] in two.workers()


def test_who_connects_to_a_server_that_drains_is_refused(two: Server) -> None:
    """One worker has ended, the other takes its time: nobody may wait in a queue that nobody will look at."""
    slow = two.workers()[1]
    os.kill(slow, signal.SIGSTOP)
    two.running.send_signal(signal.SIGTERM)
    until(lambda: two.events("worker_ended"), "end of the one")
    address = (httpx.URL(two.url).host, httpx.URL(two.url).port or 0)

    def refused() -> bool:
        try:
            socket.create_connection(address, timeout=5).close()
        except ConnectionRefusedError:
            return True
        return False

    until(refused, "refusal")
    assert two.running.poll() is None
    os.kill(slow, signal.SIGCONT)
    assert two.running.wait(SOON_S) == 0
    assert [event["how"] for event in two.events("worker_ended")] == ["exit code 0"] * 2


def test_a_worker_whose_watcher_ended_while_it_started_ends_too(bundles: tuple[Bundle, ...], tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    lock = os.memfd_create("lock")
    with theirs, socket.create_server(("127.0.0.1", 0)) as listener:
        spec = msgspec.json.encode(Spec(None, (str(bundles[0].path),), {}))
        start = Start(
            slot=0,
            workers=2,
            channel=theirs.fileno(),
            stderr=2,
            lock=lock,
            sockets={"rest": [listener.fileno()]},
            early=True,
            spec=msgspec.Raw(spec),
        )
        ours.close()
        command = [*python("fairway.loop.workers"), msgspec.json.encode(start).decode()]
        kept = (theirs.fileno(), lock, listener.fileno())
        done = subprocess.run(
            command, cwd=tmp_path, pass_fds=kept, env=without_settings(), timeout=60, check=False, capture_output=True
        )
    os.close(lock)
    assert done.returncode == 0, done.stderr


def test_auto_starts_as_many_workers_as_the_cores_allow(bundles: tuple[Bundle, ...], tmp_path: Path) -> None:
    with server(bundles[0], tmp_path, workers="auto") as running:
        (ready,) = until(lambda: running.events("server_ready"), "word of it")
        assert ready["workers"] == len(running.workers()) == automatic(bundles[0].manifest.engine.threads, cores())
        assert answers(running)
        running.running.send_signal(signal.SIGTERM)
        assert running.running.wait(SOON_S) == 0
