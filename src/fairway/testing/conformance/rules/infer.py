"""Inference with JSON: ids, versions, outputs, parameters, and requests that do not fit."""

from __future__ import annotations

import json
from typing import Any

from fairway.testing.conformance.case import NotOffered, case, expect, expect_equal
from fairway.testing.conformance.target import Target, head, outputs, refused
from fairway.testing.conformance.tensors import Tensor, same, tensor

ROWS = tensor("x", "FP32", [[1.5, -2, 3], [4, 5, -6]])


def sample(target: Target) -> list[Tensor]:
    """Inputs to whatever model there is."""
    given = target.any.sample()
    if any(t.datatype in ("FP16", "BF16") for t in given):
        raise NotOffered(f"{target.any.name!r} takes a datatype that has no JSON form")
    return given


def request(**changes: Any) -> dict[str, Any]:
    """A good request to ``identity_fp32``, with changes to its only tensor; ``None`` takes a field away."""
    changed = {**ROWS.as_json(), **changes}
    return {"inputs": [{name: value for name, value in changed.items() if value is not None}]}


def identity(target: Target) -> str:
    """The model's name."""
    return target.standard("identity_fp32").name


@case("infer.any")
def any_model(target: Target) -> None:
    """OIP, inference: a request made from the model's metadata is answered with model_name and every output."""
    reply = target.infer_json(target.any.name, sample(target))
    found = outputs(reply)
    expect_equal(head(reply)["model_name"], target.any.name, "model_name")
    expect_equal(sorted(found), sorted(spec["name"] for spec in target.any.outputs), "the outputs")
    for spec in target.any.outputs:
        expect_equal(found[spec["name"]].datatype, spec["datatype"], f"the datatype of {spec['name']!r}")
        shape, said = found[spec["name"]].shape, [int(size) for size in spec["shape"]]
        fits = len(shape) == len(said) and all(want in (-1, have) for want, have in zip(said, shape, strict=True))
        expect(fits, f"the shape {shape} of {spec['name']!r} does not fit the metadata's {said}")


@case("infer.content_type")
def content_type(target: Target) -> None:
    """An answer in JSON says so: Content-Type application/json."""
    reply = target.infer_json(target.any.name, sample(target))
    outputs(reply)
    said = reply.headers.get("content-type", "")
    expect(said.startswith("application/json"), f"Content-Type is {said!r}")


@case("infer.identity")
def identity_answers(target: Target) -> None:
    """OIP, inference: values, shape and datatype of an identity come back as they were sent."""
    same(outputs(target.infer_json(identity(target), [ROWS]))["y"], Tensor("y", "FP32", ROWS.array))


@case("infer.data.nested")
def nested(target: Target) -> None:
    """OIP, tensor data: values may be nested as the shape says, or one flat list."""
    reply = target.infer(identity(target), request(data=[[1.5, -2, 3], [4, 5, -6]]))
    same(outputs(reply)["y"], Tensor("y", "FP32", ROWS.array))


@case("infer.data.integers")
def integers_as_floats(target: Target) -> None:
    """JSON has one kind of number: 1 is a good FP32 value."""
    reply = target.infer(identity(target), request(data=[1, 2, 3, 4, 5, 6]))
    expect_equal(outputs(reply)["y"].array.ravel().tolist(), [1, 2, 3, 4, 5, 6], "the values")


@case("infer.two")
def two_inputs(target: Target) -> None:
    """OIP, inference: inputs are matched by name, whatever their order."""
    model = target.standard("add_sub").name
    a, b = tensor("a", "INT32", [[10, 20, 30, 40]]), tensor("b", "INT32", [[1, 2, 3, 4]])
    for inputs in ([a, b], [b, a]):
        found = outputs(target.infer_json(model, inputs))
        expect_equal(found["sum"].array.tolist(), [[11, 22, 33, 44]], "sum")
        expect_equal(found["difference"].array.tolist(), [[9, 18, 27, 36]], "difference")


@case("infer.content_type.any", level="extension")
def no_content_type(target: Target) -> None:
    """Tritonclient sends no Content-Type: JSON is read whatever it says."""
    body = {"inputs": [given.as_json() for given in sample(target)]}
    for said in ("", "application/x-www-form-urlencoded", "text/plain; charset=utf-8"):
        expect_equal(
            target.infer(target.any.name, body, {"content-type": said}).status, 200, f"the status with {said!r}"
        )


# -- id


@case("infer.id.echo")
def id_echo(target: Target) -> None:
    """OIP, inference response: the request's id comes back."""
    for name in ("a7", "with spaces and ünïcode", "x" * 500):
        expect_equal(head(target.infer_json(target.any.name, sample(target), id=name)).get("id"), name, "id")


@case("infer.id.absent", level="extension")
def id_absent(target: Target) -> None:
    """A request without id is answered without: not null (kserve#3094), not an empty text, nothing made up."""
    body = head(target.infer_json(target.any.name, sample(target)))
    expect("id" not in body, f"id is {body.get('id')!r}")


