"""Triton's extensions about models: configuration, statistics, repository, trace and log settings, classification."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from fairway.testing.conformance.case import NotOffered, Unmet, case, expect, expect_equal
from fairway.testing.conformance.rules.infer import sample
from fairway.testing.conformance.target import Target, outputs, refused
from fairway.testing.conformance.tensors import tensor
from fairway.testing.conformance.wire import Reply

SETTLED_S = 3.0
"""How long counters may take to show what was answered."""


def granted(reply: Reply) -> Reply:
    """The answer to a change; :class:`NotOffered` if the operator has switched changes off."""
    if 400 <= reply.status < 500:
        raise NotOffered(f"the server refuses it: {reply.error}")
    expect_equal(reply.status, 200, "the status")
    return reply


def eventually(check: Callable[[], None]) -> None:
    """Until ``check`` passes, or its failure after three seconds."""
    end = time.monotonic() + SETTLED_S
    while True:
        try:
            check()
        except Unmet:
            if time.monotonic() > end:
                raise
            time.sleep(0.02)
        else:
            return


@case("config", level="extension", extensions=["model_configuration"])
def config(target: Target) -> None:
    """Model configuration: name, max_batch_size, and inputs and outputs whose data_type is TYPE_…."""
    name = target.any.name
    body = target.get(f"/v2/models/{name}/config").json
    expect_equal(body["name"], name, "name")
    expect(isinstance(body["max_batch_size"], int), "max_batch_size must be an integer")
    for side in ("input", "output"):
        for spec in body[side]:
            expect(spec["name"] and spec["data_type"].startswith("TYPE_"), f"{side} {spec} has no name or TYPE_…")
    refused(target.get("/v2/models/no_such_model/config"))


# -- statistics


def _stats(target: Target, name: str) -> dict[str, Any]:
    reply = target.get(f"/v2/models/{name}/stats")
    expect_equal(reply.status, 200, "the status")
    (entry, *_) = [entry for entry in reply.json["model_stats"] if entry["name"] == name]
    found: dict[str, Any] = entry
    return found


@case("statistics.form", level="extension", extensions=["statistics"])
def statistics_form(target: Target) -> None:
    """Statistics: name, version, counts, and count and ns of success, fail, queue and the compute steps."""
    target.infer_json(target.any.name, sample(target))
    entry = _stats(target, target.any.name)
    expect(isinstance(entry["version"], str), "version must be a text")
    for name in ("last_inference", "inference_count", "execution_count"):
        expect(isinstance(entry[name], int), f"{name} must be an integer")
    for name in ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output"):
        part = entry["inference_stats"][name]
        expect(isinstance(part["count"], int) and isinstance(part["ns"], int), f"{name} must hold count and ns")
    expect(isinstance(entry["batch_stats"], list), "batch_stats must be a list")


@case("statistics.rows", level="extension", extensions=["statistics"])
def statistics_rows(target: Target) -> None:
    """inference_count counts rows, success counts requests, execution_count counts runs of the model."""
    model = target.standard("row_sum").name
    before = _stats(target, model)
    for _ in range(2):
        outputs(target.infer_json(model, [tensor("x", "FP32", [[1, 2]] * 3)]))

    def counted() -> None:
        after = _stats(target, model)
        expect_equal(after["inference_count"] - before["inference_count"], 6, "the rise of inference_count")
        rise = after["inference_stats"]["success"]["count"] - before["inference_stats"]["success"]["count"]
        expect_equal(rise, 2, "the rise of success.count")
        expect(1 <= after["execution_count"] - before["execution_count"] <= 2, "execution_count did not rise by 1 or 2")

    eventually(counted)


@case("statistics.refused", level="extension", extensions=["statistics"])
def statistics_refused(target: Target) -> None:
    """A request that is refused at the door counts neither as success nor as fail."""
    model = target.standard("row_sum").name
    before = _stats(target, model)["inference_stats"]
    refused(target.infer(model, {"inputs": []}))
    outputs(target.infer_json(model, [tensor("x", "FP32", [[1, 2]])]))

    def counted() -> None:
        after = _stats(target, model)["inference_stats"]
        expect_equal(after["success"]["count"] - before["success"]["count"], 1, "the rise of success.count")
        expect_equal(after["fail"]["count"] - before["fail"]["count"], 0, "the rise of fail.count")

    eventually(counted)


@case("statistics.failed", level="extension", extensions=["statistics"])
def statistics_failed(target: Target) -> None:
    """A request that the model fails on counts as fail."""
    model = target.standard("picky").name
    before = _stats(target, model)["inference_stats"]["fail"]["count"]
    target.infer_json(model, [tensor("x", "INT64", [[9]])])
    eventually(
        lambda: expect_equal(
            _stats(target, model)["inference_stats"]["fail"]["count"] - before, 1, "the rise of fail.count"
        )
    )


@case("statistics.all", level="extension", extensions=["statistics"])
def statistics_all(target: Target) -> None:
    """/v2/models/stats gives every model's statistics: the name stats is reserved."""
    names = {entry["name"] for entry in target.get("/v2/models/stats").json["model_stats"]}
    expect(target.any.name in names, f"{target.any.name!r} is not among {sorted(names)}")


