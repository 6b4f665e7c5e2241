"""Run as a program with a REST URL and a gRPC address: KServe's clients, unchanged.

In a process of its own, because kserve and tritonclient register the same protobuf symbols; imported only when it runs,
because pytest imports every file.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from kserve import InferRequest, InferResponse

ROW = np.array([[1, 2, 3, 4]], np.int32)


def request(*, binary: bool, protocol: str) -> InferRequest:
    from kserve import InferInput, InferRequest

    inputs = []
    for name, factor in (("a", 10), ("b", 1)):
        made = InferInput(name, [1, 4], "INT32")
        made.set_data_from_numpy(ROW * factor, binary_data=binary)
        inputs.append(made)
    parameters: dict[str, Any] = {"binary_data_output": True} if binary and protocol == "rest" else {}
    return InferRequest("add_sub", inputs, request_id="k1", parameters=parameters)


def check(answer: InferResponse) -> None:
    found = {output.name: output for output in answer.outputs}
    np.testing.assert_array_equal(found["sum"].as_numpy(), ROW * 11)
    np.testing.assert_array_equal(found["difference"].as_numpy(), ROW * 9)
    assert answer.id == "k1", answer.id


async def rest(url: str) -> None:
    from kserve import InferenceRESTClient, InferResponse, RESTConfig

    client = InferenceRESTClient(RESTConfig(protocol="v2", retries=1))
    assert await client.is_server_live(url)
    assert await client.is_server_ready(url)
    assert await client.is_model_ready(url, "add_sub")
    for binary in (False, True):
        answer = await client.infer(url, request(binary=binary, protocol="rest"), model_name="add_sub")
        assert isinstance(answer, InferResponse)
        check(answer)
    await client.close()


async def grpc(address: str) -> None:
    from kserve import InferenceGRPCClient

    client = InferenceGRPCClient(address)
    assert await client.is_server_live()
    assert await client.is_server_ready()
    assert await client.is_model_ready("add_sub")
    for binary in (False, True):
        check(await client.infer(request(binary=binary, protocol="grpc")))
    await client.close()


async def main() -> None:
    await rest(sys.argv[1])
    await grpc(sys.argv[2])


if __name__ == "__main__":
    asyncio.run(main())
