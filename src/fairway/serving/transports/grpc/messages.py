"""The protobuf messages, in a descriptor pool of their own.

Clients of the protocol register the same symbols in protobuf's default pool, where ours would clash with theirs in a process
that has both.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from fairway.core.errors import InvalidRequest

INFERENCE = "inference.GRPCInferenceService"
HEALTH = "grpc.health.v1.Health"
REFLECTIONS = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")

_COMPILED = Path(__file__).with_name("protos") / "descriptors.binpb"


@cache
def pool() -> descriptor_pool.DescriptorPool:
    """The pool with every definition of :mod:`fairway.serving.transports.grpc.protos`."""
    made = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(_COMPILED.read_bytes()).file:
        made.Add(file)
    return made


@cache
def message(name: str) -> Any:
    r"""The class of a message, by its full name.

    Examples
    --------
    >>> message("inference.ServerLiveResponse")(live=True).SerializeToString()
    b'\x08\x01'
    """
    return message_factory.GetMessageClass(pool().FindMessageTypeByName(name))


def parse(kind: Any, data: bytes) -> Any:
    """A message from its bytes. Raises :class:`InvalidRequest` if they are none."""
    try:
        return kind.FromString(data)
    except DecodeError:
        raise InvalidRequest(
            f"the {len(data)} bytes received are not a {kind.DESCRIPTOR.full_name}; send what its definition says"
        ) from None


def service_methods(service: str) -> dict[str, tuple[Any, Any]]:
    """The message classes, asked and answered, of a service's methods by name."""
    found = pool().FindServiceByName(service)
    return {
        method.name: (message(method.input_type.full_name), message(method.output_type.full_name))
        for method in found.methods
    }
