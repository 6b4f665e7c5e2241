"""The limit: HTTP parser, event loop, JSON and engine, joined over one loop turn, and nothing else.

No validation, no errors, no metrics, no limits, no routes: every request is taken for a good one. Usage:
the arguments of every peer (``model.py``).
"""

from __future__ import annotations

import asyncio
import gc
import sys
from typing import Any

import httptools
import numpy as np
import onnxruntime as ort
import orjson
import uvloop
from numpy.typing import NDArray

_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: "
_MAX_BATCH = 64


class Batcher:
    """Runs what arrived in one turn of the loop as one engine call."""

    def __init__(self, path: str, loop: asyncio.AbstractEventLoop) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._loop = loop
        self._waiting: list[tuple[Connection, NDArray[np.float32]]] = []

    def add(self, connection: Connection, rows: NDArray[np.float32]) -> None:
        if not self._waiting:
            self._loop.call_soon(self._run)
        self._waiting.append((connection, rows))

    def _run(self) -> None:
        taken, self._waiting = self._waiting[:_MAX_BATCH], self._waiting[_MAX_BATCH:]
        if self._waiting:
            self._loop.call_soon(self._run)
        joined = np.concatenate([rows for _, rows in taken]) if len(taken) > 1 else taken[0][1]
        (answers,) = self._session.run(["probabilities"], {"x": joined})
        start = 0
        for connection, rows in taken:
            stop = start + len(rows)
            connection.answer(answers[start:stop])
            start = stop


class Connection(asyncio.Protocol):
    """One client."""

    def __init__(self, batcher: Batcher) -> None:
        self._batcher = batcher
        self._parser = httptools.HttpRequestParser(self)
        self._body = b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        (tensor,) = orjson.loads(self._body)["inputs"]
        self._body = b""
        self._batcher.add(self, np.array(tensor["data"], np.float32).reshape(tensor["shape"]))

    def answer(self, rows: NDArray[np.float32]) -> None:
        output = {"name": "probabilities", "shape": rows.shape, "datatype": "FP32", "data": rows.ravel()}
        body = orjson.dumps(
            {"model_name": "digits", "model_version": "1", "outputs": [output]}, option=orjson.OPT_SERIALIZE_NUMPY
        )
        self._transport.write(b"%s%d\r\n\r\n%s" % (_HEAD, len(body), body))


async def main(path: str, port: int) -> None:
    loop = asyncio.get_running_loop()
    batcher = Batcher(path, loop)
    server = await loop.create_server(lambda: Connection(batcher), "127.0.0.1", port)
    gc.collect()
    gc.freeze()
    await server.serve_forever()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(sys.argv[1], int(sys.argv[4])))
