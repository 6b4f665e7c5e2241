"""What fuzzing has found, each as the smallest request that showed it. On both lanes."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Callable

import httpx
import pytest

from fairway.core.errors import FairwayError
from fairway.serving.app import RunningServer
from fairway.serving.status import WIRE, wire
from tests.serving.conftest import request_of

INFER = "/v2/models/linear/infer"


def test_a_key_that_holds_a_nul_in_a_large_body_is_one_like_others(http: httpx.Client) -> None:
    answer = http.post(INFER, json={**request_of(), "\0": "x" * 10_000})
    assert answer.status_code == 200, answer.text


def test_a_number_of_endless_digits_is_refused_without_advice_for_programmers(http: httpx.Client) -> None:
    body = json.dumps(request_of(data=[float("nan"), 7, 7, 7])).replace("7,", "9" * 5000 + ",")
    answer = http.post(INFER, content=body)
    assert answer.status_code == 400
    assert "too many digits" in answer.json()["error"]


@pytest.mark.parametrize("accepts", [b"application/openmetrics-text;version=x", b"text/plain;version=\xff", b";,;"])
def test_metrics_are_given_whatever_the_scraper_accepts(http: httpx.Client, accepts: bytes) -> None:
    answer = http.get("/metrics", headers={b"accept": accepts})
    assert answer.status_code == 200, answer.text
    assert "fairway_ready" in answer.text


_BODY = json.dumps(request_of()).encode()
_CHUNKED = b"host: x\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /v2/models/linear HTTP/1.1\r\n" + _CHUNKED + b"zz\r\n",
        b"POST /nowhere HTTP/1.1\r\n" + _CHUNKED + b"2\r\n{}\r\nzz\r\n",
        b"POST /v2/repository/index HTTP/1.1\r\n" + _CHUNKED + b"2\r\n{}\r\n",
        b"POST %s HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % (INFER.encode(), len(_BODY)) + _BODY,
    ],
)
def test_a_client_that_leaves_or_errs_in_the_middle_is_no_fault_in_the_log(
    server: RunningServer, good: Callable[[], None], caplog: pytest.LogCaptureFixture, sent: bytes
) -> None:
    for behind in (b"", b"GET /v2 HTTP/1.1\r\nhost: x\r\n\r\n") * 20:
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
            connection.sendall(sent + behind)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass
    good()  # whatever the others left has run
    assert not [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


def test_an_error_that_another_process_told_looks_as_it_does_there() -> None:
    error = FairwayError("no model 'absent'")
    error.code = "model_not_found"
    assert wire(error) == WIRE["model_not_found"]
