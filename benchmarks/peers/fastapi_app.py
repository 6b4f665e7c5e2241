"""A model behind FastAPI as people write it by hand. Runs in an environment of its own: see ``fastapi.txt``.

Usage: ``fastapi_app.py MODEL.onnx PORT``.
"""
# mypy: ignore-errors

import sys

import numpy as np
import onnxruntime as ort
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel


class Input(BaseModel):
    name: str
    shape: list[int]
    datatype: str
    data: list[float]


class InferRequest(BaseModel):
    inputs: list[Input]


class Output(BaseModel):
    name: str
    shape: list[int]
    datatype: str
    data: list[float]


class InferResponse(BaseModel):
    model_name: str
    model_version: str
    outputs: list[Output]


app = FastAPI()
options = ort.SessionOptions()
options.intra_op_num_threads = 1
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])


@app.post("/v2/models/digits/infer")
async def infer(request: InferRequest) -> InferResponse:
    feed = {i.name: np.array(i.data, np.float32).reshape(i.shape) for i in request.inputs}
    (answer,) = session.run(["probabilities"], feed)
    output = Output(name="probabilities", shape=list(answer.shape), datatype="FP32", data=answer.ravel().tolist())
    return InferResponse(model_name="digits", model_version="1", outputs=[output])


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), access_log=False, log_level="warning")
