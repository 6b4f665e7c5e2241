"""The whole loop on scikit-learn's digits, with the commands that you would type. Run by ``make demo``.

Everything is left in ``demo-output``: look at its ``fairway.toml``, its ``train.py`` and its reports, then go on from there.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from rich.console import Console
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import fairway
from examples.demo_summary import Act, write_summary

HERE = Path(__file__).parent
OUT = Path("demo-output").absolute()
COLUMNS = [f"pixel_{row}_{column}" for row in range(8) for column in range(8)]
console = Console(stderr=True, highlight=False, width=110)
Rows = NDArray[np.float32]


def main() -> None:
    started = time.perf_counter()
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    test = write_data()
    for name in ("fairway.toml", "train.py"):
        shutil.copy(HERE / "digits" / name, OUT / name)
    acts = [
        compare(),
        first_version(),
    ]
    with server() as url:
        acts += [ask(url, test), canary(url, test), bad_version(), drift(url, test)]
        fairway_command("status")
    page = write_summary(OUT, acts, time.perf_counter() - started)
    console.print(f"\nas a page: {page}")


def write_data() -> Rows:
    """Digits as a data team would hand them over: Parquet files with named columns."""
    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype(np.float32)
    split = train_test_split(x, y, test_size=450, random_state=0, stratify=y)
    for name, rows, labels in (("train", split[0], split[2]), ("test", split[1], split[3])):
        columns: dict[str, Any] = {column: rows[:, i] for i, column in enumerate(COLUMNS)}
        columns |= {"ink": rows.mean(axis=1), "digit": labels.astype(np.int64)}
        pq.write_table(pa.table(columns), OUT / f"{name}.parquet")
    held_out: Rows = split[1]
    return held_out


def compare() -> Act:
    """Which of two models? The one that scores higher, if the gate lets it through."""
    heading("1. Two models are trained, converted, checked against the original, and evaluated by the gate")
    scores: dict[str, float] = {}
    facts = []
    for source in ("train:logistic", "train:network"):
        use(source)
        page = OUT / f"evaluation-{source.partition(':')[2]}.html"
        report = fairway_json("evaluate", "--html", str(page))
        accuracy = next(m for m in report["measurements"] if m["metric"] == "accuracy_score" and not m.get("slice"))
        outcome = report["verdict"]["outcome"]
        facts.append(
            f"{source}: accuracy {accuracy['value']:.3f} [{accuracy['low']:.3f}, {accuracy['high']:.3f}], gate {outcome}"
        )
        say(facts[-1])
        if outcome == "passed":
            scores[source] = accuracy["value"]
    chosen = max(scores, key=lambda name: scores[name])
    use(chosen)
    say(f"chosen: {chosen}")
    return Act(
        "Evaluate", [*facts, f"chosen: {chosen}"], "fairway evaluate --html evaluation.html", ["evaluation-*.html"]
    )


def first_version() -> Act:
    """Optimize, pack, register, release: the first version is the champion."""
    heading("2. The chosen one is optimized, packed, registered and released")
    road = fairway_json("run")
    say(f"digits:{road['version']} {road['digest'][:19]}… gate {road['verdict']['outcome']}")
    optimization = road["pages"]["optimization"]
    lines = [f"digits:{road['version']}, {road['digest'][:19]}…", f"gate: {road['verdict']['outcome']}"]
    return Act("Optimize, pack, register", lines, "fairway run", [optimization])


@contextmanager
def server() -> Iterator[str]:
    """``fairway serve`` in the background; it follows the registry from here on."""
    heading("3. It is served; the server follows the registry from here on")
    log = (OUT / "server.log").open("wb")
    process = subprocess.Popen(
        [*FAIRWAY, "serve", "--port", "0", "--json"], cwd=OUT, stdout=subprocess.PIPE, stderr=log
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline().decode()
        found = re.search(r"http://[^\"\s]+", line)
        if found is None:
            sys.exit(f"the server did not start; see {log.name}")
        say(f"listening on {found[0]}")
        yield found[0]
    finally:
        process.terminate()
        process.wait(60)
        log.close()


def ask(url: str, test: Rows) -> Act:
    """Real requests over REST."""
    wait_ready(url)
    labels = np.asarray(pq.read_table(OUT / "test.parquet")["digit"])
    with fairway.connect(url) as client:
        answer = client.infer("digits", {INPUT: test})
    right = float((answer_classes(answer.outputs) == labels).mean())
    fact = f"450 rows over REST, answered by version {answer.version}: {right:.3f} right"
    say(fact)
    return Act("Serve", [url, fact], "fairway infer digits --data test.parquet --rows 3", ["server.log"])


def canary(url: str, test: Rows) -> Act:
    """A second version takes half of the callers until its traffic has proven it."""
    heading("4. A second version goes live as a canary, and is promoted on the evidence of its traffic")
    use("train:wider_network")
    road = fairway_json("run")
    say(f"digits:{road['version']} answers {road['release']['weight']:.0%} of the callers")
    with traffic(url, test):
        shown = fairway_command("release", "digits", "--watch")
    facts = [line.strip() for line in shown.splitlines() if line.startswith(("digits:", "  ✓", "verdict:"))]
    return Act("Release", facts, "fairway release digits --watch", [])


def bad_version() -> Act:
    """A third one, trained on wrong labels, never gets to a caller."""
    heading("5. A bad third version is refused by the gate")
    use("train:mislabeled")
    say("[bold]$ fairway run[/]")
    done = subprocess.run([*FAIRWAY, "run"], cwd=OUT, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 1:
        sys.exit(f"the gate should have refused this version, but `fairway run` exited {done.returncode}")
    refused = [line for line in done.stdout.splitlines() if line]
    for line in refused:
        say(line)
    return Act(
        "Refuse", [line for line in refused if line.startswith(("gate:", "accuracy", "change"))], "fairway run", []
    )


def drift(url: str, test: Rows) -> Act:
    """The same digits in faint ink: the model answers, and the monitor says that this is not what it knows."""
    heading("6. The input shifts until drift is reported")
    before = fairway_json("observe", "digits", expect=(0, 2))
    say(f"as trained: {before['outcome']}")
    page = OUT / "drift.html"
    with traffic(url, test * 0.5):
        code, looks = 0, 0
        while code != 1:
            looks += 1
            if looks > 60:
                sys.exit("no drift was reported; see drift.html")
            done = subprocess.run(
                [*FAIRWAY, "observe", "digits", "--html", str(page)],
                cwd=OUT,
                capture_output=True,
                text=True,
                check=False,
            )
            code = done.returncode
    text = done.stdout.splitlines()
    for line in text[:14]:
        say(line)
    facts = [f"as trained: {before['outcome']}", text[0], *(line.strip() for line in text[2:6])]
    return Act("Observe", facts, "fairway observe digits --html drift.html", [page.name])


@contextmanager
def traffic(url: str, rows: Rows) -> Iterator[None]:
    """Four callers that ask for one row after another until the block ends."""
    going = True

    def caller(number: int) -> None:
        with fairway.connect(url) as client:
            asked = number
            while going:
                row = asked % len(rows)
                client.infer("digits", {INPUT: rows[row : row + 1]}, key=f"caller-{asked}")
                asked += 4

    with ThreadPoolExecutor(4) as pool:
        callers = [pool.submit(caller, number) for number in range(4)]
        try:
            yield
        finally:
            going = False
        for done in callers:
            done.result()


FAIRWAY = [sys.executable, "-m", "fairway"]
INPUT = "x"


def answer_classes(outputs: Any) -> NDArray[np.int64]:
    classes: NDArray[np.int64] = np.asarray(outputs["probabilities"]).argmax(axis=1)
    return classes


def wait_ready(url: str) -> None:
    with fairway.connect(url) as client:
        while not client.ready():
            pass


def use(source: str) -> None:
    """Point fairway.toml at another function of train.py, as you would in an editor."""
    file = OUT / "fairway.toml"
    file.write_text(re.sub(r"^source = .*$", f'source = "{source}"', file.read_text(), flags=re.MULTILINE))


def fairway_json(*arguments: str, expect: tuple[int, ...] = (0, 1, 2)) -> Any:
    """Run a command with ``--json``; its progress shows, its document comes back."""
    say(f"[bold]$ fairway {' '.join(arguments)}[/]")
    done = subprocess.run(
        [*FAIRWAY, *arguments, "--json"], cwd=OUT, stdout=subprocess.PIPE, text=True, check=False, env=ENVIRONMENT
    )
    if done.returncode not in expect:
        sys.exit(f"`fairway {' '.join(arguments)}` exited {done.returncode}: {done.stdout}")
    return json.loads(done.stdout)


def fairway_command(*arguments: str) -> str:
    """Run a command and show what it prints."""
    say(f"[bold]$ fairway {' '.join(arguments)}[/]")
    done = subprocess.run(
        [*FAIRWAY, *arguments], cwd=OUT, stdout=subprocess.PIPE, text=True, check=False, env=ENVIRONMENT
    )
    console.print(done.stdout, markup=False)
    if done.returncode != 0:
        sys.exit(f"`fairway {' '.join(arguments)}` exited {done.returncode}")
    return done.stdout


ENVIRONMENT = {**os.environ, "COLUMNS": "100"}


def heading(text: str) -> None:
    console.print(f"\n[bold cyan]{text}[/]")


def say(text: str) -> None:
    console.print(f"  {text}")


if __name__ == "__main__":
    main()
