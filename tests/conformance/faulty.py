"""A small V2 server of its own making, right in everything it offers, into which one fault can be switched."""

from __future__ import annotations

import itertools
import json
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import uvicorn
from numpy.typing import NDArray
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

DTYPES = {"FP32": "<f4", "FP64": "<f8", "INT32": "<i4", "INT64": "<i8", "UINT8": "u1", "BOOL": "?", "BYTES": "O"}
LENGTH = "inference-header-content-length"
MODELS: dict[str, tuple[dict[str, str], list[str]]] = {
    "identity_fp32": ({"x": "FP32"}, ["y"]),
    "identity_fp64": ({"x": "FP64"}, ["y"]),
    "identity_int64": ({"x": "INT64"}, ["y"]),
    "identity_uint8": ({"x": "UINT8"}, ["y"]),
    "identity_bytes": ({"x": "BYTES"}, ["y"]),
    "add_sub": ({"a": "INT32", "b": "INT32"}, ["sum", "difference"]),
}


class Wrong(Exception):
    """A request that is refused."""


class Server:
    """The routes; ``fault`` names the one thing that goes wrong."""

    def __init__(self, fault: str = "") -> None:
        self.fault = fault
        self._last: NDArray[Any] | None = None
        self._number = itertools.count()

    def app(self) -> Starlette:
        model = "/v2/models/{model}"
        version = f"{model}/versions/1"
        return Starlette(
            routes=[
                Route("/v2", self.server),
                Route("/v2/health/{what}", self.health),
                *(Route(base, self.metadata) for base in (model, version)),
                *(Route(f"{base}/ready", self.ready) for base in (model, version)),
                *(Route(f"{base}/infer", self.infer, methods=["POST"]) for base in (model, version)),
            ],
            exception_handlers={404: self.nothing, 405: self.nothing},
        )

    async def server(self, _: Request) -> Response:
        body: dict[str, Any] = {"name": "small", "version": "1", "extensions": ["binary_tensor_data"]}
        if self.fault == "metadata lacks extensions":
            del body["extensions"]
        return answer(body)

    async def health(self, _: Request) -> Response:
        return Response(status_code=503 if self.fault == "never ready" else 200)

    async def ready(self, request: Request) -> Response:
        known = request.path_params["model"] in MODELS or self.fault == "every model is ready"
        return Response(status_code=200) if known else self.refuse("no such model", 404)

    async def metadata(self, request: Request) -> Response:
        name = request.path_params["model"]
        if name not in MODELS:
            return self.refuse("no such model", 404)
        inputs, outs = MODELS[name]
        kind = next(iter(inputs.values()))
        shape: list[Any] = ["-1", "-1"] if self.fault == "sizes are texts" else [-1, -1]
        body: dict[str, Any] = {"name": name, "versions": ["1"], "platform": "numpy"}
        body["inputs"] = [{"name": n, "datatype": d, "shape": shape} for n, d in inputs.items()]
        body["outputs"] = [{"name": n, "datatype": kind, "shape": shape} for n in outs]
        return answer(body)

    async def nothing(self, _: Request, error: Exception) -> Response:
        return self.refuse("nothing is here", getattr(error, "status_code", 404))

    async def infer(self, request: Request) -> Response:
        raw = await request.body()
        try:
            if request.path_params["model"] not in MODELS:
                raise Wrong("no such model")
            return self._answer(request.path_params["model"], raw, request.headers.get(LENGTH))
        except (Wrong, ValueError, KeyError, TypeError, AttributeError, OverflowError, struct.error) as error:
            return self.refuse(str(error) or "wrong", 400)

    def refuse(self, text: str, status: int) -> Response:
        if self.fault == "200 for errors":
            status = 200
        return answer({"detail" if self.fault == "detail for error" else "error": text}, status)

    def _answer(self, name: str, raw: bytes, length: str | None) -> Response:
        at = len(raw) if length is None else int(length)
        body = json.loads(raw[:at])
        feed = self._read(name, body, raw[at:])
        found = self._compute(name, feed)
        wanted = body.get("outputs") or []
        names = list(dict.fromkeys(entry["name"] for entry in wanted)) or list(found)
        if self.fault == "outputs are not selected":
            names = list(found)
        if unknown := set(names) - set(found):
            raise Wrong(f"no output {unknown}")
        kind = next(iter(MODELS[name][0].values()))
        options = {entry["name"]: entry.get("parameters", {}) for entry in wanted}
        everything = bool(body.get("parameters", {}).get("binary_data_output")) and not wanted
        head: dict[str, Any] = {"model_name": name, "model_version": "1", "id": body.get("id"), "outputs": []}
        if head["id"] is None and self.fault != "null id":
            del head["id"]
        if self.fault == "id is lost":
            head.pop("id", None)
        blobs = []
        for output in names:
            array = found[output]
            shape = list(array.shape) if self.fault != "flat shape" else [array.size]
            entry: dict[str, Any] = {"name": output, "datatype": kind, "shape": shape}
            if options.get(output, {}).get("binary_data", everything):
                blobs.append(to_bytes(array))
                if self.fault == "big endian":
                    blobs[-1] = array.astype(array.dtype.newbyteorder(">")).tobytes()
                entry["parameters"] = {"binary_data_size": len(blobs[-1])}
            else:
                entry["data"] = [v.decode() if isinstance(v, bytes) else v for v in array.ravel().tolist()]
            head["outputs"].append(entry)
        text = json.dumps(head).encode()
        headers = {LENGTH: str(len(text))} if blobs else {}
        media = "application/octet-stream" if blobs else "application/json"
        return Response(b"".join([text, *blobs]), headers=headers, media_type=media)

    def _read(self, name: str, body: Any, rest: bytes) -> dict[str, NDArray[Any]]:
        kinds, feed = MODELS[name][0], {}
        for entry in body["inputs"]:
            datatype, shape = entry["datatype"], entry["shape"]
            if entry["name"] in feed or kinds.get(entry["name"]) != datatype or len(shape) != 2:
                raise Wrong(f"input {entry['name']} does not fit; the model takes {kinds}")
            if not all(type(size) is int and size >= 0 for size in shape):
                raise Wrong(f"{shape} is no shape")
            size = entry.get("parameters", {}).get("binary_data_size")
            if size is not None:
                if len(rest) < size:
                    raise Wrong("too few bytes")
                values, rest = from_bytes(datatype, rest[:size]), rest[size:]
            else:
                values = self._from_json(datatype, entry["data"])
            count = shape[0] * shape[1]
            if self.fault == "counts are not checked":
                values = np.resize(values, count)
            if values.size != count:
                raise Wrong(f"{values.size} values for {count}")
            feed[entry["name"]] = values.reshape(shape)
        if rest and self.fault != "bytes left over are ignored":
            raise Wrong("bytes left over")
        if feed.keys() != kinds.keys():
            raise Wrong(f"the model takes {kinds}")
        return feed

    def _from_json(self, datatype: str, data: Any) -> NDArray[Any]:
        if self.fault == "nested data is refused" and isinstance(data[0], list):
            raise Wrong("flat lists only")
        flat = list(flatten(data))
        kinds = {"BYTES": str, "BOOL": bool}.get(datatype, (int, float) if "FP" in datatype else int)
        if not isinstance(data, list) or not all(isinstance(v, kinds) for v in flat):
            raise Wrong(f"the data are not {datatype}")
        if datatype == "BYTES":
            return texts([v.encode() for v in flat])
        if self.fault == "integers pass through floats" and "INT" in datatype:
            flat = [int(float(v)) for v in flat]
        if self.fault == "integers wrap":
            return np.array(flat).astype(DTYPES[datatype])
        return np.array(flat, DTYPES[datatype])

    def _compute(self, name: str, feed: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        if name == "add_sub":
            a, b = feed.values() if self.fault == "inputs go by position" else (feed["a"], feed["b"])
            return {"sum": a + b, "difference": a - b}
        x = feed["x"]
        if self.fault == "rows are swapped" and next(self._number) % 7 == 3 and self._last is not None:
            x = self._last
        self._last = feed["x"]
        return {"y": x[:32] if self.fault == "rows are cut" else x}


def answer(body: Any, status: int = 200) -> Response:
    return Response(json.dumps(body), status, media_type="application/json")


def flatten(data: Any) -> Iterator[Any]:
    for item in data if isinstance(data, list) else [data]:
        if isinstance(item, list):
            yield from flatten(item)
        else:
            yield item


def texts(values: list[bytes]) -> NDArray[Any]:
    array = np.empty(len(values), object)
    array[:] = values
    return array


def from_bytes(datatype: str, blob: bytes) -> NDArray[Any]:
    if datatype != "BYTES":
        return np.frombuffer(blob, DTYPES[datatype])
    values, at = [], 0
    while at < len(blob):
        (size,) = struct.unpack_from("<I", blob, at)
        if at + 4 + size > len(blob):
            raise Wrong("a text runs past the end")
        values.append(blob[at + 4 : at + 4 + size])
        at += 4 + size
    return texts(values)


def to_bytes(array: NDArray[Any]) -> bytes:
    if array.dtype == object:
        return b"".join(struct.pack("<I", len(v)) + v for v in array.ravel())
    return array.tobytes()


@contextmanager
def running(fault: str = "") -> Iterator[str]:
    """Its URL, while it runs in a thread."""
    server = uvicorn.Server(uvicorn.Config(Server(fault).app(), port=0, log_level="critical", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until = time.monotonic() + 20
    while not server.started:
        assert time.monotonic() < until, "it did not start"
        time.sleep(0.005)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(20)
