"""The engine protocol, and how an engine is found."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol, cast

from fairway.core.errors import InvalidBundle
from fairway.core.manifest import EngineSpec
from fairway.core.tensors import Tensors, TensorSpec


class Engine(Protocol):
    """One loaded graph. Synchronous, thread-safe, stateless between calls."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def infer(self, feed: Tensors) -> Tensors:
        """Run once. ``feed`` fits ``inputs``; the answer has every output."""
        ...

    def close(self) -> None:
        """Free memory. Nothing may be called afterwards."""
        ...


class EngineFactory(Protocol):
    """What an entry point in ``fairway.engines`` resolves to.

    It may have these attributes: ``options``, the names that :attr:`EngineSpec.options` may give it as keywords; ``caches``,
    true if it takes ``cache``, a directory that it fills if it is empty and loads from if not; ``runtime``, the module on
    whose version that depends; ``worth_caching(size_bytes, **options)``, whether a bundle of that size loads faster from it.
    """

    def __call__(self, path: Path, *, threads: int = 1) -> Engine:
        """Load the graph at ``path`` on ``threads`` threads (0: as many as there are cores)."""
        ...


def load_engine(spec: EngineSpec, directory: Path, *, cache: Path | None = None) -> Engine:
    """Load the graph that ``spec`` names in a bundle's directory.

    Parameters
    ----------
    spec : EngineSpec
    directory : Path
    cache : Path, optional
        A directory for what the engine makes of this graph, with these options, on this machine: if it is empty it is
        filled, else loaded from. Nobody else may write there. See :class:`fairway.engines.cache.EngineCache`.

    Raises
    ------
    InvalidBundle
        If no installed engine has that name or knows those options, or the graph cannot be loaded.
    MissingExtra
        If the engine's package is not installed.
    UnsupportedMachine
        If this machine's processor lacks what the bundle needs.
    """
    factory = find_engine(spec.name)
    known: tuple[str, ...] = getattr(factory, "options", ())
    if unknown := sorted(set(spec.options) - set(known)):
        raise InvalidBundle(
            f"this bundle gives engine {spec.name!r} the option {unknown[0]!r}; it knows: {', '.join(known) or 'none'}"
        )
    kept = {"cache": cache} if cache is not None and getattr(factory, "caches", False) else {}
    return factory(directory / spec.file, threads=spec.threads, **spec.options, **kept)


def find_engine(name: str) -> EngineFactory:
    """The installed engine of that name. Raises :class:`InvalidBundle` if there is none."""
    found = {entry.name: entry for entry in entry_points(group="fairway.engines")}
    if name not in found:
        raise InvalidBundle(f"this bundle runs on engine {name!r}; installed here: {', '.join(sorted(found))}")
    return cast(EngineFactory, found[name].load())
