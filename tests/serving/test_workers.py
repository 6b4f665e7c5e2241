"""``fairway serve --workers N``, as its callers, its process manager and its enemies see it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from fairway.bundle.format import Bundle
from fairway.registry.settings import RegistrySettings
from fairway.registry.store import Registry
from fairway.rollout.traffic import Traffic
from tests.projects import FAIRWAY, without_settings
from tests.serving.conftest import request_of

INFER = "/v2/models/linear/infer"
SOON_S = 30.0


def until(condition: Callable[[], Any], what: str) -> Any:
    """Wait for what must come to be."""
    ends = time.monotonic() + SOON_S
    while time.monotonic() < ends:
        found = condition()
        if found:
            return found
        time.sleep(0.01)
    raise AssertionError(f"after {SOON_S} s: no {what}")


class Server:
    """A server with workers, its log, and its processes."""

    def __init__(self, running: subprocess.Popen[str], url: str, log: Path) -> None:
        self.running = running
        self.url = url
        self._log = log

    def workers(self) -> list[int]:
        return [child.pid for child in psutil.Process(self.running.pid).children()]

    def events(self, name: str | None = None) -> list[dict[str, Any]]:
        lines = self._log.read_text().splitlines(keepends=True)
        found = [json.loads(line) for line in lines if line.endswith("\n")]
        return [event for event in found if name in (None, event["message"])]

    def serving(self) -> int:
        """How many workers have begun to serve."""
        return len(self.events("worker_ready"))

    def count(self, name: str = "fairway_infer_requests_total") -> float:
        families = text_string_to_metric_families(httpx.get(self.url + "/metrics", timeout=20).text)
        return sum(sample.value for family in families for sample in family.samples if sample.name == name)


@contextmanager
def server(what: Bundle | str, folder: Path, *, table: str = "", workers: str = "2") -> Iterator[Server]:
    """``fairway serve --workers``; killed at the end, with all that it started."""
    settings = "[serve]\nport = 0\nstop_delay_s = 1.0\n" + table
    (folder / "fairway.toml").write_text(settings)
    given = what if isinstance(what, str) else str(what.path)
    command = [*FAIRWAY, "serve", given, "--workers", workers, "--json"]
    log = folder / "server.log"
    with (
        log.open("w") as errors,
        subprocess.Popen(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=errors, text=True, env=without_settings()
        ) as running,
    ):
        assert running.stdout is not None
        children: list[psutil.Process] = []
        try:
            line = running.stdout.readline()
            assert line, log.read_text()
            made = Server(running, json.loads(line)["url"], log)
            until(lambda: made.serving() == len(made.workers()), "word in the log, which threads write")
            yield made
        finally:
            if running.poll() is None:
                children = psutil.Process(running.pid).children()
                running.kill()
            for child in children:
                child.kill()


class Load:
    """Clients that keep their connections and ask without pause, until told to stop."""

    def __init__(self, url: str, clients: int = 6) -> None:
        self._url = url
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.answers: Counter[str] = Counter()
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def more(self, answers: int = 60) -> None:
        """Wait for so many more answers."""
        before = self.answers["200"]
        until(lambda: self.answers["200"] >= before + answers, "answers")

    def stop(self) -> Counter[str]:
        self._stop.set()
        for thread in self._threads:
            thread.join(SOON_S)
        return self.answers

    def _ask(self) -> None:
        body = json.dumps(request_of())
        with httpx.Client(base_url=self._url, timeout=20) as http:
            while not self._stop.is_set():
                try:
                    outcome = str(http.post(INFER, content=body).status_code)
                except httpx.TransportError as error:
                    outcome = type(error).__name__
                with self._lock:
                    self.answers[outcome] += 1


@pytest.fixture
def two(bundles: tuple[Bundle, ...], tmp_path: Path) -> Iterator[Server]:
    with server(bundles[0], tmp_path) as running:
        yield running


def test_a_killed_worker_fails_only_what_was_in_flight_on_it(two: Server) -> None:
    clients = 6
    load = Load(two.url, clients)
    load.more()
    victim = two.workers()[0]
    os.kill(victim, signal.SIGKILL)
    load.more()  # while the other one accepts for both
    until(lambda: two.serving() == 3, "new worker")
    load.more()
    answers = load.stop()
    assert set(answers) <= {"200", "RemoteProtocolError", "ReadError", "WriteError"}
    assert sum(answers.values()) - answers["200"] <= clients  # at most one on each of its connections
    assert len(two.workers()) == 2
    assert victim not in two.workers()
    (died,) = two.events("worker_died")
    assert (died["worker_pid"], died["how"]) == (victim, "killed by signal 9 (SIGKILL)")
    assert died["restart_in_s"] == 0.0


def test_connections_that_wait_for_a_killed_worker_are_answered(two: Server) -> None:
    """Each is accepted by a worker that is stopped, or waits for one that is; both are killed before they can answer."""
    stopped = two.workers()
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    with ExitStack() as stack:
        waiting = []
        for _ in range(8):
            client = stack.enter_context(socket.create_connection(httpx.URL(two.url).netloc.decode().split(":")))  # type: ignore[arg-type]
            client.settimeout(SOON_S)
            client.sendall(b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            waiting.append(client)
        for pid in stopped:
            os.kill(pid, signal.SIGKILL)
        assert all(client.recv(1000).startswith(b"HTTP/1.1 200") for client in waiting)


def test_sigterm_under_load_fails_nothing(two: Server) -> None:
    load = Load(two.url)
    load.more()
    two.running.send_signal(signal.SIGTERM)
    with httpx.Client(timeout=20) as http:
        until(lambda: http.get(two.url + "/v2/health/ready").status_code == 503, "word that it is stopping")
    assert load.stop().keys() == {"200"}
    assert two.running.wait(SOON_S) == 0
    assert two.events("server_stopped")[0]["process"]["pid"] == two.running.pid


def test_sighup_under_load_replaces_every_worker_and_fails_nothing(two: Server) -> None:
    before = two.workers()
    load = Load(two.url)
    load.more()
    counted = two.count()
    two.running.send_signal(signal.SIGHUP)
    until(lambda: len(two.events("worker_ended")) == 2, "end of the old workers")
    load.more()
    answers = load.stop()
    assert answers.keys() == {"200"}
    assert not set(before) & set(two.workers())
    assert two.count() == answers["200"] > counted  # nothing that they counted is lost


def test_a_worker_that_is_told_to_end_is_replaced_without_a_gap(two: Server) -> None:
    load = Load(two.url)
    load.more()
    os.kill(two.workers()[0], signal.SIGTERM)
    until(lambda: len(two.events("worker_ended")) == 1, "its end")
    load.more()
    assert load.stop().keys() == {"200"}


def test_a_stuck_worker_is_killed_and_replaced(bundles: tuple[Bundle, ...], tmp_path: Path) -> None:
    with server(bundles[0], tmp_path, table="worker_timeout_s = 2.5\n") as running:
        stuck = running.workers()[0]
        os.kill(stuck, signal.SIGSTOP)
        until(lambda: running.serving() == 3, "new worker")
        assert [event["worker_pid"] for event in running.events("worker_stuck")] == [stuck]
        assert httpx.post(running.url + INFER, json=request_of()).status_code == 200


def statistics(running: Server) -> tuple[int, int, dict[str, int]]:
    """Rows, successes, and engine calls by their rows, as the protocol tells them."""
    (found,) = httpx.get(running.url + "/v2/models/linear/stats").json()["model_stats"]
    sizes = {str(batch["batch_size"]): batch["compute_infer"]["count"] for batch in found["batch_stats"]}
    return found["inference_count"], found["inference_stats"]["success"]["count"], sizes


def test_metrics_are_of_all_workers_and_survive_a_kill(two: Server) -> None:
    for _ in range(30):  # each on a connection of its own, so that both workers get some
        assert httpx.post(two.url + INFER, json=request_of(2)).status_code == 200
    assert {two.count() for _ in range(8)} == {30}
    assert two.count("fairway_infer_rows_total") == 60
    assert two.count("fairway_batch_rows_count") == 30
    assert two.count("fairway_ready") == two.count("fairway_model_ready") == 1
    assert statistics(two) == (60, 30, {"2": 30})
    os.kill(two.workers()[1], signal.SIGKILL)
    until(lambda: two.events("worker_died"), "word of its death")
    assert two.count() == 30
    assert statistics(two) == (60, 30, {"2": 30})
    until(lambda: two.serving() == 3, "new worker")
    httpx.post(two.url + INFER, json=request_of(2))
    assert {two.count() for _ in range(8)} == {31}


def test_many_may_ask_for_metrics_at_once(two: Server) -> None:
    with ThreadPoolExecutor(8) as pool, httpx.Client(base_url=two.url, timeout=20) as http:
        answers = list(pool.map(lambda _: http.get("/metrics").status_code, range(300)))
    assert set(answers) == {200}


def test_each_worker_observes_what_it_served_and_nothing_is_counted_twice(
    bundles: tuple[Bundle, ...], tmp_path: Path
) -> None:
    with Registry.open(RegistrySettings(), root=tmp_path) as registry:
        registry.register(bundles[0], aliases=("champion",))
        table = "poll_s = 0.05\n[monitor]\nwindow_s = 0.2\n"
        with server("linear", tmp_path, table=table) as running:
            assert len({replica.id for replica in registry.replicas()}) == 2
            assert {replica.url for replica in registry.replicas()} == {running.url}
            for _ in range(20):
                assert httpx.post(running.url + INFER, json=request_of(3)).status_code == 200
            running.running.send_signal(signal.SIGINT)
            assert running.running.wait(SOON_S) == 0
        windows = registry.windows("linear")
        assert sum(Traffic.decode(window.traffic).rows for window in windows) == 60
        assert len({window.replica for window in windows}) == 2
        assert not registry.replicas()


def test_the_process_that_watches_is_small_and_workers_end_with_it(two: Server) -> None:
    assert psutil.Process(two.running.pid).memory_info().rss < 40e6
    orphans = [psutil.Process(pid) for pid in two.workers()]
    two.running.kill()
    _, alive = psutil.wait_procs(orphans, timeout=SOON_S)
    assert not alive
    with pytest.raises(httpx.ConnectError):
        httpx.get(two.url + "/v2")


def test_a_second_server_on_the_port_is_refused(two: Server, bundles: tuple[Bundle, ...], tmp_path: Path) -> None:
    port = str(httpx.URL(two.url).port)
    for workers in ("1", "2"):
        command = [*FAIRWAY, "serve", str(bundles[0].path), "--port", port, "--workers", workers]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stdout) == (3, "")
        assert f"port {port} on 127.0.0.1 is taken by another process" in done.stderr


def test_what_one_process_would_refuse_ends_the_server_at_once(bundles: tuple[Bundle, ...], tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in bundles[0].path.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    (broken / "model.onnx").write_bytes(b"not a model")
    command = [*FAIRWAY, "serve", str(broken), "--port", "0", "--workers", "2"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 3
    assert "altered" in done.stderr.splitlines()[-1] or "error: " in done.stderr


def test_workers_that_die_before_they_can_answer_end_the_server(bundles: tuple[Bundle, ...], tmp_path: Path) -> None:
    crash = tmp_path / "crash"
    crash.mkdir()
    (crash / "sitecustomize.py").write_text(
        "import os, sys\nif 'fairway.loop.workers' in sys.orig_argv:\n"
        "    os.write(2, b'the last words\\n'); os.kill(os.getpid(), 11)\n"
    )
    command = [*FAIRWAY, "serve", str(bundles[0].path), "--port", "0", "--workers", "2"]
    environ = without_settings({"PYTHONPATH": str(crash)})
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False, env=environ)
    assert done.returncode == 4
    assert "a worker ended 3 times before it could answer (killed by signal 11 (SIGSEGV))" in done.stderr
    assert "the last it said: the last words" in done.stderr


def test_log_lines_of_all_processes_stay_whole_in_one_pipe(bundles: tuple[Bundle, ...], tmp_path: Path) -> None:
    command = [*FAIRWAY, "serve", str(bundles[0].path), "--port", "0", "--workers", "2", "--json"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=without_settings()
    ) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        lines: list[str] = []
        reader = threading.Thread(target=lambda: lines.extend(running.stderr or ()))
        reader.start()
        url = json.loads(running.stdout.readline())["url"]
        load = Load(url, clients=20)  # by chance, all connections of a few may be one worker's
        load.more(600)
        answered = load.stop()["200"]
        running.send_signal(signal.SIGINT)
        assert running.wait(SOON_S) == 0
        reader.join(SOON_S)
    events = [json.loads(line) for line in lines]
    requests = [event for event in events if event["log"]["logger"] == "fairway.access"]
    assert len(requests) == answered
    assert len({event["process"]["pid"] for event in requests}) == 2
    assert [event["url"] for event in events if event["message"] == "server_ready"] == [url]
