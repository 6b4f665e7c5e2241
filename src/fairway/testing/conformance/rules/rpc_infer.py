"""gRPC: inference, one by one and in streams."""

from __future__ import annotations

from typing import Any

from fairway.testing.conformance.case import case, expect, expect_equal
from fairway.testing.conformance.rpc import CONTENTS, granted, outputs, refused
from fairway.testing.conformance.rules.concurrency import CALLERS, EACH, together
from fairway.testing.conformance.rules.datatypes import edges, square
from fairway.testing.conformance.rules.infer import ROWS
from fairway.testing.conformance.target import Target
from fairway.testing.conformance.tensors import DTYPES, Tensor, same, tensor, to_bytes

A, B = tensor("a", "INT32", [[10, 20, 30, 40]]), tensor("b", "INT32", [[1, 2, 3, 4]])


def _typed(target: Target, given: Tensor) -> Any:
    """A request whose values lie in ``contents``."""
    request = target.rpc.request(target.standard(f"identity_{given.datatype.lower()}").name, [given])
    del request.raw_input_contents[:]
    getattr(request.inputs[0].contents, CONTENTS[given.datatype]).extend(v for v in given.array.ravel().tolist())
    return request


def _raw_case(datatype: str) -> None:
    @case(f"grpc.data.raw.{datatype}", rule=f"gRPC: {datatype} as raw contents survives both ways bit by bit",
          level="extension" if datatype in ("FP16", "BF16") else "required")  # fmt: skip
    def check(target: Target) -> None:
        given = square(datatype, edges(datatype))
        message = granted(target.rpc.infer(target.standard(f"identity_{datatype.lower()}").name, [given]))
        same(outputs(message)["y"], Tensor("y", datatype, given.array))


def _typed_case(datatype: str) -> None:
    @case(
        f"grpc.data.typed.{datatype}",
        rule=f"gRPC: {datatype} as typed contents is read, the extremes too",
    )
    def check(target: Target) -> None:
        given = square(datatype, edges(datatype))
        message = granted(target.rpc.call("ModelInfer", _typed(target, given)))
        same(outputs(message)["y"], Tensor("y", datatype, given.array))


for _datatype in DTYPES:
    _raw_case(_datatype)
for _datatype in CONTENTS:
    _typed_case(_datatype)


@case("grpc.infer.any")
def any_model(target: Target) -> None:
    """OIP, gRPC: a request made from the model's metadata is answered with every output."""
    message = granted(target.rpc.infer(target.any.name, target.any.sample()))
    expect_equal(message.model_name, target.any.name, "model_name")
    expect_equal(sorted(outputs(message)), sorted(spec["name"] for spec in target.any.outputs), "the outputs")


@case("grpc.infer.raw", level="extension")
def answered_raw(target: Target) -> None:
    """Answers have raw_output_contents, whatever form the request had: tritonclient reads hardly anything else."""
    message = granted(target.rpc.call("ModelInfer", _typed(target, ROWS)))
    expect_equal(len(message.raw_output_contents), len(message.outputs), "the number of raw_output_contents")


@case("grpc.infer.like_rest")
def like_rest(target: Target) -> None:
    """The same request gets the same answer over gRPC and REST."""
    from fairway.testing.conformance.target import outputs as rest_outputs

    model = target.standard("row_sum").name
    found = outputs(granted(target.rpc.infer(model, [ROWS])))["y"]
    same(rest_outputs(target.infer_json(model, [ROWS]))["y"], found)


@case("grpc.infer.id")
def id_echo(target: Target) -> None:
    """OIP, gRPC: the id comes back."""
    expect_equal(granted(target.rpc.infer(target.any.name, target.any.sample(), id="g1")).id, "g1", "id")
    expect_equal(granted(target.rpc.infer(target.any.name, target.any.sample())).id, "", "id")


@case("grpc.infer.outputs")
def wanted(target: Target) -> None:
    """OIP, gRPC: only the outputs that were asked for come back."""
    model = target.standard("add_sub").name
    message = granted(target.rpc.infer(model, [A, B], wanted=["difference"]))
    expect_equal(
        {k: t.array.tolist() for k, t in outputs(message).items()}, {"difference": [[9, 18, 27, 36]]}, "outputs"
    )
    expect_equal(sorted(outputs(granted(target.rpc.infer(model, [A, B])))), ["difference", "sum"], "the outputs")


@case("grpc.infer.order")
def order(target: Target) -> None:
    """gRPC: inputs are matched by name, and their raw contents by position."""
    message = granted(target.rpc.infer(target.standard("add_sub").name, [B, A]))
    expect_equal(outputs(message)["difference"].array.tolist(), [[9, 18, 27, 36]], "difference")


