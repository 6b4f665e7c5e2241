"""What fuzzing has found, each as the smallest request that showed it. On both lanes."""

from __future__ import annotations

import json

import httpx
import pytest

from fairway.core.errors import FairwayError
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


def test_an_error_that_another_process_told_looks_as_it_does_there() -> None:
    error = FairwayError("no model 'absent'")
    error.code = "model_not_found"
    assert wire(error) == WIRE["model_not_found"]
