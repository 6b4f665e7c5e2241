"""``ModelInferRequest`` to :class:`InferRequest`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fairway.core.errors import InvalidRequest
from fairway.core.messages import InferRequest
from fairway.core.tensors import Datatype, Tensor
from fairway.serving.routing import normal_version
from fairway.serving.shared_memory import SharedMemory
from fairway.serving.transports.elsewhere import REGION, no_shared_memory, region_of
from fairway.serving.transports.grpc import messages
from fairway.serving.transports.grpc.heads import Heads, Plan
from fairway.serving.transports.grpc.wireform import delimited, head
from fairway.serving.transports.options import own_parameters
from fairway.serving.transports.v2 import OutputOptions, Region, tensor_from_bytes

MAX_DIMENSIONS = 32
_DATATYPES = {kind.value: kind for kind in Datatype}
_NOT_PLAIN = frozenset({Datatype.BOOL.value, Datatype.BYTES.value})
_CONTENTS: Mapping[Datatype, str] = {
    Datatype.BOOL: "bool_contents",
    Datatype.INT8: "int_contents",
    Datatype.INT16: "int_contents",
    Datatype.INT32: "int_contents",
    Datatype.INT64: "int64_contents",
    Datatype.UINT8: "uint_contents",
    Datatype.UINT16: "uint_contents",
    Datatype.UINT32: "uint_contents",
    Datatype.UINT64: "uint64_contents",
    Datatype.FP32: "fp32_contents",
    Datatype.FP64: "fp64_contents",
    Datatype.BYTES: "bytes_contents",
}


class Decoded(NamedTuple):
    """A request, and what it asks of its outputs beyond their names; ``None`` if nothing."""

    request: InferRequest
    options: Sequence[OutputOptions] | None = None


class Decoder:
    """Reads requests. The common form, one raw tensor and no options, is read in two microseconds.

    Parameters
    ----------
    shared_memory : SharedMemory or None
        ``None``: requests that use it are refused.
    """

    def __init__(self, shared_memory: SharedMemory | None = None) -> None:
        self._shared_memory = shared_memory
        self._kind = messages.message("inference.ModelInferRequest")
        self._heads = Heads(self._kind)

    def decode(self, message: bytes, route_key: str | None = None, timeout_s: float | None = None) -> Decoded:
        """A request from its bytes.

        Parameters
        ----------
        message : bytes
        route_key : str, optional
        timeout_s : float, optional
            The call's own time limit, above 0; the request's ``timeout`` parameter may be shorter.

        Raises
        ------
        InvalidRequest
            If it does not fit the protocol. Nothing larger than what was received is allocated before that is known.
        NotEnabled
            If it uses shared memory, and the server does not.
        """
        plan = self._heads.find(message)
        if plan is not None:
            array: Tensor = np.ndarray(plan.shape, plan.dtype, message[plan.start :])  # the slice is aligned
            identity = _text(message[plan.id_start : plan.id_end]) if plan.id_end else None
            if identity is not None or not plan.id_end:
                parameters = {} if timeout_s is None else _limited({}, timeout_s)
                inputs = {plan.name: array}
                return Decoded(
                    InferRequest(plan.model, inputs, plan.version, identity, plan.outputs, parameters, route_key)
                )
        return self._decode(message, route_key, timeout_s)

    def _decode(self, message: bytes, route_key: str | None, timeout_s: float | None) -> Decoded:
        parsed = messages.parse(self._kind, message)
        if not parsed.inputs:
            raise InvalidRequest("'inputs' is empty: send each tensor with its name, datatype, shape and data")
        inputs = self._inputs(parsed)
        options = [_option(entry) for entry in parsed.outputs] if parsed.outputs else None
        outputs = None if options is None else tuple(option.name for option in options)
        parameters = request_parameters(parsed.parameters) if parsed.parameters else {}
        special = options is not None and any(option.classification or option.region for option in options)
        if self._shared_memory is None and any(option.region for option in options or ()):
            raise no_shared_memory()
        request = InferRequest(
            parsed.model_name,
            inputs,
            version=normal_version(parsed.model_version) or None,
            id=parsed.id or None,
            outputs=outputs,
            parameters=parameters if timeout_s is None else _limited(parameters, timeout_s),
            route_key=route_key,
        )
        if len(inputs) == 1 and not special and not parameters:
            self._remember(message, parsed, request)
        return Decoded(request, options if special else None)

    def _remember(self, message: bytes, parsed: Any, request: InferRequest) -> None:
        entry = parsed.inputs[0]
        if len(parsed.raw_input_contents) != 1 or entry.parameters or entry.datatype in _NOT_PLAIN:
            return
        ((name, array),) = request.inputs.items()
        size = len(parsed.raw_input_contents[0])
        start, end = _id_part(parsed, message) if parsed.id else (0, 0)
        if parsed.id and not end:
            return
        plan = Plan(
            request.model,
            request.version,
            name,
            array.dtype,
            array.shape,
            request.outputs,
            start=len(message) - size,
            id_start=start,
            id_end=end,
        )
        self._heads.remember(message, plan)

    def _inputs(self, parsed: Any) -> dict[str, Tensor]:
        raw = parsed.raw_input_contents
        taken = 0
        inputs: dict[str, Tensor] = {}
        for entry in parsed.inputs:
            name = entry.name
            if not name or name in inputs:
                raise InvalidRequest(
                    f"input {name!r} is given twice; send each input once" if name else "an input has no name"
                )
            datatype = _DATATYPES.get(entry.datatype)
            if datatype is None:
                known = ", ".join(_DATATYPES)
                raise InvalidRequest(f"input {name!r} has datatype {entry.datatype[:64]!r}; use one of {known}")
            shape = _shape(name, entry.shape)
            region = _region(f"input {name!r}", entry.parameters) if entry.parameters else None
            if region is not None:
                inputs[name] = self._from_region(name, entry, region, datatype, shape)
            elif raw:
                if taken == len(raw):
                    raise InvalidRequest(_too_few(parsed))
                _refuse_contents(name, entry)
                inputs[name] = tensor_from_bytes(name, datatype, shape, raw[taken])
                taken += 1
            else:
                inputs[name] = _from_contents(name, datatype, shape, entry.contents)
        if taken != len(raw):
            raise InvalidRequest(
                f"raw_input_contents has {len(raw)} entries, but only {taken} of the inputs take one; leave the rest out"
            )
        return inputs

    def _from_region(self, name: str, entry: Any, region: Region, datatype: Datatype, shape: tuple[int, ...]) -> Tensor:
        if self._shared_memory is None:
            raise no_shared_memory()
        if entry.HasField("contents"):
            raise InvalidRequest(f"input {name!r} has contents and names a shared memory region; use one of them")
        return self._shared_memory.read(region, datatype, shape)


def _id_part(parsed: Any, message: bytes) -> tuple[int, int]:
    """Where the id is, if it follows the model's name and version, as every client writes it; else two zeros."""
    version = delimited(2, parsed.model_version.encode()) if parsed.model_version else b""
    identity = parsed.id.encode()
    before = delimited(1, parsed.model_name.encode()) + version + head(3, len(identity))
    return (len(before), len(before) + len(identity)) if message.startswith(before + identity) else (0, 0)


