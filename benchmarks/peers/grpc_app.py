"""grpc.aio with nothing else: it decodes, calls the model once per request, and encodes.

More arguments: the file of descriptors, and ``constant`` for a server that answers the same bytes to everything.
"""
# mypy: ignore-errors

import asyncio
import sys
from pathlib import Path

import grpc
import numpy as np
import uvloop
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from model import Model, Served

SERVICE = "inference.GRPCInferenceService"


def message(pool, name):
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"inference.{name}"))


async def main(served, descriptors, is_constant):
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(Path(descriptors).read_bytes()).file:
        pool.Add(file)
    request, response = message(pool, "ModelInferRequest"), message(pool, "ModelInferResponse")
    model = Model(served.path)

    def answer(asked):
        (tensor,) = asked.inputs
        rows = np.frombuffer(asked.raw_input_contents[0], model.dtype).reshape(tensor.shape)
        said = model.infer(rows)
        output = response.InferOutputTensor(name=model.output, datatype="FP32", shape=said.shape)
        return response(
            model_name=served.name, model_version="1", outputs=[output], raw_output_contents=[said.tobytes()]
        )

    async def infer(asked, _):
        return answer(asked)

    rows = np.zeros((1, *model.row), model.dtype)
    asked = request.InferInputTensor(name=model.input, datatype=model.datatype, shape=rows.shape)
    said = answer(request(inputs=[asked], raw_input_contents=[rows.tobytes()])).SerializeToString()

    async def constant(*_):
        return said

    codec = {"request_deserializer": request.FromString, "response_serializer": response.SerializeToString}
    method = (
        grpc.unary_unary_rpc_method_handler(constant)
        if is_constant
        else grpc.unary_unary_rpc_method_handler(infer, **codec)
    )
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", 16 * 2**20)])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"ModelInfer": method}),))
    server.add_insecure_port(f"127.0.0.1:{served.grpc_port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.install()
    asyncio.run(main(Served.told(), sys.argv[7], sys.argv[8:] == ["constant"]))
