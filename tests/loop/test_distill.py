"""``distill``: a bundle of its own that passes where its teacher does, or a clear word about what is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import fairway
from fairway.bundle.format import read_bundle
from fairway.core.errors import InvalidBundle, InvalidConfig, InvalidData
from fairway.loop.models import find_bundle
from fairway.model import Model
from tests.projects import edit, run_here

torch: Any = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

STUDENT = """
import torch

def small():
    return torch.nn.Sequential(torch.nn.Linear(64, 24), torch.nn.ReLU(), torch.nn.Linear(24, 10))

def broken():
    return "small"
"""
DISTILL = """
[distill]
student = "students:small"
epochs = 8
batch_rows = 32
learning_rate = 0.01
"""


@pytest.fixture
def project(folder: Path) -> Path:
    (folder / "students.py").write_text(STUDENT)
    edit(folder, 'label = "digit"', 'label = "digit"\ntrain = "train.parquet"')
    with (folder / "fairway.toml").open("a") as settings:
        settings.write(DISTILL)
    return folder


def test_the_command_writes_a_bundle_that_the_gate_lets_through(
    project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    done = run_here(capfd, "distill", "--json")
    assert done.code == 0, done.err
    assert done.document["rows"] == 1347
    made = read_bundle("digits-student.fairway")
    assert made.digest == done.document["digest"]
    report = fairway.evaluate(made, project=fairway.Project.find(project))
    assert report.verdict.passed
    again = run_here(capfd, "distill", "--replace", "--json")
    assert again.document["digest"] == made.digest


def test_nothing_takes_the_place_of_what_is_there(project: Path) -> None:
    (project / "there.fairway").mkdir()
    (project / "there.fairway" / "manifest.json").write_text("{}")
    with pytest.raises(InvalidBundle, match="exists"):
        fairway.distill(out="there.fairway")


def test_what_is_no_student_is_told(project: Path) -> None:
    edit(project, "students:small", "students:broken")
    with pytest.raises(InvalidConfig, match="students:broken gives a str; a student is a torch module"):
        fairway.distill()
    edit(project, 'student = "students:broken"', "layers = 2")
    with pytest.raises(InvalidConfig, match="no transformer of Hugging Face's"):
        fairway.distill()


def test_a_student_does_not_learn_from_the_test_set(project: Path) -> None:
    edit(project, 'train = "train.parquet"', 'train = "test.parquet"')
    with pytest.raises(InvalidConfig, match="is the test set"):
        fairway.distill()


def test_without_rows_to_learn_from_it_says_what_to_add(project: Path) -> None:
    edit(project, 'train = "train.parquet"\n', "")
    with pytest.raises((InvalidConfig, InvalidData), match="add: train ="):
        fairway.distill()


NETWORK = """
import numpy as np
import pyarrow.parquet as pq
import torch

def network():
    torch.manual_seed(0)
    rows = pq.read_table("train.parquet")
    pixels = [rows[name].to_numpy() for name in rows.column_names if name.startswith("pixel_")]
    x = torch.tensor(np.stack(pixels, 1), dtype=torch.float32)
    y = torch.tensor(rows["digit"].to_numpy())
    made = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10))
    optimizer = torch.optim.Adam(made.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(made(x), y).backward()
        optimizer.step()
    return made.eval()
"""


def test_a_torch_module_is_pruned_and_taught_again_what_it_knew(project: Path) -> None:
    pytest.importorskip("torch_pruning")
    (project / "networks.py").write_text(NETWORK)
    edit(project, 'student = "students:small"', "prune = 0.75")
    edit(project, 'source = "good.onnx"', 'source = "networks:network"')
    made = fairway.distill()
    told = made.bundle.manifest.lineage.hyperparameters["distillation"]
    assert told["parameters"] == 64 * 32 + 32 + 32 * 10 + 10
    report = fairway.evaluate(made.bundle, project=fairway.Project.find(project))
    assert report.verdict.passed


def test_the_source_gives_no_layers_to_the_student_of_a_teacher_that_was_made_of_something_else(project: Path) -> None:
    pytest.importorskip("torch_pruning")
    (project / "networks.py").write_text(NETWORK)
    edit(project, 'student = "students:small"', "prune = 0.75")
    onnx = find_bundle(fairway.Project.find(project), None)
    edit(project, 'source = "good.onnx"', 'source = "networks:network"')
    with pytest.raises(InvalidConfig, match=r"the teacher was made of good\.onnx, and not of networks:network"):
        fairway.distill(onnx)
    own = find_bundle(fairway.Project.find(project), None)
    assert fairway.distill(own).bundle.manifest.lineage.parent == own.digest


def test_a_source_that_is_no_torch_module_cannot_be_pruned(project: Path) -> None:
    edit(project, 'student = "students:small"', "prune = 0.5")
    with pytest.raises(InvalidConfig, match="is no torch module, whose channels could be left out"):
        fairway.distill()
    edit(project, "prune = 0.5", "prune = 0.5\nlayers = 2")
    with pytest.raises(InvalidConfig, match="layers and prune each say what the student is"):
        fairway.distill()


def test_a_hugging_face_folder_teaches_one_with_fewer_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_bert(tmp_path / "bert")
    texts = ["a good film", "bad", "a long film", "good", "a bad film"] * 8
    for name, shift in (("train", 0), ("test", 1)):
        lines = [f"{text}{' long' * shift},{int('good' in text)}" for text in texts]
        (tmp_path / f"{name}.csv").write_text("\n".join(["text,stars", *lines]) + "\n")
    (tmp_path / "fairway.toml").write_text(
        '[model]\nname = "reviews"\nsource = "bert"\nlabels = ["0", "1"]\n'
        '[data]\ntest = "test.csv"\ntrain = "train.csv"\nlabel = "stars"\n'
        "[distill]\nlayers = 1\nepochs = 2\nbatch_rows = 8\n"
    )
    made = fairway.distill()
    with Model(made.bundle) as model:
        import numpy as np

        answer = model.infer({"text": np.array([b"a good film", b"bad"], object)})["logits"]
    assert answer.shape == (2, 2)
    assert made.bundle.manifest.processing.pre[0].name == "tokenize"
    described = made.bundle.manifest.lineage.hyperparameters["distillation"]["settings"]
    assert described["hidden"] == {"bert.encoder.layer.0": "bert.encoder.layer.0"}


def save_bert(path: Path) -> None:
    transformers: Any = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers

    from fairway.sources.quiet import quiet

    words = ("[PAD]", "[UNK]", "a", "good", "bad", "film", "long")
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=24, num_labels=2,
    )  # fmt: skip
    with quiet():
        transformers.BertForSequenceClassification(config).save_pretrained(path)
        fast: Any = transformers.PreTrainedTokenizerFast
        fast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(path)
