"""The gRPC definitions: the public protocol's, compiled, and out of the way of anybody else's."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from google.protobuf import descriptor_pb2

from fairway.serving.transports.grpc import messages

CLIENT = "import tritonclient.grpc as client; client.InferInput('x', [1], 'FP32')"
OURS = "from fairway.serving.transports.grpc import messages; messages.message('inference.ModelInferRequest')(id='1')"
THEIR_OWN = {"CudaSharedMemory", "ModelConfig", "ModelInstanceGroup"}
"""Of these the protocol has more than ours: no CUDA memory here, and a configuration that says less."""


def fields(message: Any) -> dict[str, tuple[Any, ...]]:
    """Everything that decides how a message looks on the wire and in JSON."""
    return {
        field.name: (
            field.number,
            field.type,
            field.is_repeated,
            field.has_presence,
            field.message_type.full_name if field.message_type else None,
            field.enum_type.full_name if field.enum_type else None,
            field.containing_oneof.name if field.containing_oneof else None,
        )
        for field in message.fields
    }


def everything(messages_by_name: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for message in messages_by_name.values():
        found[message.full_name] = message
        found |= everything(message.nested_types_by_name)
    return found


def of_client() -> dict[str, Any]:
    pytest.importorskip("tritonclient.grpc", reason="the field's client is not installed")
    from tritonclient.grpc import model_config_pb2, service_pb2

    return everything(service_pb2.DESCRIPTOR.message_types_by_name) | everything(
        model_config_pb2.DESCRIPTOR.message_types_by_name
    )


def of_ours(*files: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for file in files:
        found |= everything(messages.pool().FindFileByName(file).message_types_by_name)
    return found


def test_every_field_of_ours_is_the_clients_field() -> None:
    theirs = of_client()
    for name, message in of_ours("inference.proto", "model_config.proto").items():
        assert fields(message).items() <= fields(theirs[name]).items(), name


def test_no_field_that_clients_use_is_missing() -> None:
    ours = of_ours("inference.proto", "model_config.proto")
    for name, message in of_client().items():
        short = name.removeprefix("inference.")
        if (
            short in ours
            or any(short.startswith(own) for own in THEIR_OWN)
            or message.file.name == "model_config.proto"
        ):
            continue
        assert fields(ours[name]) == fields(message), name


def test_the_services_methods_are_the_clients() -> None:
    pytest.importorskip("tritonclient.grpc", reason="the field's client is not installed")
    from tritonclient.grpc import service_pb2

    theirs = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods
    ours = messages.pool().FindServiceByName(messages.INFERENCE).methods
    signatures = {
        (m.name, m.input_type.full_name, m.output_type.full_name, m.client_streaming, m.server_streaming)
        for m in theirs
    }
    for m in ours:
        signature = (m.name, m.input_type.full_name, m.output_type.full_name, m.client_streaming, m.server_streaming)
        assert signature in signatures
    missing = {m.name for m in theirs} - {m.name for m in ours}
    assert all(name.startswith("CudaSharedMemory") for name in missing)


def test_datatypes_have_the_clients_numbers() -> None:
    pytest.importorskip("tritonclient.grpc", reason="the field's client is not installed")
    from tritonclient.grpc import model_config_pb2

    ours = messages.pool().FindEnumTypeByName("inference.DataType").values_by_name
    assert {name: value.number for name, value in ours.items()} == dict(model_config_pb2.DataType.items())


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection_is_the_public_one(version: str) -> None:
    reflection = pytest.importorskip(
        "grpc_reflection.v1alpha.reflection_pb2", reason="grpcio-reflection is not installed"
    )
    theirs = everything(reflection.DESCRIPTOR.message_types_by_name)
    ours = of_ours(f"reflection_{version}.proto")
    assert len(ours) == len(theirs)
    for name, message in theirs.items():
        same = fields(ours[name.replace("v1alpha", version)])
        assert str(same).replace(f".{version}.", ".v1alpha.") == str(fields(message))


def test_health_is_the_public_one() -> None:
    health = pytest.importorskip("grpc_health.v1.health_pb2", reason="grpcio-health-checking is not installed")
    theirs = everything(health.DESCRIPTOR.message_types_by_name)
    ours = of_ours("health.proto")
    assert {name: fields(message) for name, message in ours.items()} == {
        name: fields(message) for name, message in theirs.items()
    }
    states = messages.message("grpc.health.v1.HealthCheckResponse").DESCRIPTOR.enum_types_by_name["ServingStatus"]
    assert {v.name: v.number for v in states.values} == dict(health.HealthCheckResponse.ServingStatus.items())


def test_what_is_compiled_is_up_to_date() -> None:
    pytest.importorskip("grpc_tools", reason="grpcio-tools is not installed")
    from fairway.serving.transports.grpc.protos.__main__ import COMPILED, compile_all

    now, shipped = (
        descriptor_pb2.FileDescriptorSet.FromString(data) for data in (compile_all(), COMPILED.read_bytes())
    )
    assert now == shipped, "run: python -m fairway.serving.transports.grpc.protos"


@pytest.mark.parametrize("order", [(CLIENT, OURS), (OURS, CLIENT)], ids=["client first", "ours first"])
def test_the_fields_client_lives_in_the_same_process(order: tuple[str, str]) -> None:
    pytest.importorskip("tritonclient.grpc", reason="the field's client is not installed")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "; ".join(order)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