@case("statistics.unknown", level="extension", extensions=["statistics"])
def statistics_unknown(target: Target) -> None:
    """Statistics of an unknown model are an error with a body."""
    refused(target.get("/v2/models/no_such_model/stats"))


# -- repository


@case("repository.index", level="extension", extensions=["model_repository"])
def index(target: Target) -> None:
    """Repository index: POST gives a top-level array of name, version, state (a GET is 405)."""
    name = target.any.name
    for body in (b"", b"{}", {"ready": True}, {"ready": False}):
        entries = target.post("/v2/repository/index", body).json
        expect(isinstance(entries, list), "the answer must be an array")
        found = [entry for entry in entries if entry["name"] == name]
        expect(found, f"{name!r} is not in the index")
        expect(all(entry["state"] == "READY" and isinstance(entry["version"], str) for entry in found), "not READY")


@case("repository.load", level="extension", extensions=["model_repository"])
def load(target: Target) -> None:
    """Unload makes a model not ready and unknown to infer; load brings it back; both bodies are empty."""
    model = target.standard("row_sum").name
    gone = granted(target.post(f"/v2/repository/models/{model}/unload", b"{}"))
    try:
        eventually(lambda: expect(target.get(f"/v2/models/{model}/ready").status >= 400, "it is still ready"))
        expect(target.infer_json(model, [tensor("x", "FP32", [[1, 2]])]).status >= 400, "it still answers")
    finally:
        back = target.post(f"/v2/repository/models/{model}/load", b"{}")
    expect_equal(back.status, 200, "the status of load")
    eventually(lambda: expect_equal(target.get(f"/v2/models/{model}/ready").status, 200, "readiness after load"))
    outputs(target.infer_json(model, [tensor("x", "FP32", [[1, 2]])]))
    expect(gone.body in (b"", b"{}"), "unload's body is not empty")
    expect(back.body in (b"", b"{}"), "load's body is not empty")


@case("repository.load.unknown", level="extension", extensions=["model_repository"])
def load_unknown(target: Target) -> None:
    """Loading what does not exist is an error with a body, and nothing else changes."""
    refused(target.post("/v2/repository/models/no_such_model/load", b"{}"))
    outputs(target.infer_json(target.any.name, sample(target)))


@case("repository.unload.unknown", level="extension", extensions=["model_repository"])
def unload_unknown(target: Target) -> None:
    """Unloading what does not exist succeeds."""
    granted(target.post("/v2/repository/models/no_such_model/unload", b"{}"))


@case("repository.load.wrong", level="extension", extensions=["model_repository"])
def load_wrong(target: Target) -> None:
    """Config is a JSON text, and file: overrides need it: else refused, and the model goes on."""
    model = target.standard("row_sum").name
    for parameters in ({"config": "{not json"}, {"file:1/model.onnx": "AAAA"}, {"no_such_parameter": True}):
        refused(target.post(f"/v2/repository/models/{model}/load", {"parameters": parameters}))
    outputs(target.infer_json(model, [tensor("x", "FP32", [[1, 2]])]))


# -- settings


@case("trace", level="extension", extensions=["trace"])
def trace(target: Target) -> None:
    """Trace settings: values are texts or lists of texts; of the server and of a model."""
    for path in ("/v2/trace/setting", f"/v2/models/{target.any.name}/trace/setting"):
        body = target.get(path).json
        for name in ("trace_level", "trace_rate", "trace_count"):
            expect(isinstance(body[name], (str, list)), f"{name} is {body[name]!r}")


