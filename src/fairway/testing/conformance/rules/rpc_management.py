"""gRPC: configuration, statistics, repository, settings, shared memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from fairway.testing.conformance.case import NotOffered, case, expect, expect_equal
from fairway.testing.conformance.rpc import Answer, granted, outputs, refused
from fairway.testing.conformance.rules.management import eventually
from fairway.testing.conformance.rules.shared_memory import ROW, region
from fairway.testing.conformance.target import Target
from fairway.testing.conformance.tensors import tensor


def _allowed(answer: Answer) -> Any:
    """The message; :class:`NotOffered` if the operator has switched changes off."""
    if answer.status in ("PERMISSION_DENIED", "UNAVAILABLE", "FAILED_PRECONDITION", "INVALID_ARGUMENT"):
        raise NotOffered(f"the server refuses it: {answer.text}")
    return granted(answer)


@case("grpc.config", level="extension", extensions=["model_configuration"])
def config(target: Target) -> None:
    """gRPC, model configuration: what REST says."""
    name = target.any.name
    found = granted(target.rpc.call("ModelConfig", {"name": name})).config
    said = target.get(f"/v2/models/{name}/config").json
    expect_equal((found.name, found.max_batch_size), (name, said["max_batch_size"]), "name and max_batch_size")
    for side in ("input", "output"):
        expect_equal([t.name for t in getattr(found, side)], [t["name"] for t in said[side]], f"the {side}s")
    refused(target.rpc.call("ModelConfig", {"name": "no_such_model"}))


@case("grpc.statistics", level="extension", extensions=["statistics"])
def statistics(target: Target) -> None:
    """gRPC, statistics: a request of three rows adds three to inference_count."""
    model = target.standard("row_sum").name

    def count() -> int:
        (entry,) = granted(target.rpc.call("ModelStatistics", {"name": model})).model_stats
        return int(entry.inference_count)

    before = count()
    granted(target.rpc.infer(model, [tensor("x", "FP32", [[1, 2]] * 3)]))
    eventually(lambda: expect_equal(count() - before, 3, "the rise of inference_count"))
    names = {entry.name for entry in granted(target.rpc.call("ModelStatistics")).model_stats}
    expect(model in names, "statistics without a name are not those of every model")


@case("grpc.repository.index", level="extension", extensions=["model_repository"])
def index(target: Target) -> None:
    """gRPC, repository: the index lists name, version and state."""
    models = granted(target.rpc.call("RepositoryIndex", {"ready": True})).models
    expect(
        (target.any.name, "READY") in {(m.name, m.state) for m in models}, f"{target.any.name!r} is not in the index"
    )


@case("grpc.repository.load", level="extension", extensions=["model_repository"])
def load(target: Target) -> None:
    """gRPC, repository: unload and load."""
    model = target.standard("row_sum").name
    _allowed(target.rpc.call("RepositoryModelUnload", {"modelName": model}))
    try:
        eventually(
            lambda: expect(not granted(target.rpc.call("ModelReady", {"name": model})).ready, "it is still ready")
        )
    finally:
        back = target.rpc.call("RepositoryModelLoad", {"modelName": model})
    granted(back)
    eventually(lambda: expect(granted(target.rpc.call("ModelReady", {"name": model})).ready, "it is not ready again"))
    refused(target.rpc.call("RepositoryModelLoad", {"modelName": "no_such_model"}))


@case("grpc.trace", level="extension", extensions=["trace"])
def trace(target: Target) -> None:
    """gRPC, trace: settings are lists of texts."""
    settings = granted(target.rpc.call("TraceSetting", {"modelName": target.any.name})).settings
    expect("trace_rate" in settings and len(settings["trace_rate"].value) == 1, f"the settings are {list(settings)}")


@case("grpc.logging", level="extension", extensions=["logging"])
def logging(target: Target) -> None:
    """gRPC, logging: settings are booleans, numbers and texts."""
    settings = granted(target.rpc.call("LogSettings")).settings
    expect_equal(settings["log_info"].WhichOneof("parameter_choice"), "bool_param", "the type of log_info")
    expect_equal(
        settings["log_verbose_level"].WhichOneof("parameter_choice"), "uint32_param", "that of log_verbose_level"
    )


@case("grpc.classification", level="extension", extensions=["classification"])
def classification(target: Target) -> None:
    """gRPC, classification: "value:index:label"."""
    request = target.rpc.request(
        target.standard("scores").name, [tensor("x", "FP32", [[0.25, 0.5, 0.125]])], wanted=["y"]
    )
    request.outputs[0].parameters["classification"].int64_param = 2
    found = outputs(granted(target.rpc.call("ModelInfer", request)))["y"]
    expect_equal((found.datatype, found.shape), ("BYTES", [1, 2]), "datatype and shape")
    parts = [item.decode().split(":")[1:] for item in found.array.ravel()]
    expect_equal(parts, [["1", "one"], ["0", "zero"]], "index:label")


@case("grpc.shared_memory", level="extension", extensions=["system_shared_memory"])
def shared_memory(target: Target) -> None:
    """gRPC, shared memory: an input from a region, an output into it with an empty raw entry."""
    with region(target) as (name, file):
        regions = granted(target.rpc.call("SystemSharedMemoryStatus", {"name": name})).regions
        expect_equal((regions[name].key, regions[name].byte_size), (f"/{name}", 64), "key and byte_size")
        request = target.rpc.request(target.standard("identity_fp32").name, [tensor("x", "FP32", [ROW])], wanted=["y"])
        del request.raw_input_contents[:]
        for place, at in ((request.inputs[0], 0), (request.outputs[0], 32)):
            place.parameters["shared_memory_region"].string_param = name
            place.parameters["shared_memory_byte_size"].int64_param = 16
            place.parameters["shared_memory_offset"].int64_param = at
        message = granted(target.rpc.call("ModelInfer", request))
        expect_equal([bytes(raw) for raw in message.raw_output_contents], [b""], "raw_output_contents")
        expect_equal(np.frombuffer(file.read_bytes()[32:48], "<f4").tolist(), ROW.tolist(), "the region")


@case("grpc.shared_memory.mixed", level="extension", extensions=["system_shared_memory"])
def shared_memory_mixed(target: Target) -> None:
    """gRPC, shared memory: the raw contents' positions skip inputs that lie in a region."""
    with region(target) as (name, file):
        file.write_bytes(np.array([10, 20, 30, 40], "<i4").tobytes().ljust(64, b"\0"))
        inputs = [tensor("a", "INT32", [[0] * 4]), tensor("b", "INT32", [[1, 2, 3, 4]])]
        request = target.rpc.request(target.standard("add_sub").name, inputs)
        del request.raw_input_contents[0]
        request.inputs[0].parameters["shared_memory_region"].string_param = name
        request.inputs[0].parameters["shared_memory_byte_size"].int64_param = 16
        found = outputs(granted(target.rpc.call("ModelInfer", request)))
        expect_equal(found["sum"].array.tolist(), [[11, 22, 33, 44]], "sum")
