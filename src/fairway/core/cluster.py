"""Work in parts on a Ray cluster."""

from __future__ import annotations

import contextlib
import itertools
import logging
import platform
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from types import TracebackType
from typing import Any, TypeVar

from fairway.core.errors import KINDS, FairwayError, InvalidConfig, WorkerFailed, rebuilt
from fairway.core.extras import require

Part = TypeVar("Part")
Result = TypeVar("Result")

_KEPT = 4
_MATTERING = ("fairway", "numpy", "scipy", "onnxruntime")
"""Packages whose version can change a result."""


@contextlib.contextmanager
def logging_kept() -> Iterator[None]:
    """Within, Ray may set up logging as it likes; afterwards the process's own is as it was.

    Ray replaces what makes every record, its own loggers' or not, and levels.
    """
    factory, disabled = logging.getLogRecordFactory(), logging.root.manager.disable
    levels = {name: logging.getLogger(name).level for name in ("", "fairway")}
    try:
        yield
    finally:
        logging.setLogRecordFactory(factory)
        logging.disable(disabled)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


class RayMapper:
    """On all machines of a Ray cluster; see :class:`~fairway.core.mapping.Mapper`. A context manager.

    A part whose worker dies, or whose machine is lost, is computed again elsewhere. The function is sent once to each
    worker process, each part to one.

    Parameters
    ----------
    address : str
        ``auto`` is the cluster that this machine belongs to, ``local`` starts one of this machine alone; else the address
        of a cluster. Where this process is connected already, that connection is used, whatever the address.
    retries : int, default 5
        How often a part is begun again elsewhere after its process or machine was lost.

    Raises
    ------
    MissingExtra
        If Ray is not installed.
    InvalidConfig
        If no cluster answers, or a machine of it has another version of Python or of a package that can change results.
    """

    def __init__(self, address: str = "auto", *, retries: int = 5) -> None:
        with logging_kept():
            self._ray = require("ray", extra="ray")
        self._retries = retries
        self._connected_here = not self._ray.is_initialized()
        if self._connected_here:
            try:
                with logging_kept():
                    self._ray.init(
                        address=address,
                        include_dashboard=False,
                        log_to_driver=False,
                        logging_level="ERROR",
                        configure_logging=False,
                    )
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise InvalidConfig(
                    f"no Ray cluster at {address!r} ({' '.join(str(error).split())[:200]}); start one with: ray start --head"
                ) from None
        try:
            self._check_nodes()
        except BaseException:
            self.close()
            raise
        self._remote = self._ray.remote(num_cpus=1, max_retries=retries)(_call)

    def map(self, function: Callable[[Part], Result], parts: Iterable[Part]) -> Iterator[Result]:
        """See :class:`~fairway.core.mapping.Mapper`. Raises :class:`WorkerFailed` if a part is lost again and again."""
        ray, waiting = self._ray, iter(parts)
        sent = [
            ray.put(function)
        ]  # in a list, Ray hands on the reference: a worker fetches it once, not with every part
        ahead = 2 * max(2, int(ray.cluster_resources().get("CPU", 1)))
        running = deque(self._remote.remote(sent, part) for part in itertools.islice(waiting, ahead))
        try:
            while running:
                try:
                    failed, done = ray.get(running[0])
                except ray.exceptions.RayTaskError as error:
                    raise error.cause from None
                except ray.exceptions.RayError as error:
                    raise WorkerFailed(
                        f"Ray lost the workers of one part {self._retries + 1} times ({type(error).__name__}); "
                        "look at their memory: ray status, ray logs"
                    ) from None
                running.popleft()
                if failed:
                    raise rebuilt(KINDS[failed], done)
                running.extend(self._remote.remote(sent, part) for part in itertools.islice(waiting, 1))
                yield done
        finally:
            for left in running:
                ray.cancel(left)

    def close(self) -> None:
        """Disconnect, unless this process was connected before."""
        if self._connected_here:
            self._ray.shutdown()

    def __enter__(self) -> RayMapper:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_nodes(self) -> None:
        """Whatever could give other results there than here is refused before any work."""
        strategies = require("ray.util.scheduling_strategies", extra="ray")
        ask = self._ray.remote(num_cpus=0)(_versions)
        nodes = [node for node in self._ray.nodes() if node["Alive"]]
        asked = [
            ask.options(
                scheduling_strategy=strategies.NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            ).remote()
            for node in nodes
        ]
        here = _versions()
        for node, answer in zip(nodes, asked, strict=True):
            try:
                there = self._ray.get(answer)
            except self._ray.exceptions.TaskUnschedulableError:
                continue  # it has just gone, or is going
            except self._ray.exceptions.RayError as error:
                cause = " ".join(str(error).split())[-200:]
                raise InvalidConfig(
                    f"the Ray machine {node['NodeManagerAddress']} cannot run Fairway; install it there as here ({cause})"
                ) from None
            if different := [f"{name} {there.get(name)}" for name in here if there.get(name) != here[name]]:
                mine = ", ".join(f"{name} {found}" for name, found in here.items())
                raise InvalidConfig(
                    f"the Ray machine {node['NodeManagerAddress']} has {', '.join(different)}; results would differ: "
                    f"install what this machine has: {mine}"
                )


_functions: OrderedDict[str, Callable[[Any], Any]] = OrderedDict()


def _call(sent: list[Any], part: Any) -> tuple[str, Any]:
    """In a worker: one part. A function that was fetched is kept for the next ones."""
    key = sent[0].hex()
    if key not in _functions:
        import ray

        _functions[key] = ray.get(sent[0])
        if len(_functions) > _KEPT:
            _functions.popitem(last=False)
    _functions.move_to_end(key)
    try:
        return "", _functions[key](part)
    except FairwayError as error:
        return error.code, str(error)


def _versions() -> Mapping[str, str]:
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for package in _MATTERING:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "none"
    return found
