"""The REST API does what its OpenAPI description says, whatever is sent: schemathesis, all checks on.

``FAIRWAY_FUZZ_EXAMPLES`` sets how many requests are made up per operation and kind of test (5); ``FAIRWAY_FUZZ_SECONDS``
when each test ends at the latest (6); ``FAIRWAY_FUZZ_SEED`` what is made up (7).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fairway.bundle.format import Bundle
from fairway.serving.app import RunningServer, serve
from fairway.serving.settings import ServeSettings

schemathesis = pytest.importorskip("schemathesis")

EXAMPLES = int(os.environ.get("FAIRWAY_FUZZ_EXAMPLES", "5"))
SEED = int(os.environ.get("FAIRWAY_FUZZ_SEED", "7"))
SECONDS = int(os.environ.get("FAIRWAY_FUZZ_SECONDS", "6"))

# What a schema cannot say: that values are as many as a shape wants, that a string is JSON, that a region's object exists.
CAN_BE_REFUSED = ["2xx", "400", "403", "404", "409", "413", "429", "5xx"]
VALUES_DECIDE = [
    "modelInfer", "modelVersionInfer", "loadModel", "registerRegion", "modelReady", "modelVersionReady",
]  # fmt: skip


@pytest.fixture(scope="module", params=["fast lane", "starlette"])
def fuzzed(request: pytest.FixtureRequest, bundles: tuple[Bundle, ...]) -> Iterator[RunningServer]:
    settings = ServeSettings(
        port=0, fast_lane=request.param == "fast lane", model_control=True, shared_memory=True, max_body_bytes=2**20
    )
    with serve(bundles, settings=settings) as running:
        yield running


def configuration(model: str | None, folder: Path) -> Any:
    from schemathesis.config import SchemathesisConfig

    operations = [
        {"include-operation-id": name, "checks": {"positive_data_acceptance": {"expected-statuses": CAN_BE_REFUSED}}}
        for name in VALUES_DECIDE
    ]
    return SchemathesisConfig.from_dict(
        {
            "seed": SEED,
            "max-time": SECONDS,
            "generation": {"max-examples": EXAMPLES, "database": "none"},
            "checks": {"not_a_server_error": {"expected-statuses": ["2xx", "3xx", "4xx", "503", "504"]}},
            "operations": operations,
            "parameters": {"path.model": model, "path.version": "1"} if model else {},
        }
    )


@pytest.mark.parametrize("model", [None, "linear"])
def test_every_answer_is_as_described(fuzzed: RunningServer, model: str | None, tmp_path: Path) -> None:
    from schemathesis import engine
    from schemathesis.engine import events

    schema = schemathesis.openapi.from_url(fuzzed.url + "/openapi.json", config=configuration(model, tmp_path))
    failures: list[str] = []
    scenarios = 0
    for event in engine.from_schema(schema).execute():
        if isinstance(event, (events.NonFatalError, events.FatalError)):
            failures.append(str(event.info if isinstance(event, events.NonFatalError) else event.exception))
        if isinstance(event, events.ScenarioFinished):
            scenarios += 1
            for checks in event.recorder.checks.values():
                for check in checks:
                    if check.failure_info is not None:
                        failures.append(f"{check.failure_info.code_sample}\n{check.failure_info.failure}")
    assert not failures, "\n\n".join(failures[:5])
    assert scenarios > 30


def test_every_route_is_described(fuzzed: RunningServer) -> None:
    import httpx

    from fairway.serving.transports.manage import ManagementRoutes

    described = httpx.get(fuzzed.url + "/openapi.json").json()["paths"]
    routes = ManagementRoutes(None, None).routes()  # type: ignore[arg-type]
    refused = {"/v2/cudasharedmemory/region/{region}/status", "/v2/cudasharedmemory/region/{region}/register"}
    assert {route.path for route in routes} - refused - {"/v2/"} <= set(described)
