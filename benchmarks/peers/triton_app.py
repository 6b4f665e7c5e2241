"""Triton's server, from PyTriton's wheel, with a Python callable behind its dynamic batcher."""
# mypy: ignore-errors

import os
import sysconfig

import numpy as np
from model import Model, Served
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

if __name__ == "__main__":
    # Triton runs the callable's other end in a Python of its own, which has to be this one.
    os.environ["LD_LIBRARY_PATH"] = sysconfig.get_config_var("LIBDIR")
    served = Served.told()
    model = Model(served.path)

    @batch
    def infer(**inputs):
        return {model.output: model.infer(inputs[model.input])}

    config = TritonConfig(
        http_address="127.0.0.1", http_port=served.port, grpc_address="127.0.0.1", grpc_port=served.grpc_port,
        metrics_port=served.metrics_port, log_verbose=0, allow_gpu_metrics=False,
    )  # fmt: skip
    with Triton(config=config, workspace="workspace") as triton:
        triton.bind(
            model_name=served.name,
            infer_func=infer,
            inputs=[Tensor(name=model.input, dtype=model.dtype, shape=model.row)],
            outputs=[Tensor(name=model.output, dtype=np.float32, shape=model.answer)],
            config=ModelConfig(max_batch_size=served.max_batch, batcher=DynamicBatcher(max_queue_delay_microseconds=0)),
        )
        triton.serve()
