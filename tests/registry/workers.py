"""What the tests run in other processes: a fork server that has imported everything makes each one in milliseconds."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from fairway.bundle.format import Bundle, read_bundle
from fairway.core.errors import Conflict
from fairway.core.events import Action
from fairway.registry.records import Release
from fairway.registry.settings import RegistrySettings
from fairway.registry.store import Registry
from tests.killing import fork_server


def run_together(target: Any, argument_lists: list[tuple[Any, ...]]) -> list[Any]:
    """Start a process per tuple of arguments, let all begin at one barrier, and return what each sent back, in order."""
    context = fork_server()
    barrier = context.Barrier(len(argument_lists))
    pipes = [context.Pipe(duplex=False) for _ in argument_lists]
    started: list[ForkServerProcess] = []
    for (_, sender), arguments in zip(pipes, argument_lists, strict=True):
        process = context.Process(target=_report, args=(target, barrier, sender, arguments), daemon=True)
        process.start()
        sender.close()
        started.append(process)
    answers = [receiver.recv() for receiver, _ in pipes]
    for process in started:
        process.join()
    failures = [answer for answer in answers if isinstance(answer, BaseException)]
    if failures:
        raise failures[0]
    return answers


def _report(target: Any, barrier: Barrier, sender: Any, arguments: tuple[Any, ...]) -> None:
    try:
        sender.send(target(barrier, *arguments))
    except BaseException as error:  # noqa: BLE001 - told to the test, which raises it
        sender.send(RuntimeError(f"{type(error).__name__}: {error}"))


def open_first(barrier: Barrier, settings: RegistrySettings) -> int:
    barrier.wait()
    with Registry.open(settings) as registry:
        return registry.revision()


def register_all(barrier: Barrier, settings: RegistrySettings, bundles: list[Path]) -> list[tuple[str, int]]:
    """Every bundle, in order: its digest and the number it got."""
    with Registry.open(settings) as registry:
        barrier.wait()
        return [(v.digest, v.number) for v in (registry.register(read_bundle(path)) for path in bundles)]


def swap_release(barrier: Barrier, settings: RegistrySettings, name: str, wanted: int) -> int:
    """Change the release ``wanted`` times, starting anew after a conflict: how many conflicts there were."""
    conflicts = done = 0
    with Registry.open(settings) as registry:
        barrier.wait()
        while done < wanted:
            current = registry.release("digits")
            assert current is not None
            try:
                registry.save_release(
                    msgspec.structs.replace(current, weight=0.5),
                    expected=current.revision,
                    action=Action.WEIGHTED,
                    actor=name,
                )
                done += 1
            except Conflict:
                conflicts += 1
    return conflicts


def fetch_one(barrier: Barrier, settings: RegistrySettings, ref: str, cache: Path) -> str:
    with Registry.open(settings) as registry:
        barrier.wait()
        bundle: Bundle = registry.fetch(ref, cache)
        bundle.verify()
        return bundle.digest


def churn(settings: RegistrySettings, bundles: list[Path], cache: Path, seed: int, step: Callable[[], None]) -> None:
    """Open, then register, move aliases, release and fetch, for ever: the test kills it somewhere."""
    rng = np.random.default_rng(seed)
    step()
    with Registry.open(settings) as registry:
        while True:
            step()
            bundle = read_bundle(bundles[rng.integers(len(bundles))])
            version = registry.register(bundle, aliases=["newest"], actor=f"p{seed}")
            model = version.model
            step()
            other = int(rng.integers(1, version.number + 1))
            current = registry.release(model)
            challenger = None if other == version.number else version.number
            changed = msgspec.structs.replace(
                current or Release(model, other, started_at=1.0),
                champion=other,
                challenger=challenger,
                weight=0.0 if challenger is None else 0.25,
                previous=current.champion if current else None,
            )
            registry.save_release(
                changed,
                expected=current.revision if current else None,
                action=Action.RELEASED,
                actor=f"p{seed}",
            )
            step()
            registry.set_alias(model, "candidate", other, actor=f"p{seed}")
            registry.fetch(version, cache)


def open_for_ever(settings: RegistrySettings, step: Callable[[], None]) -> None:
    """Open a registry for the first time: the test kills it somewhere."""
    step()
    with Registry.open(settings):
        while True:
            step()


def fetch_for_ever(settings: RegistrySettings, cache: Path, step: Callable[[], None]) -> None:
    """Fetch into an emptied cache, again and again: the test kills it somewhere."""
    with Registry.open(settings) as registry:
        version = registry.version("digits:1")
        while True:
            step()
            fetched = registry.fetch(version, cache).path
            shutil.rmtree(fetched.rename(cache / f"discarded-{os.getpid()}"))  # removed whole, as it appeared
