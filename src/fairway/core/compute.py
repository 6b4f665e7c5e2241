"""Where work in parts is done: ``[compute]`` of ``fairway.toml``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import msgspec

from fairway.core.mapping import Mapper, Threads


class ComputeSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where models are scored and intervals are drawn. No result depends on it.

    Attributes
    ----------
    threads : int
        On this machine. 0 is as many as it has cores for this process.
    ray : str
        A Ray cluster to use instead: ``auto`` is the one that this machine belongs to, ``local`` starts one of this machine
        alone; else its address. Every machine in it needs the same Fairway. Empty: none.
    """

    threads: Annotated[int, msgspec.Meta(ge=0, le=1024)] = 0
    ray: str = ""


@contextmanager
def open_mapper(settings: ComputeSettings) -> Iterator[Mapper]:
    """What computes parts of work, as ``settings`` say.

    Raises
    ------
    MissingExtra, InvalidConfig
        If there is no such Ray cluster.
    """
    if not settings.ray:
        yield Threads(settings.threads)
        return
    from fairway.core.cluster import RayMapper

    with RayMapper(settings.ray) as mapper:
        yield mapper
