"""BentoML: a batchable API on NumPy arrays, one worker. Its own JSON route: ``{"x": [[…]]}`` to ``[[…]]``."""
# mypy: ignore-errors

import os
import sys
from pathlib import Path

import bentoml
import numpy as np
from model import Model, Served

MAX_BATCH = int(os.environ.get("MAX_BATCH", "64"))


@bentoml.service(workers=1, metrics={"enabled": True}, traffic={"timeout": 60})
class Infer:
    def __init__(self):
        self.model = Model(os.environ["MODEL"])

    @bentoml.api(route="/infer", batchable=True, max_batch_size=MAX_BATCH, max_latency_ms=10_000)
    def infer(self, x: np.ndarray) -> np.ndarray:
        return self.model.infer(np.asarray(x, self.model.dtype))


if __name__ == "__main__":
    served = Served.told()
    os.environ |= {"MODEL": served.path, "MAX_BATCH": str(served.max_batch), "BENTOML_DO_NOT_TRACK": "true"}
    program = str(Path(sys.executable).with_name("bentoml"))
    here = str(Path(__file__).parent)
    address = ["--host", "127.0.0.1", "--port", str(served.port)]
    os.execv(program, [program, "serve", "bentoml_app:Infer", "--working-dir", here, *address])