def _text(data: bytes) -> str | None:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def parameter(name: str, given: Any) -> Any:
    """The value of an ``InferParameter``, whichever kind it is."""
    kind = given.WhichOneof("parameter_choice")
    if kind is None:
        raise InvalidRequest(f"parameter {name!r} has no value; set one of its kinds, or leave it out")
    return getattr(given, kind)


def request_parameters(given: Any) -> dict[str, Any]:
    """A request's own parameters. Those whose names begin with ``triton_`` are the protocol's."""
    return own_parameters({name: parameter(name, value) for name, value in given.items()})


def _limited(parameters: dict[str, Any], timeout_s: float) -> dict[str, Any]:
    """``parameters`` with the shorter of two time limits."""
    limit = max(1, int(timeout_s * 1e6))
    asked = parameters.get("timeout", 0)
    if type(asked) is not int or asked < 0 or 0 < asked < limit:
        return parameters  # the shorter one, or one that the core refuses
    return {**parameters, "timeout": min(limit, 2**63)}


def _shape(name: str, sizes: Sequence[int]) -> tuple[int, ...]:
    shape = tuple(sizes)
    if len(shape) > MAX_DIMENSIONS:
        raise InvalidRequest(f"input {name!r} has {len(shape)} dimensions; at most {MAX_DIMENSIONS} are taken")
    for size in shape:
        if size < 0:
            raise InvalidRequest(f"input {name!r} has shape {list(shape)}; its sizes must be 0 or more")
    return shape


def _from_contents(name: str, datatype: Datatype, shape: tuple[int, ...], contents: Any) -> Tensor:
    """A tensor from typed values; they have arrived, so their count is known before anything is made of them."""
    field = _CONTENTS.get(datatype)
    filled = [found.name for found, _ in contents.ListFields()]
    if field is None:
        raise InvalidRequest(f"input {name!r} is {datatype}, which has no typed contents; send raw_input_contents")
    if any(other != field for other in filled):
        raise InvalidRequest(f"input {name!r} is {datatype}, whose values belong into {field}, not {filled[0]}")
    values = getattr(contents, field)
    if len(values) != math.prod(shape):
        raise InvalidRequest(
            f"input {name!r} of shape {list(shape)} takes {math.prod(shape)} values, but {len(values)} were sent"
        )
    try:
        if datatype is Datatype.BYTES:
            array: Tensor = np.empty(len(values), object)
            array[:] = list(values)
        else:
            array = np.array(list(values), datatype.dtype)
        return array.reshape(shape)
    except OverflowError:
        raise InvalidRequest(f"input {name!r} is {datatype}, and holds a value out of its range") from None
    except ValueError:  # no values, but sizes beyond what an array can have
        raise InvalidRequest(f"input {name!r} cannot have shape {list(shape)}; send a smaller one") from None


def _refuse_contents(name: str, entry: Any) -> None:
    if entry.HasField("contents") and entry.contents.ListFields():
        raise InvalidRequest(
            f"input {name!r} has contents although raw_input_contents is used; send all tensors one way or the other"
        )


def _too_few(parsed: Any) -> str:
    return (
        f"raw_input_contents has {len(parsed.raw_input_contents)} entries for {len(parsed.inputs)} inputs; send one for each "
        "that is not in shared memory, in the same order"
    )


def _option(entry: Any) -> OutputOptions:
    if not entry.name:
        raise InvalidRequest("an entry of 'outputs' has no name; give each a 'name'")
    if not entry.parameters:
        return OutputOptions(entry.name)
    where = f"output {entry.name!r}"
    count = _number(where, entry.parameters, "classification")
    return OutputOptions(entry.name, classification=count, region=_region(where, entry.parameters))


def _region(where: str, parameters: Any) -> Region | None:
    return region_of(where, {name: parameter(name, parameters[name]) for name in REGION if name in parameters})


def _number(where: str, parameters: Any, name: str) -> int:
    if name not in parameters:
        return 0
    value = parameter(name, parameters[name])
    if type(value) is not int or value < 0:
        raise InvalidRequest(f"{name!r} of {where} is {value!r}; it is a whole number of 0 or more")
    return value
