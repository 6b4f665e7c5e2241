"""A transformer with fewer layers and heads begins with its teacher's weights, and learns from it on texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from fairway.bundle.format import write_bundle
from fairway.core.errors import InvalidConfig
from fairway.core.manifest import Manifest, Prediction
from fairway.core.tensors import Datatype, TensorSpec
from fairway.engines.onnxruntime import OnnxRuntimeEngine
from fairway.model import Model
from fairway.optimization.distillation.distill import distill
from fairway.optimization.distillation.settings import DistillationSettings
from fairway.optimization.distillation.students import smaller_transformer
from fairway.sources.tables import make_table
from tests.optimization.transformers_tiny import export

torch: Any = pytest.importorskip("torch")
transformers: Any = pytest.importorskip("transformers")
pytestmark = pytest.mark.torch

TOKENS = 8


def bert(**changes: Any) -> Any:
    shape = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 32}
    config = transformers.BertConfig(
        vocab_size=30, max_position_embeddings=TOKENS, num_labels=3, attn_implementation="eager", **{**shape, **changes}
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return transformers.BertForSequenceClassification(config).eval()


def test_fewer_layers_are_the_teachers_own() -> None:
    teacher = bert()
    student, hidden = smaller_transformer(teacher, layers=2)
    own, other = student.state_dict(), teacher.state_dict()
    assert list(hidden.values()) == ["bert.encoder.layer.0", "bert.encoder.layer.3"]
    assert list(hidden) == ["bert.encoder.layer.0", "bert.encoder.layer.1"]
    name = "attention.self.query.weight"
    assert torch.equal(own[f"bert.encoder.layer.1.{name}"], other[f"bert.encoder.layer.3.{name}"])
    assert torch.equal(own["classifier.weight"], other["classifier.weight"])


def test_as_many_layers_without_what_they_add_are_the_teacher_itself() -> None:
    teacher = bert()
    with torch.no_grad():
        for layer in teacher.bert.encoder.layer[
            1:3
        ]:  # after its own layer norms a layer still norms what it adds nothing to
            for dense in (layer.attention.output.dense, layer.output.dense):
                dense.weight.zero_()
                dense.bias.zero_()
    student, _ = smaller_transformer(teacher, layers=2)
    ids = torch.arange(16).reshape(2, 8)
    with torch.no_grad():
        torch.testing.assert_close(student.eval()(ids).logits, teacher(ids).logits, rtol=1e-4, atol=1e-4)


def test_fewer_heads_are_narrower_everywhere() -> None:
    teacher = bert()
    student, _ = smaller_transformer(teacher, heads=2)
    assert (student.config.hidden_size, student.config.intermediate_size) == (8, 16)
    assert student.config.num_hidden_layers == 4
    weight = "bert.encoder.layer.2.intermediate.dense.weight"
    assert torch.equal(student.state_dict()[weight], teacher.state_dict()[weight][:16, :8])


@pytest.mark.parametrize(
    ("teacher", "wanted"),
    [
        (lambda: transformers.DistilBertForSequenceClassification(
            transformers.DistilBertConfig(vocab_size=30, dim=16, n_heads=4, n_layers=4, hidden_dim=32)
        ), 2),
        (lambda: transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=30, n_embd=16, n_head=4, n_layer=4)), 2),
    ],
)  # fmt: skip
def test_other_architectures_call_their_layers_otherwise(teacher: Any, wanted: int) -> None:
    student, hidden = smaller_transformer(teacher(), layers=wanted)
    assert len(hidden) == student.config.num_hidden_layers == wanted


def test_what_would_not_be_smaller_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="not smaller than its teacher of 4 and 4"):
        smaller_transformer(bert(), layers=4)
    with pytest.raises(InvalidConfig, match="no transformer of Hugging Face"):
        smaller_transformer(torch.nn.Linear(2, 2), layers=1)


def test_a_transformer_teaches_one_of_half_its_layers(tmp_path: Path) -> None:
    """The task: which of three tokens comes first in a text of noise. The teacher is trained on it first."""
    ids, mask, labels = texts(600)
    teacher = trained(bert(), ids, mask, labels)
    graph = export(tmp_path / "model.onnx", teacher, ["input_ids", "attention_mask"])
    engine = OnnxRuntimeEngine(graph)
    engine.close()
    output = engine.outputs[0].name
    specs = tuple(TensorSpec(name, Datatype.INT64, (-1, -1)) for name in ("input_ids", "attention_mask"))
    manifest = Manifest(
        "texts",
        "classification",
        specs,
        engine.outputs,
        {},
        prediction=Prediction(output, "logits"),
        labels=("0", "1", "2"),
    )
    bundle = write_bundle(tmp_path / "teacher.fairway", manifest, {"model.onnx": graph})
    student, hidden = smaller_transformer(teacher, layers=2)
    settings = DistillationSettings(epochs=4, batch_rows=32, hidden=hidden, learning_rate=2e-3)
    made = distill(
        bundle,
        student,
        table=make_table({"input_ids": ids, "attention_mask": mask, "label": labels}),
        label="label",
        destination=tmp_path / "student.fairway",
        workdir=tmp_path / "work",
        teacher_module=teacher,
        settings=settings,
    )
    unseen = dict(zip(("input_ids", "attention_mask", "label"), texts(300, seed=1), strict=True))
    wanted = unseen.pop("label")
    with Model(bundle) as model, Model(made.bundle) as smaller:
        right = [np.mean(each.infer(unseen)[output].argmax(axis=1) == wanted) for each in (model, smaller)]
        short = {name: array[:1, :5] for name, array in unseen.items()}
        assert smaller.infer(short)[output].shape == (1, 3)  # any length, any number of rows
    assert right[0] > 0.9
    assert right[1] > right[0] - 0.05
    assert made.bundle.size_bytes < 0.7 * bundle.size_bytes
    assert not msgspec.structs.asdict(made.bundle.manifest)["recipe"]


def texts(rows: int, seed: int = 0) -> tuple[Any, Any, Any]:
    random = np.random.default_rng(seed)
    ids = random.integers(5, 30, (rows, TOKENS))
    lengths = random.integers(4, TOKENS + 1, rows)
    labels = random.integers(0, 3, rows)
    for row, (length, label) in enumerate(zip(lengths, labels, strict=True)):
        first, second = np.sort(random.choice(np.arange(1, length), 2, replace=False))
        ids[row, first], ids[row, second] = 2 + label, 2 + random.integers(0, 3)
    mask = (np.arange(TOKENS) < lengths[:, None]).astype(np.int64)
    ids[:, 0] = 1
    return ids * mask, mask, labels


def trained(network: Any, ids: Any, mask: Any, labels: Any) -> Any:
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    draw = np.random.default_rng(0)
    for _ in range(200):
        rows = draw.integers(0, len(ids), 32)
        given = [torch.from_numpy(array[rows]) for array in (ids, mask, labels)]
        network(input_ids=given[0], attention_mask=given[1], labels=given[2]).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return network.eval()