@case("grpc.infer.version")
def version(target: Target) -> None:
    """gRPC: a version that is named answers."""
    model = target.standard("versions")
    for number in model.versions:
        message = granted(target.rpc.infer(model.name, [tensor("x", "INT32", [[40]])], version=number))
        expect_equal(int(outputs(message)["y"].array[0, 0]), 40 + int(number), f"the answer of version {number}")
        expect_equal(message.model_version, number, "model_version")


@case("grpc.infer.parameters")
def parameters(target: Target) -> None:
    """gRPC: parameters that the server does not know are no error."""
    given = {"note": {"stringParam": "x"}, "n": {"int64Param": "7"}, "f": {"boolParam": True}}
    granted(target.rpc.infer(target.any.name, target.any.sample(), parameters=given))


@case("grpc.infer.parameters.all", level="robust")
def more_parameters(target: Target) -> None:
    """gRPC: double_param and uint64_param are parameters as well."""
    given = {"d": {"doubleParam": 0.5}, "u": {"uint64Param": "7"}}
    granted(target.rpc.infer(target.any.name, target.any.sample(), parameters=given))


@case("grpc.infer.large", level="extension")
def large(target: Target) -> None:
    """gRPC: messages above 4 MiB pass both ways (Python servers refuse them by default)."""
    given = tensor("x", "FP32", [[0.5] * 1_400_000])
    message = granted(target.rpc.infer(target.standard("identity_fp32").name, [given]))
    same(outputs(message)["y"], Tensor("y", "FP32", given.array))


@case("grpc.infer.compression", level="extension")
def compression(target: Target) -> None:
    """gRPC: messages compressed with gzip or deflate are read."""
    import grpc

    request = target.rpc.request(target.standard("row_sum").name, [ROWS])
    for kind in (grpc.Compression.Gzip, grpc.Compression.Deflate):
        message = granted(target.rpc.call("ModelInfer", request, compression=kind))
        expect_equal(outputs(message)["y"].array.tolist(), [[2.5], [3.0]], "the sums")


# -- requests that do not fit


@case("grpc.wrong.model")
def unknown_model(target: Target) -> None:
    """gRPC: an unknown model or version is an error."""
    refused(target.rpc.infer("no_such_model", [ROWS]))
    refused(target.rpc.infer(target.any.name, target.any.sample(), version="987654"))


@case("grpc.wrong.model.status", level="extension")
def unknown_model_status(target: Target) -> None:
    """gRPC: an unknown model is NOT_FOUND."""
    refused(target.rpc.infer("no_such_model", [ROWS]), "NOT_FOUND")


def _wrong(target: Target, **changes: Any) -> str:
    """A good request to ``identity_fp32``, with changes to its only tensor."""
    request = target.rpc.request(target.standard("identity_fp32").name, [ROWS])
    for name, value in changes.items():
        if name == "shape":
            del request.inputs[0].shape[:]
            request.inputs[0].shape.extend(value)
        else:
            setattr(request.inputs[0], name, value)
    return refused(target.rpc.call("ModelInfer", request))


@case("grpc.wrong.tensor")
def wrong_tensor(target: Target) -> None:
    """gRPC: a wrong name, datatype, rank or size of an input is an error."""
    _wrong(target, name="nobody")
    _wrong(target, datatype="INT64")
    _wrong(target, datatype="FLOAT")
    _wrong(target, shape=[6])
    _wrong(target, shape=[2, 4])
    _wrong(target, shape=[-2, -3])


@case("grpc.wrong.inputs")
def wrong_inputs(target: Target) -> None:
    """gRPC: no input, an input too many, an output that does not exist: errors."""
    model = target.standard("identity_fp32").name
    refused(target.rpc.infer(model, []))
    refused(target.rpc.infer(model, [ROWS, Tensor("extra", "FP32", ROWS.array)]))
    refused(target.rpc.infer(model, [ROWS], wanted=["no_such_output"]))


@case("grpc.wrong.mixed")
def mixed(target: Target) -> None:
    """gRPC: contents beside raw_input_contents is an error (OIP: they must not be mixed)."""
    request = target.rpc.request(target.standard("add_sub").name, [A, B])
    request.inputs[1].contents.int_contents.extend([1, 2, 3, 4])
    refused(target.rpc.call("ModelInfer", request))


@case("grpc.wrong.raw")
def wrong_raw(target: Target) -> None:
    """gRPC: raw contents that do not fill the shape, or are missing, are an error."""
    for blob in (b"", to_bytes(ROWS)[:-1], to_bytes(ROWS) + b"\0"):
        request = target.rpc.request(target.standard("identity_fp32").name, [ROWS])
        request.raw_input_contents[0] = blob
        refused(target.rpc.call("ModelInfer", request))
    request = target.rpc.request(target.standard("add_sub").name, [A, B])
    del request.raw_input_contents[1:]
    refused(target.rpc.call("ModelInfer", request))


