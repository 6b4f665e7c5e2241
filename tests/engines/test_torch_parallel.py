"""Several processes answer as one does, hold less each, and end as they should. Here: two or three over gloo, on the CPU."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fairway.core.errors import FairwayError, InferenceFailed, InvalidBundle, UnsupportedMachine, WorkerFailed
from fairway.engines.torch import TorchEngine
from fairway.sources.programs import export_program

torch: Any = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

WIDTH = 128
Module: Any = torch.nn.Module


class Encoder(Module):  # type: ignore[misc] # torch is untyped here
    """Tokens of any number, attention, a size in the graph, an early output and an operator in place."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = torch.nn.Embedding(50, WIDTH)
        layer = torch.nn.TransformerEncoderLayer(WIDTH, 4, 2 * WIDTH, batch_first=True, dropout=0.0)
        self.layers = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = torch.nn.Linear(WIDTH, 5)

    def forward(self, ids: Any) -> Any:
        places = torch.arange(ids.shape[1], device=ids.device) / ids.shape[1]
        held = self.tokens(ids) + places[None, :, None]
        early = held.mean(1).clamp_(-1, 1)
        return self.head(self.layers(held).mean(1)), early


def mlp() -> Any:
    relu = torch.nn.ReLU(inplace=True)
    return torch.nn.Sequential(
        torch.nn.Linear(64, 301), relu, torch.nn.Linear(301, 257), torch.nn.Tanh(), torch.nn.Linear(257, 129), torch.nn.GELU(),
        torch.nn.Linear(129, 131), torch.nn.LayerNorm(131), torch.nn.Linear(131, 7),
    )  # fmt: skip


def features(count: int) -> Any:
    return np.random.default_rng(count).normal(size=(count, 64)).astype(np.float32)


def ids(count: int) -> Any:
    return np.random.default_rng(count).integers(0, 50, (count, 4 + count))


MODELS: dict[str, tuple[Callable[[], Any], Callable[[int], Any], list[int]]] = {
    "mlp": (mlp, features, [0]),
    "encoder": (Encoder, ids, [0, 1]),
}


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("programs")
    for name, (make, rows, free) in MODELS.items():
        torch.manual_seed(0)
        (folder / f"{name}.pt2").write_bytes(export_program(make().eval(), [rows(3)], [free]))
    return {name: folder / f"{name}.pt2" for name in MODELS}


Made = Callable[..., TorchEngine]


@pytest.fixture(scope="module")
def kept(programs: dict[str, Path]) -> Iterator[Made]:
    """Engines that tests share: starting one takes seconds."""
    engines: dict[tuple[Any, ...], TorchEngine] = {}

    def make(model: str, **options: Any) -> TorchEngine:
        key = (model, *options.items())
        engines[key] = engines.get(key) or TorchEngine(programs[model], **options)
        return engines[key]

    yield make
    for engine in engines.values():
        engine.close()


@pytest.fixture
def made() -> Iterator[Made]:
    engines: list[TorchEngine] = []

    def make(path: Path, **options: Any) -> TorchEngine:
        engines.append(TorchEngine(path, **options))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


PIPELINE = {"parallel": "pipeline", "ranks": 2}
TENSOR = {"parallel": "tensor", "ranks": 2}
OVERLAPPING = {"parallel": "pipeline", "ranks": 3, "micro_batches": 4}


def pids(engine: TorchEngine) -> tuple[int, ...]:
    assert engine._ranks is not None
    return engine._ranks.pids


def runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def ended(*processes: int, within: float = 10.0) -> bool:
    until = time.monotonic() + within
    while any(map(runs, processes)) and time.monotonic() < until:
        time.sleep(0.02)
    return not any(map(runs, processes))


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("mlp", PIPELINE), ("mlp", OVERLAPPING), ("mlp", {"parallel": "tensor", "ranks": 3}),
        ("encoder", PIPELINE), ("encoder", TENSOR),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value.values())),
)  # fmt: skip
def test_ranks_answer_as_one_process_does_and_hold_less(model: str, options: dict[str, Any], kept: Made) -> None:
    whole, shared = kept(model), kept(model, **options)
    assert (shared.inputs, shared.outputs) == (whole.inputs, whole.outputs)
    (given,) = whole.inputs
    for count in range(1, 10):
        feed = {given.name: MODELS[model][1](count)}
        wanted, answer = whole.infer(feed), shared.infer(feed)
        assert list(answer) == list(wanted)
        for name, array in wanted.items():
            assert answer[name].dtype == array.dtype
            np.testing.assert_allclose(answer[name], array, rtol=1e-4, atol=1e-5)
    (total,) = whole.rank_bytes
    assert len(shared.rank_bytes) == options["ranks"]
    assert max(shared.rank_bytes) < (0.75 if options["ranks"] == 2 else 0.65) * total
    if options["parallel"] == "pipeline":
        assert sum(shared.rank_bytes) == total


@pytest.mark.parametrize("options", [PIPELINE, TENSOR], ids=lambda options: options["parallel"])
def test_half_precision_is_as_near_as_in_one_process(
    options: dict[str, Any], kept: Made, made: Made, programs: Any
) -> None:
    feed = {"ids": ids(5)}
    exact = kept("encoder").infer(feed)["output_0"]
    answer = made(programs["encoder"], precision="bf16", **options).infer(feed)["output_0"]
    assert answer.dtype == np.float32
    assert 0 < np.abs(answer - exact).max() < 5e-2


