"""A model behind FastAPI as people write it by hand: one call per request, on the event loop."""
# mypy: ignore-errors

import numpy as np
import uvicorn
from fastapi import FastAPI
from model import Model, Served
from pydantic import BaseModel

served = Served.told()
model = Model(served.path)


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


@app.post("/v2/models/{name}/infer")
async def infer(name: str, request: InferRequest) -> InferResponse:
    (given,) = request.inputs
    answer = model.infer(np.array(given.data, model.dtype).reshape(given.shape))
    output = Output(name=model.output, shape=list(answer.shape), datatype="FP32", data=answer.ravel().tolist())
    return InferResponse(model_name=name, model_version="1", outputs=[output])


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=served.port, access_log=False, log_level="warning")
