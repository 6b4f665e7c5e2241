"""KServe's Python model server. It has no batching of its own: its agent, beside it, does that on Kubernetes."""
# mypy: ignore-errors

import kserve
from kserve import InferOutput, InferResponse
from model import Model, Served


class Infer(kserve.Model):
    def __init__(self, served):
        super().__init__(served.name)
        self.model = Model(served.path)
        self.ready = True

    def predict(self, payload, *_, **__):
        rows = payload.inputs[0].as_numpy().astype(self.model.dtype, copy=False)
        answer = self.model.infer(rows)
        output = InferOutput(self.model.output, list(answer.shape), "FP32")
        output.set_data_from_numpy(answer, binary_data=bool(payload.use_binary_outputs))
        return InferResponse(payload.id or "", self.name, [output], use_binary_outputs=payload.use_binary_outputs)


if __name__ == "__main__":
    told = Served.told()
    server = kserve.ModelServer(
        http_port=told.port, grpc_port=told.grpc_port, workers=1, enable_latency_logging=False, access_log_format="",
    )  # fmt: skip
    server.start([Infer(told)])