def test_weights_that_are_used_twice_and_turned_and_sizes_that_are_passed_on(tmp_path: Path, made: Made) -> None:
    class Odd(Module):  # type: ignore[misc] # torch is untyped here
        def __init__(self) -> None:
            super().__init__()
            self.first = torch.nn.Linear(WIDTH, WIDTH)
            self.tied = torch.nn.Embedding(200, WIDTH)
            self.plain = torch.nn.Parameter(torch.randn(WIDTH, 150) / 10)
            self.turned = torch.nn.Parameter(torch.randn(151, 150) / 10)
            self.bias = torch.nn.Parameter(torch.randn(151))
            self.register_buffer("scale", torch.rand(151, 199))

        def forward(self, x: Any, ids: Any) -> Any:
            rows, whole = x.shape[0], x.sum()
            x = self.first(self.first(x).relu()) + self.tied(ids)
            scores = torch.nn.functional.linear(x, self.tied.weight)
            y = torch.addmm(self.bias, x @ self.plain, self.turned.t()).sigmoid() @ self.scale
            return y / rows, scores, ids * 2, whole.expand(rows)

    torch.manual_seed(1)
    path = tmp_path / "odd.pt2"
    feed: dict[str, Any] = {
        "x": np.random.default_rng(0).normal(size=(4, WIDTH)).astype(np.float32),
        "ids": np.arange(4),
    }
    path.write_bytes(export_program(Odd().eval(), [feed["x"], feed["ids"]], [[0], [0]]))
    wanted = made(path).infer(feed)
    for options in (PIPELINE, TENSOR):
        shared = made(path, **options)
        assert max(shared.rank_bytes) < made(path).rank_bytes[0]
        for name, array in shared.infer(feed).items():
            np.testing.assert_allclose(array, wanted[name], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "options", [OVERLAPPING, {"parallel": "tensor", "ranks": 3}], ids=lambda options: options["parallel"]
)
def test_no_rows_and_calls_of_several_threads(options: dict[str, Any], kept: Made) -> None:
    whole, shared = kept("mlp"), kept("mlp", **options)
    assert shared.infer({"input": features(0)})["output_0"].shape == (0, 7)
    wrong: list[int] = []

    def ask(count: int) -> None:
        for _ in range(5):
            wanted, answer = (engine.infer({"input": features(count)})["output_0"] for engine in (whole, shared))
            if not np.allclose(answer, wanted, rtol=1e-4, atol=1e-5):
                wrong.append(count)

    asking = [threading.Thread(target=ask, args=(count,)) for count in range(1, 5)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("options", [PIPELINE, TENSOR], ids=lambda options: options["parallel"])
def test_what_an_operator_raises_is_told_and_the_processes_stay(options: dict[str, Any], kept: Made) -> None:
    shared = kept("encoder", **options)
    before = pids(shared)
    wanted = shared.infer({"ids": ids(3)})["output_0"]
    with pytest.raises(InferenceFailed, match="IndexError: index out of range"):
        shared.infer({"ids": ids(3) + 50})
    np.testing.assert_array_equal(shared.infer({"ids": ids(3)})["output_0"], wanted)
    assert pids(shared) == before


@pytest.mark.parametrize(("options", "rank"), [(PIPELINE, 1), (TENSOR, 0)], ids=["pipeline", "tensor"])
def test_a_killed_process_is_named_at_once_and_the_next_call_starts_them_again(
    options: dict[str, Any], rank: int, programs: dict[str, Path], made: Made
) -> None:
    shared = made(programs["mlp"], **options)
    wanted = shared.infer({"input": features(3)})["output_0"]
    before = pids(shared)
    os.kill(before[rank], signal.SIGKILL)
    start = time.monotonic()
    with pytest.raises(WorkerFailed, match=rf"rank {rank} \(process {before[rank]}\) was ended by SIGKILL"):
        shared.infer({"input": features(3)})
    assert time.monotonic() - start < 5
    assert ended(*before)
    np.testing.assert_array_equal(shared.infer({"input": features(3)})["output_0"], wanted)
    again = pids(shared)
    assert not set(again) & set(before)
    shared.close()
    assert ended(*again, within=0)


def test_processes_start_again_from_the_file_that_was_loaded_though_it_is_gone_by_its_name(
    programs: dict[str, Path], tmp_path: Path, made: Made
) -> None:
    path = Path(shutil.copy(programs["mlp"], tmp_path / "mlp.pt2"))
    shared = made(path, **PIPELINE)
    wanted = shared.infer({"input": features(3)})["output_0"]
    path.unlink()
    path.write_bytes(programs["encoder"].read_bytes())
    os.kill(pids(shared)[1], signal.SIGKILL)
    with pytest.raises(WorkerFailed, match="SIGKILL"):
        shared.infer({"input": features(3)})
    np.testing.assert_array_equal(shared.infer({"input": features(3)})["output_0"], wanted)


def test_processes_do_not_start_again_from_a_file_that_was_written_into(
    programs: dict[str, Path], tmp_path: Path, made: Made
) -> None:
    path = Path(shutil.copy(programs["mlp"], tmp_path / "mlp.pt2"))
    shared = made(path, **PIPELINE)
    path.write_bytes(programs["encoder"].read_bytes())
    assert len(shared.infer({"input": features(3)})["output_0"]) == 3
    os.kill(pids(shared)[1], signal.SIGKILL)
    with pytest.raises(WorkerFailed, match="SIGKILL"):
        shared.infer({"input": features(3)})
    for _ in range(2):
        with pytest.raises(WorkerFailed, match=r"mlp.pt2 was altered while it was served.*load the model again"):
            shared.infer({"input": features(3)})


def test_a_process_that_hangs_ends_the_call_in_time(programs: dict[str, Path], made: Made) -> None:
    shared = made(programs["mlp"], parallel="pipeline", ranks=2, timeout_s=1)
    before = pids(shared)
    os.kill(before[1], signal.SIGSTOP)
    start = time.monotonic()
    with pytest.raises(WorkerFailed, match=r"rank 1 \(process \d+\) has not answered within 1 s"):
        shared.infer({"input": features(3)})
    assert time.monotonic() - start < 5
    assert ended(*before)


def test_no_process_is_left_if_the_engines_is_killed(programs: dict[str, Path]) -> None:
    script = f"""
        import threading, time
        from pathlib import Path
        from fairway.engines.torch import TorchEngine

        def load():  # in a thread that ends: the ranks stay
            global engine
            engine = TorchEngine(Path({str(programs["mlp"])!r}), parallel="pipeline", ranks=2)
        thread = threading.Thread(target=load)
        thread.start()
        thread.join()
        time.sleep(0.2)
        print(engine._ranks._group._folder, *engine._ranks.pids, flush=True)
        time.sleep(600)
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as parent:
        assert parent.stdout is not None
        folder, *said = parent.stdout.readline().split()
        left = [*map(int, said)]
        assert Path(folder).is_dir()
        assert len(left) == 2
        assert all(map(runs, left))
        parent.kill()
    assert ended(*left)
    assert not Path(folder).exists()


REFUSED: list[tuple[dict[str, Any], type[FairwayError], str]] = [
    ({"parallel": "data", "ranks": 2}, InvalidBundle, "parallel 'data': the torch engine knows none, pipeline, tensor"),
    ({"ranks": 2}, InvalidBundle, 'ranks = 2 needs parallel = "pipeline" or "tensor"'),
    ({"parallel": "tensor", "ranks": 0}, InvalidBundle, "ranks 0: the torch engine needs a whole number from 1 on"),
    ({"parallel": "tensor", "ranks": "2"}, InvalidBundle, "ranks '2': .* whole number"),
    (
        {"parallel": "tensor", "ranks": 2, "micro_batches": 2},
        InvalidBundle,
        'micro_batches = 2 is for parallel = "pipeline"',
    ),
    ({"parallel": "tensor", "ranks": 2, "timeout_s": 0}, InvalidBundle, "timeout_s 0: .* number of seconds above 0"),
    ({"parallel": "tensor", "ranks": 2, "mode": "compiled"}, InvalidBundle, "mode 'compiled': .* set mode = \"eager\""),
    ({"parallel": "pipeline", "ranks": 7}, InvalidBundle, "has 6 operators with weights, which ranks = 7 cannot share"),
]


@pytest.mark.parametrize(("options", "kind", "said"), REFUSED, ids=lambda value: str(value)[:30])
def test_what_cannot_be_is_said_with_the_option(
    options: dict[str, Any], kind: type[FairwayError], said: str, programs: dict[str, Path]
) -> None:
    with pytest.raises(kind, match=said):
        TorchEngine(programs["mlp"], **options)


def test_programs_that_ranks_cannot_share_are_refused(tmp_path: Path) -> None:
    class Fixed(Module):  # type: ignore[misc] # torch is untyped here
        def forward(self, x: Any) -> Any:
            return x.sum(1), x.sum()

    class Counting(Module):  # type: ignore[misc] # torch is untyped here
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(1))

        def forward(self, x: Any) -> Any:
            self.calls += 1
            return x + self.calls

    for module, options, said in (
        (Fixed(), {"parallel": "tensor"}, "no linear layer of 64 KiB or more"),
        (Fixed(), {"parallel": "pipeline", "micro_batches": 2}, "first axis is rows, of any number; 'output_1'"),
        (Counting(), {"parallel": "pipeline"}, "writes into its own buffers"),
    ):
        path = tmp_path / "model.pt2"
        path.write_bytes(export_program(module, [np.ones((2, 3), np.float32)], [[0]]))
        with pytest.raises(InvalidBundle, match=said):
            TorchEngine(path, ranks=2, **options)


def test_too_few_devices_are_told(programs: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UnsupportedMachine, match="to run on 2 CUDA devices, and there are 1"):
        TorchEngine(programs["mlp"], device="cuda", parallel="pipeline", ranks=2)
