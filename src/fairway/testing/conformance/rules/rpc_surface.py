"""gRPC: health, metadata, reflection."""

from __future__ import annotations

from fairway.testing.conformance.case import NotOffered, case, expect, expect_equal
from fairway.testing.conformance.rpc import granted, refused
from fairway.testing.conformance.target import Target
from fairway.testing.conformance.tensors import DTYPES

HEALTH = "grpc.health.v1.Health"


@case("grpc.live")
def live(target: Target) -> None:
    """OIP, gRPC: ServerLive answers live: true."""
    expect(granted(target.rpc.call("ServerLive")).live, "live is false")


@case("grpc.ready")
def ready(target: Target) -> None:
    """OIP, gRPC: ServerReady answers ready: true."""
    expect(granted(target.rpc.call("ServerReady")).ready, "ready is false")


@case("grpc.model.ready")
def model_ready(target: Target) -> None:
    """OIP, gRPC: ModelReady answers ready: true for a model, and for one of its versions."""
    model = target.any
    for version in ("", *model.versions[-1:]):
        message = granted(target.rpc.call("ModelReady", {"name": model.name, "version": version}))
        expect(message.ready, f"ready is false for version {version!r}")


@case("grpc.model.ready.unknown")
def unknown_ready(target: Target) -> None:
    """An unknown model is not ready: ready false, or an error."""
    answer = target.rpc.call("ModelReady", {"name": "no_such_model"})
    if answer.status == "OK":
        expect(not answer.message.ready, "it is ready")
    else:
        refused(answer)


@case("grpc.model.ready.unknown.ok", level="extension")
def unknown_ready_ok(target: Target) -> None:
    """Triton answers OK with ready false for an unknown model."""
    expect(not granted(target.rpc.call("ModelReady", {"name": "no_such_model"})).ready, "it is ready")


@case("grpc.server.metadata")
def server_metadata(target: Target) -> None:
    """OIP, gRPC: ServerMetadata says what REST says."""
    message = granted(target.rpc.call("ServerMetadata"))
    body = target.get("/v2").json
    found = (message.name, message.version, sorted(message.extensions))
    expect_equal(found, (body["name"], body["version"], sorted(body["extensions"])), "name, version and extensions")


@case("grpc.model.metadata")
def model_metadata(target: Target) -> None:
    """OIP, gRPC: ModelMetadata says what REST says."""
    model = target.any
    message = granted(target.rpc.call("ModelMetadata", {"name": model.name}))
    expect_equal(message.name, model.name, "name")
    expect_equal(tuple(message.versions), model.versions, "versions")
    for found, said in ((message.inputs, model.inputs), (message.outputs, model.outputs)):
        listed = [(t.name, t.datatype, list(t.shape)) for t in found]
        expect_equal(listed, [(t["name"], t["datatype"], [int(s) for s in t["shape"]]) for t in said], "tensors")
        expect(all(t.datatype in DTYPES for t in found), "a datatype is none of the protocol's")


@case("grpc.model.metadata.unknown")
def unknown_metadata(target: Target) -> None:
    """OIP, gRPC: an unknown model or version is an error."""
    refused(target.rpc.call("ModelMetadata", {"name": "no_such_model"}))
    refused(target.rpc.call("ModelMetadata", {"name": target.any.name, "version": "987654"}))


@case("grpc.model.metadata.unknown.status", level="extension")
def unknown_metadata_status(target: Target) -> None:
    """An unknown model is NOT_FOUND."""
    refused(target.rpc.call("ModelMetadata", {"name": "no_such_model"}), "NOT_FOUND")


@case("grpc.health", level="extension")
def health(target: Target) -> None:
    """grpc.health.v1: Check answers SERVING for the server as a whole."""
    expect_equal(granted(target.rpc.call("Check", service=HEALTH)).status, 1, "the status (1 is SERVING)")


@case("grpc.health.unknown", level="robust")
def health_unknown(target: Target) -> None:
    """grpc.health.v1: a service that does not exist is NOT_FOUND."""
    refused(target.rpc.call("Check", {"service": "no.such.Service"}, service=HEALTH), "NOT_FOUND")


@case("grpc.reflection", level="robust")
def reflection(target: Target) -> None:
    """Server reflection lists the inference service: grpcurl works without proto files."""
    listed = target.rpc.services()
    if listed is None:
        raise NotOffered("the server has no reflection service")
    expect("inference.GRPCInferenceService" in listed, f"the service is not among {listed}")


@case("grpc.method.unknown")
def unknown_method(target: Target) -> None:
    """A method that does not exist is UNIMPLEMENTED."""
    answer = target.rpc.raw("/inference.GRPCInferenceService/NoSuchMethod", b"")
    expect_equal(answer.status, "UNIMPLEMENTED", "the status")


@case("grpc.message.broken")
def broken_message(target: Target) -> None:
    """Bytes that are no message are an error, and the connection goes on."""
    answer = target.rpc.raw("/inference.GRPCInferenceService/ModelInfer", b"\xff\xff\xff\xff\xff")
    expect(answer.status != "OK", "answered OK")
    granted(target.rpc.call("ServerLive"))
