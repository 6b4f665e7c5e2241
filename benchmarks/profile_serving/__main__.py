"""``python -m benchmarks.profile_serving``: see the package."""

from __future__ import annotations

import asyncio
import gc
import platform
import tempfile
from pathlib import Path

import msgspec
import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks.harness import RESULTS, machine
from benchmarks.profile_serving.bodies import image_parts
from benchmarks.profile_serving.grpc import grpc_parts
from benchmarks.profile_serving.rest import rest_parts
from benchmarks.profile_serving.server import Server
from benchmarks.profile_serving.timing import Part
from benchmarks.serving.workloads import tiny, vision

TITLES = {
    "rest": "one tiny request, REST, V2 JSON, without sockets",
    "grpc": "one tiny request, gRPC, without sockets",
    "image": "one image of 150,528 numbers",
}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        profiles = runner.run(_profiles(Path(folder)))
    for name, parts in profiles.items():
        _show(TITLES[name], parts)
    document = {
        "machine": machine(),
        "versions": {"python": platform.python_version()},
        "profiles": {
            name: [msgspec.to_builtins(msgspec.structs.replace(part, us=round(part.us, 3))) for part in parts]
            for name, parts in profiles.items()
        },
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / "profile_serving.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")


async def _profiles(folder: Path) -> dict[str, list[Part]]:
    server = Server(tiny(folder))
    await server.load()
    gc.collect()
    gc.freeze()
    gc.disable()  # its pauses are short, but would be in one part or another by chance
    try:
        said = {"rest": await rest_parts(server), "grpc": await grpc_parts(server)}
    finally:
        gc.enable()
        await server.models.close()
    return {**said, "image": image_parts(vision(folder))}


def _show(title: str, parts: list[Part]) -> None:
    table = Table(title=title, title_justify="left")
    table.add_column("part")
    table.add_column("us", justify="right")
    for part in parts:
        table.add_row(f"  of it {part.name}" if part.within else part.name, f"{part.us:,.2f}")
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