@case("grpc.wrong.raw.left_over", level="robust")
def left_over(target: Target) -> None:
    """gRPC: more raw contents than inputs are an error."""
    request = target.rpc.request(target.standard("identity_fp32").name, [ROWS])
    request.raw_input_contents.append(b"more")
    refused(target.rpc.call("ModelInfer", request))


@case("grpc.wrong.typed")
def wrong_typed(target: Target) -> None:
    """gRPC: typed contents that do not fill the shape, or of another type, are an error."""
    request = _typed(target, ROWS)
    request.inputs[0].contents.fp32_contents.pop()
    refused(target.rpc.call("ModelInfer", request))
    request = _typed(target, ROWS)
    request.inputs[0].ClearField("contents")
    request.inputs[0].contents.int_contents.extend([1] * 6)
    refused(target.rpc.call("ModelInfer", request))


@case("grpc.wrong.typed.range", level="robust")
def typed_range(target: Target) -> None:
    """gRPC: an INT8 of 300 in int_contents is an error, not another value."""
    request = _typed(target, tensor("x", "INT8", [[1]]))
    request.inputs[0].contents.int_contents[0] = 300
    refused(target.rpc.call("ModelInfer", request))


@case("grpc.wrong.blame", level="robust", strict=True)
def blame(target: Target) -> None:
    """gRPC: what is the caller's fault is INVALID_ARGUMENT or the like, not INTERNAL."""
    for check in (unknown_model, wrong_tensor, wrong_inputs, mixed, wrong_raw, wrong_typed):
        check(target)


@case("grpc.wrong.huge", level="robust")
def huge(target: Target) -> None:
    """gRPC: shapes of 10**12 elements, and such as overflow 64 bits, are errors before memory is taken."""
    for shape in ([10**6, 10**6], [2**62, 2], [2**32, 2**32], [2**63 - 1, 1]):
        _wrong(target, shape=shape)
    expect(granted(target.rpc.call("ServerLive")).live, "live is false")


@case("grpc.deadline")
def deadline(target: Target) -> None:
    """gRPC: a deadline that passes ends the call with DEADLINE_EXCEEDED, and the server goes on."""
    request = target.rpc.request(target.standard("slow").name, [tensor("x", "INT64", [[1500]])])
    answer = target.rpc.call("ModelInfer", request, timeout_s=0.2)
    expect_equal(answer.status, "DEADLINE_EXCEEDED", "the status")
    expect(granted(target.rpc.call("ServerLive")).live, "live is false")


# -- many at once, and streams


@case("grpc.concurrency.rows")
def rows(target: Target) -> None:
    """gRPC: rows are never given to another caller."""
    model, rpc = target.standard("identity_fp32").name, target.rpc

    def ask(number: int) -> None:
        given = tensor("x", "FP32", [[number, row, 0.5] for row in range(1 + number % 5)])
        message = granted(rpc.infer(model, [given], id=f"c{number}"))
        same(outputs(message)["y"], Tensor("y", "FP32", given.array))
        expect_equal(message.id, f"c{number}", "id")

    together(ask, CALLERS * EACH)


def _stream(target: Target, *ids: str, bad: str = "") -> list[Any]:
    model = target.standard("identity_fp32").name
    requests = [target.rpc.request("no_such_model" if name == bad else model, [ROWS], id=name) for name in ids]
    return list(target.rpc.stream(requests))


@case("grpc.stream", level="extension")
def stream(target: Target) -> None:
    """Triton, ModelStreamInfer: each request of a stream is answered on it."""
    found = _stream(target, "s0", "s1", "s2")
    expect_equal(sorted(answer.infer_response.id for answer in found), ["s0", "s1", "s2"], "the ids")
    for answer in found:
        same(outputs(answer.infer_response)["y"], Tensor("y", "FP32", ROWS.array))


@case("grpc.stream.error", level="extension")
def stream_error(target: Target) -> None:
    """A request that fails is answered with error_message and its id, and the stream goes on."""
    found = _stream(target, "s0", "bad", "s2", bad="bad")
    told = {answer.infer_response.id: bool(answer.error_message) for answer in found}
    expect_equal(told, {"s0": False, "bad": True, "s2": False}, "which ids have an error")


@case("grpc.stream.empty", level="extension")
def stream_empty(target: Target) -> None:
    """A stream without requests ends well."""
    expect_equal(_stream(target), [], "the answers")


@case("grpc.stream.many", level="extension")
def stream_many(target: Target) -> None:
    """A stream of 200 requests gets 200 answers, none twice."""
    ids = [f"s{i}" for i in range(200)]
    expect_equal(sorted(answer.infer_response.id for answer in _stream(target, *ids)), sorted(ids), "the ids")
