"""A Fairway server with the suite's models, and everything switched on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from fairway.bundle.format import read_bundle
from fairway.serving.app import serve
from fairway.serving.settings import ServeSettings
from fairway.testing.conformance import Target, write_models


class Served(NamedTuple):
    """Where it listens: a URL, and ``host:port``."""

    url: str
    grpc: str


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folders = write_models(tmp_path_factory.mktemp("conformance"), "bundle")
    settings = ServeSettings(port=0, grpc_port=0, access_log=False, model_control=True, shared_memory=True)
    with serve([read_bundle(folder) for folder in folders], settings=settings) as running:
        yield Served(running.url, f"127.0.0.1:{running.grpc_port}")


@pytest.fixture(scope="session")
def target(served: Served) -> Iterator[Target]:
    with Target(served.url, grpc=served.grpc) as made:
        yield made
