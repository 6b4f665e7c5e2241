"""A canary by hand: release a second version to a share of the callers, promote it, and go back in one step."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import fairway
from fairway.client import Client
from fairway.loop.release import promote
from fairway.loop.run import Road
from fairway.testing.builders import linear_bundle

SETTINGS = """\
[model]
name = "sign"
source = "first.onnx"

[data]
test = "test.parquet"
label = "label"

[gate]
accuracy_score = { min = 0.9 }
latency_p99_ms = { max = 1000, at_rps = 1000 }

[serve]
port = 0
poll_s = 0.05                      # how soon servers notice a release
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_project(folder)
        print(f"version {run(folder, 'first.onnx').version} is the champion: the first one answers everybody")
        project = fairway.Project.find(folder)
        with fairway.serve(project=project) as server, fairway.connect(server.url) as client:
            second = run(folder, "second.onnx")
            assert second.release is not None
            print(f"version {second.version} is its challenger, at {second.release.weight:.0%} of the callers")

            fairway.release("sign", weight=0.3, project=project)
            shares = ask_until(client, lambda seen: seen["2"] >= 60)
            print(f"at 30 %: {dict(shares)}; a caller with a key stays with one version")

            promote("sign", reason="it answers well", project=project)
            print(f"promoted: {dict(ask_until(client, only('2')))}")

            fairway.rollback("sign", reason="it does not, after all", project=project)
            print(f"rolled back: {dict(ask_until(client, only('1')))}")
        print(fairway.status(project=project).as_text())


def run(folder: Path, source: str) -> Road:
    """What ``fairway run`` does, after the source was changed in fairway.toml."""
    (folder / "fairway.toml").write_text(SETTINGS.replace("first.onnx", source))
    return fairway.run(project=fairway.Project.find(folder))


def write_project(folder: Path) -> None:
    """Two models that tell whether the sum of two numbers is positive, and rows to try them on."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 2)).astype(np.float32)
    pq.write_table(
        pa.table({"a": x[:, 0], "b": x[:, 1], "label": (x.sum(axis=1) > 0).astype(np.int64)}), folder / "test.parquet"
    )
    for name, slope in (("first", 4), ("second", 5)):
        made = linear_bundle(folder / name, weights=[[-slope, slope], [-slope, slope]], bias=[0, 0])
        made.file("model.onnx").rename(folder / f"{name}.onnx")


def ask_until(client: Client, enough: Callable[[Counter[str]], bool]) -> Counter[str]:
    """Ask for one caller after another: which versions answered them."""
    seen: Counter[str] = Counter()
    for caller in range(100_000):
        seen[client.infer("sign", {"x": [[1.0, 2.0]]}, key=f"caller-{caller}").version] += 1
        if enough(seen):
            return seen
    raise RuntimeError(f"not enough after {seen.total():,} requests")


def only(version: str) -> Callable[[Counter[str]], bool]:
    """The last hundred answers came from this version."""
    others: list[int] = [0, 0]

    def enough(seen: Counter[str]) -> bool:
        elsewhere = seen.total() - seen[version]
        others[:] = [elsewhere, others[1] + 1 if elsewhere == others[0] else 0]
        return others[1] >= 100

    return enough


if __name__ == "__main__":
    main()
