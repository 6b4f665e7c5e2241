"""mosec: a Rust front end, one Python worker, dynamic batches; orjson instead of its json."""
# mypy: ignore-errors

import os

import numpy as np
import orjson
from model import Model, Served
from mosec import Server, Worker

served = Served.told()


class Infer(Worker):
    def __init__(self):
        self.model = Model(served.path)

    def deserialize(self, data):
        return self.model.rows(orjson.loads(data))

    def forward(self, data):
        if served.max_batch == 1:  # mosec then gives one, not a list of them
            return self.model.infer(data)[0]
        return list(self.model.infer(np.concatenate(data)))

    def serialize(self, data):
        answer = self.model.response(served.name, data, [1, *data.shape])
        return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)


if __name__ == "__main__":
    os.environ |= {"MOSEC_PORT": str(served.port), "MOSEC_ADDRESS": "127.0.0.1", "MOSEC_LOG_LEVEL": "warning"}
    os.environ |= {"MOSEC_TIMEOUT": "30000"}
    server = Server()
    route = f"/v2/models/{served.name}/infer"
    server.append_worker(Infer, num=1, max_batch_size=served.max_batch, max_wait_time=1, route=route)
    server.run()
