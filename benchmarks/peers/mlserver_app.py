"""MLServer: a custom runtime with adaptive batching, in the server's own process, as its guide says for small models."""
# mypy: ignore-errors

import json
import os
import sys
from pathlib import Path

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse
from model import Model, Served


class Infer(MLModel):
    async def load(self):
        self.model = Model(self.settings.parameters.uri)
        return True

    async def predict(self, payload):
        rows = self.decode(payload.inputs[0], default_codec=NumpyCodec).astype(self.model.dtype, copy=False)
        answer = NumpyCodec.encode_output(self.model.output, self.model.infer(rows))
        return InferenceResponse(model_name=self.name, model_version="1", outputs=[answer])


if __name__ == "__main__":
    served = Served.told()
    server = {
        "host": "127.0.0.1", "http_port": served.port, "grpc_port": served.grpc_port, "metrics_port": served.metrics_port,
        "parallel_workers": 0, "debug": False, "grpc_max_message_length": 16 * 2**20,
    }  # fmt: skip
    model = {
        "name": served.name, "implementation": "mlserver_app.Infer", "parameters": {"uri": served.path},
        "max_batch_size": served.max_batch, "max_batch_time": 0.001,
    }  # fmt: skip
    Path("settings.json").write_text(json.dumps(server))
    Path("model-settings.json").write_text(json.dumps(model))
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)
    program = str(Path(sys.executable).with_name("mlserver"))
    os.execv(program, [program, "start", "."])
