"""LitServe: one API process, one worker, batches, its fast queue."""
# mypy: ignore-errors

import litserve
import numpy as np
from model import Model, Served

served = Served.told()


class Infer(litserve.LitAPI):
    def setup(self, _):
        self.model = Model(served.path)

    def decode_request(self, request):
        return self.model.rows(request)

    def batch(self, inputs):
        return np.concatenate(inputs)

    def predict(self, rows):
        return self.model.infer(rows)

    def unbatch(self, output):
        return list(output)

    def encode_response(self, output):
        return self.model.response(served.name, output.ravel().tolist(), [1, output.size])


if __name__ == "__main__":
    api = Infer(max_batch_size=served.max_batch, batch_timeout=0.001, api_path=f"/v2/models/{served.name}/infer")
    server = litserve.LitServer(api, accelerator="cpu", devices=1, workers_per_device=1, fast_queue=True)
    server.run(
        host="127.0.0.1", port=served.port, num_api_servers=1, generate_client_file=False, log_level="warning",
        access_log=False,
    )  # fmt: skip