@case("infer.id.null")
def id_null(target: Target) -> None:
    """OIP: id is a string; a null in the answer breaks typed clients (kserve#3094)."""
    body = head(target.infer_json(target.any.name, sample(target)))
    expect(isinstance(body.get("id", ""), str), f"id is {body.get('id')!r}")


@case("infer.id.type", level="robust")
def id_type(target: Target) -> None:
    """OIP: id is a string; another type is refused."""
    for wrong in (["a"], {"a": 1}, True):
        refused(target.infer_json(target.any.name, sample(target), id=wrong))


# -- outputs


def _add_sub(target: Target, wanted: Any) -> list[str]:
    ones = [tensor(name, "INT32", [[1, 1, 1, 1]]) for name in ("a", "b")]
    reply = target.infer_json(target.standard("add_sub").name, ones, outputs=wanted)
    outputs(reply)
    return [output["name"] for output in head(reply)["outputs"]]


@case("infer.outputs.subset")
def outputs_subset(target: Target) -> None:
    """OIP, request outputs: only the outputs that were asked for come back (MLServer#514)."""
    expect_equal(_add_sub(target, [{"name": "difference"}]), ["difference"], "the outputs")


@case("infer.outputs.all")
def outputs_all(target: Target) -> None:
    """OIP, request outputs: all of them may be named, in any order."""
    found = _add_sub(target, [{"name": "sum"}, {"name": "difference"}])
    expect_equal(sorted(found), ["difference", "sum"], "the outputs")


@case("infer.outputs.empty", level="extension")
def outputs_empty(target: Target) -> None:
    """An empty list of outputs means all of them."""
    expect_equal(sorted(_add_sub(target, [])), ["difference", "sum"], "the outputs")


@case("infer.outputs.twice", level="extension")
def outputs_twice(target: Target) -> None:
    """An output that is named twice comes once."""
    expect_equal(_add_sub(target, [{"name": "sum"}, {"name": "sum"}]), ["sum"], "the outputs")


@case("infer.outputs.unknown")
def outputs_unknown(target: Target) -> None:
    """An output that the model does not have is refused by name."""
    text = refused(target.infer_json(target.any.name, sample(target), outputs=[{"name": "no_such_output"}]))
    expect("no_such_output" in text, f"the error does not name the output: {text!r}")


# -- parameters


@case("infer.parameters")
def parameters(target: Target) -> None:
    """OIP: parameters are optional everywhere; one that the server does not know is no error."""
    inputs = [Tensor(t.name, t.datatype, t.array, {"note": "x"}) for t in sample(target)]
    fields = {"parameters": {"note": "text", "number": 7, "flag": True}}
    expect_equal(target.infer_json(target.any.name, inputs, **fields).status, 200, "the status")


@case("infer.parameters.fraction", level="extension")
def fraction_parameter(target: Target) -> None:
    """OIP allows a parameter to be a number: 0.5 as well (Triton: extension of 2.45)."""
    reply = target.infer_json(target.any.name, sample(target), parameters={"fraction": 0.5})
    expect_equal(reply.status, 200, "the status")


@case("infer.parameters.wrong", level="robust")
def wrong_parameters(target: Target) -> None:
    """Parameters that are no object are refused."""
    for wrong in ([1], "text", 7):
        refused(target.infer_json(target.any.name, sample(target), parameters=wrong))


@case("infer.parameters.priority", level="extension", extensions=["schedule_policy"])
def priority(target: Target) -> None:
    """Triton, schedule policy: priority 0 is the default, 1 the highest, timeout is in microseconds."""
    fields = {"parameters": {"priority": 0, "timeout": 10_000_000}}
    expect_equal(target.infer_json(target.any.name, sample(target), **fields).status, 200, "the status")


# -- requests that do not fit the model


def _refusals(target: Target, *bodies: Any) -> list[str]:
    return [refused(target.infer(identity(target), body)) for body in bodies]


@case("infer.wrong.model")
def unknown_model(target: Target) -> None:
    """OIP: an unknown model is refused with a body {"error": "text"}."""
    refused(target.infer("no_such_model", request()))


@case("infer.wrong.input")
def wrong_inputs(target: Target) -> None:
    """An unknown, missing, or doubled input is refused, and told so."""
    doubled = {"inputs": request()["inputs"] * 2}
    (text, *_) = _refusals(target, request(name="nobody"), {"inputs": []}, doubled)
    expect("nobody" in text or "x" in text, f"the error names neither what was sent nor what is taken: {text!r}")


@case("infer.wrong.extra")
def extra_input(target: Target) -> None:
    """An input that the model does not have, beside those it has, is refused."""
    _refusals(target, {"inputs": [*request()["inputs"], *request(name="extra")["inputs"]]})