@case("trace.update", level="extension", extensions=["trace"])
def trace_update(target: Target) -> None:
    """A trace setting that is posted comes back; null resets it."""
    before = target.get("/v2/trace/setting").json["trace_rate"]
    body = granted(target.post("/v2/trace/setting", {"trace_rate": "77"})).json
    expect_equal(body["trace_rate"], "77", "trace_rate")
    expect_equal(target.get("/v2/trace/setting").json["trace_rate"], "77", "trace_rate, asked again")
    expect_equal(
        granted(target.post("/v2/trace/setting", {"trace_rate": None})).json["trace_rate"], before, "after null"
    )


@case("trace.wrong", level="robust", extensions=["trace"])
def trace_wrong(target: Target) -> None:
    """An unknown trace setting or value is refused."""
    refused(target.post("/v2/trace/setting", {"no_such_setting": "1"}))
    refused(target.post("/v2/trace/setting", {"trace_rate": "often"}))


@case("logging", level="extension", extensions=["logging"])
def logging(target: Target) -> None:
    """Log settings: booleans log_info, log_warning, log_error, and log_verbose_level, a number."""
    body = target.get("/v2/logging").json
    for name in ("log_info", "log_warning", "log_error"):
        expect(isinstance(body[name], bool), f"{name} is {body[name]!r}")
    expect(type(body["log_verbose_level"]) is int, f"log_verbose_level is {body['log_verbose_level']!r}")


@case("logging.update", level="extension", extensions=["logging"])
def logging_update(target: Target) -> None:
    """A log setting that is posted comes back."""
    before = target.get("/v2/logging").json["log_verbose_level"]
    try:
        body = granted(target.post("/v2/logging", {"log_verbose_level": 1})).json
        expect_equal(body["log_verbose_level"], 1, "log_verbose_level")
    finally:
        target.post("/v2/logging", {"log_verbose_level": before})


@case("logging.wrong", level="robust", extensions=["logging"])
def logging_wrong(target: Target) -> None:
    """An unknown log setting or value is refused."""
    refused(target.post("/v2/logging", {"no_such_setting": True}))
    refused(target.post("/v2/logging", {"log_info": "loud"}))


# -- classification


def _classes(target: Target, count: Any, rows: list[list[float]]) -> Any:
    wanted = [{"name": "y", "parameters": {"classification": count}}]
    return target.infer_json(target.standard("scores").name, [tensor("x", "FP32", rows)], outputs=wanted)


@case("classification", level="extension", extensions=["classification"])
def classification(target: Target) -> None:
    """Classification: the k greatest as "value:index:label", row by row."""
    found = outputs(_classes(target, 2, [[0.25, 0.5, 0.125], [3, 1, 2]]))["y"]
    expect_equal(found.datatype, "BYTES", "the datatype")
    expect_equal(found.shape, [2, 2], "the shape")
    parts = [item.decode().split(":") for item in found.array.ravel()]
    expect_equal(
        [part[1:] for part in parts], [["1", "one"], ["0", "zero"], ["0", "zero"], ["2", "two"]], "index:label"
    )
    expect_equal([float(part[0]) for part in parts], [0.5, 0.25, 3, 2], "the values")


@case("classification.all", level="extension", extensions=["classification"])
def classification_all(target: Target) -> None:
    """A k above the number of classes gives all of them."""
    expect_equal(outputs(_classes(target, 9, [[1, 2, 3]]))["y"].shape, [1, 3], "the shape")


@case("classification.off", level="extension", extensions=["classification"])
def classification_off(target: Target) -> None:
    """A k of 0 means no classification."""
    expect_equal(outputs(_classes(target, 0, [[1, 2, 3]]))["y"].datatype, "FP32", "the datatype")


@case("classification.wrong", level="robust", extensions=["classification"])
def classification_wrong(target: Target) -> None:
    """A k that is negative or no integer is refused."""
    for wrong in (-1, "two", 1.5):
        refused(_classes(target, wrong, [[1, 2, 3]]))


@case("settings.wrong", level="robust", extensions=["model_repository"])
def settings_wrong(target: Target) -> None:
    """A body that is no JSON object is refused on every route that takes one."""
    for path in ("/v2/repository/index", "/v2/repository/models/no_such_model/load"):
        for body in (b"{", b"[1]", json.dumps("text").encode()):
            refused(target.post(path, body))
