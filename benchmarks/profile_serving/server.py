"""What a service has, without its sockets; and the part that REST and gRPC share."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np

from benchmarks.profile_serving.timing import CONNECTIONS, Part, steps_timed, timed
from benchmarks.serving.workloads import Workload
from fairway.core.messages import InferRequest
from fairway.serving.inference import InferenceCore
from fairway.serving.models import Models
from fairway.serving.routing import Route
from fairway.serving.settings import ServeSettings
from fairway.serving.telemetry import Telemetry


class Server:
    """The core with one model."""

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        self.name = workload.served_as
        self.settings = ServeSettings(access_log=False)
        self.telemetry = Telemetry()
        self.models = Models(self.settings, self.telemetry)
        self.core = InferenceCore(self.models, self.telemetry)

    async def load(self) -> None:
        await self.models.load(self.name, "1", lambda: self.workload.bundle)
        self.models.point(self.name, Route("1"))

    async def answers(self, request: InferRequest) -> list[Any]:
        """Of a batch with a request from each connection."""
        answers: list[Any] = []
        for _ in range(CONNECTIONS):
            self.core.submit(request, answers.append)
        await until(answers)
        return answers

    async def parts(self, request: InferRequest) -> list[Part]:
        """From a decoded request to its answer."""
        answers: list[Any] = []

        def submit() -> None:
            answers.clear()
            for _ in range(CONNECTIONS):
                self.core.submit(request, answers.append)

        submitted, turn = await steps_timed(submit, lambda: until(answers))
        served = self.models.resolve(self.name, None, None)
        rows = {name: np.repeat(array, CONNECTIONS, axis=0) for name, array in request.inputs.items()}
        return [
            Part("choose the version, validate, queue", submitted),
            Part(f"batch: join, engine call of {CONNECTIONS} rows, split, metrics", turn),
            Part("engine call alone", timed(lambda: served.model.infer(rows)) / CONNECTIONS, within=True),
        ]


async def until(answers: list[Any]) -> None:
    """Until each connection has its answer."""
    while len(answers) < CONNECTIONS:
        await asyncio.sleep(0)


def with_rest(parts: list[Part], whole: float) -> list[Part]:
    """And what lies between the parts."""
    known = sum(part.us for part in parts if not part.within)
    return [*parts, Part("between the parts", whole - known), Part("all of it", whole)]