@case("infer.wrong.datatype")
def wrong_datatype(target: Target) -> None:
    """A datatype that is not the model's, or none of the protocol's, is refused."""
    _refusals(target, request(datatype="INT64", data=[1] * 6), request(datatype="FLOAT"), request(datatype=7))


@case("infer.wrong.rank")
def wrong_rank(target: Target) -> None:
    """A shape with too many or too few sizes is refused."""
    _refusals(target, request(shape=[6]), request(shape=[2, 3, 1]), request(shape=[], data=[1.0]))


@case("infer.wrong.size")
def wrong_size(target: Target) -> None:
    """A size that is fixed in the metadata must be that size: else refused, with the size that is taken."""
    model = target.standard("scores").name
    text = refused(target.infer_json(model, [tensor("x", "FP32", [[1, 2, 3, 4]])]))
    expect("3" in text, f"the error does not say what is taken: {text!r}")


@case("infer.wrong.count")
def wrong_count(target: Target) -> None:
    """More or fewer values than the shape says is refused."""
    _refusals(target, request(data=[1.0] * 5), request(data=[1.0] * 7), request(data=[]))


@case("infer.wrong.shape")
def wrong_shape(target: Target) -> None:
    """Sizes that are negative, fractions, texts or no list are refused."""
    shapes: list[Any] = [[-2, -3], [-1, 6], ["2", 3], {"0": 2}, "2,3"]
    _refusals(target, *(request(shape=shape) for shape in shapes), request(shape=None))


@case("infer.wrong.shape.fraction", level="robust")
def fractional_shape(target: Target) -> None:
    """A size of 2.5 or 2.0 is refused."""
    _refusals(target, request(shape=[2.5, 3]), request(shape=[True, 6]))


@case("infer.wrong.data")
def wrong_data(target: Target) -> None:
    """Data of another type than the datatype is refused."""
    wrong: list[Any] = [["a"] * 6, [None] * 6, [{}] * 6, "text", {"0": 1}]
    _refusals(target, *(request(data=data) for data in wrong))


@case("infer.wrong.data.missing")
def missing_data(target: Target) -> None:
    """An input without data is refused."""
    _refusals(target, request(data=None))


@case("infer.wrong.data.mixed")
def mixed_data(target: Target) -> None:
    """One value of another type among good ones is refused."""
    _refusals(target, request(data=[1, 2, 3, 4, 5, "6"]), request(data=[1, 2, 3, 4, 5, None]))


@case("infer.wrong.zero_rows")
def zero_rows(target: Target) -> None:
    """No rows: an answer without rows, or an error that says so; never a 5xx."""
    reply = target.infer(identity(target), request(shape=[0, 3], data=[]))
    if reply.status == 200:
        expect_equal(outputs(reply)["y"].shape, [0, 3], "the shape")
    else:
        refused(reply)


@case("infer.wrong.json")
def wrong_json(target: Target) -> None:
    """A body that is no JSON object with inputs is refused with a body {"error": "text"}."""
    name = target.any.name
    whole = json.dumps(request()).encode()
    for body in (
        b"{",
        whole[:-1],
        whole + b"}",
        b"[]",
        b"7",
        b'"text"',
        b"null",
        b"{}",
        b'{"inputs": 7}',
        b'{"inputs": [7]}',
    ):
        refused(target.infer(name, body))


@case("infer.wrong.empty", level="robust")
def empty_body(target: Target) -> None:
    """An empty body is refused, and told so."""
    refused(target.infer(target.any.name, b""))


@case("infer.wrong.text", level="robust")
def wrong_text(target: Target) -> None:
    """A body that is not UTF-8 is refused."""
    refused(target.infer(target.any.name, b'{"id": "\xff\xfe", ' + json.dumps(request()).encode()[1:]))
    refused(target.infer(target.any.name, json.dumps(request()).encode("utf-16")))


@case("infer.wrong.alone")
def failing_model(target: Target) -> None:
    """A request that the model itself fails on gets an error; the next good one an answer."""
    model = target.standard("picky").name
    reply = target.infer_json(model, [tensor("x", "INT64", [[9]])])
    expect(reply.status >= 400, f"answered {reply.status}")
    _ = reply.error
    good = outputs(target.infer_json(model, [tensor("x", "INT64", [[3]])]))
    expect_equal(good["y"].array.tolist(), [[30.0]], "the next answer")


@case("infer.wrong.blame", level="robust", strict=True)
def blame(target: Target) -> None:
    """What is the caller's fault is a 4xx, not a 5xx: callers and balancers retry a 5xx."""
    checks = (unknown_model, wrong_inputs, extra_input, wrong_datatype, wrong_rank, wrong_size, wrong_count, wrong_shape,
              wrong_data, missing_data, mixed_data, wrong_json, outputs_unknown)  # fmt: skip
    for check in checks:
        check(target)
