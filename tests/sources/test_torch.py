"""PyTorch modules and exported programs keep their answers in the bundle."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fairway.bundle.format import Bundle
from fairway.core.errors import InvalidSource, UntrustedSource
from fairway.core.manifest import Prediction
from fairway.core.tensors import Datatype
from fairway.model import Model
from fairway.sources.convert import convert
from fairway.sources.tables import Table, make_table
from tests.conftest import Digits
from tests.sources.conftest import assert_golden

pytestmark = pytest.mark.torch

Converter = Callable[..., Bundle]

TRAIN = """
import numpy
import torch


def linear():
    weights = numpy.load(__file__.replace("train.py", "weights.npz"))
    module = torch.nn.Linear(64, 10)
    module.load_state_dict({name: torch.tensor(weights[name]) for name in ("weight", "bias")})
    return module


def with_examples():
    return linear(), (torch.zeros(3, 64),)


def program():
    batch = torch.export.Dim("batch")
    return torch.export.export(linear().eval(), (torch.zeros(2, 64),), dynamic_shapes=({0: batch},))
"""


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory, digits: Digits) -> Path:
    root = tmp_path_factory.mktemp("project")
    (root / "train.py").write_text(TRAIN)
    weight, bias = digits.model.coef_.astype(np.float32), digits.model.intercept_.astype(np.float32)
    np.savez(root / "weights.npz", weight=weight, bias=bias)
    return root


@pytest.fixture(scope="session")
def linear_bundle(project: Path, digits_table: Table) -> Bundle:
    return convert(
        "train:linear",
        destination=project / "linear.fairway",
        name="digits",
        task="classification",
        reference=digits_table,
        label="digit",
        root=project,
    )


def test_digits_keep_their_accuracy_through_a_module(linear_bundle: Bundle, digits: Digits) -> None:
    assert_golden(linear_bundle, digits)
    manifest = linear_bundle.manifest
    assert manifest.inputs[0].name == "input"
    assert manifest.inputs[0].shape == (-1, 64)
    assert manifest.inputs[0].columns == digits.columns
    assert manifest.prediction == Prediction("logits", "logits")
    assert manifest.labels == tuple("0123456789")
    assert manifest.lineage.source == "train:linear"
    assert manifest.lineage.source_kind == "torch"


def test_the_graph_does_not_tell_where_it_was_made(linear_bundle: Bundle) -> None:
    graph = linear_bundle.file("model.onnx").read_bytes()
    assert b"site-packages" not in graph
    assert b".py" not in graph


def test_converting_twice_gives_the_same_digest(
    linear_bundle: Bundle, project: Path, digits_table: Table, tmp_path: Path
) -> None:
    again = convert(
        "train:linear",
        destination=tmp_path / "again",
        name="digits",
        task="classification",
        reference=digits_table,
        label="digit",
        root=project,
    )
    assert again.digest == linear_bundle.digest


def test_digits_keep_their_accuracy_through_an_exported_program(
    project: Path, digits: Digits, digits_table: Table, converter: Converter
) -> None:
    bundle = converter("train:program", reference=digits_table, label="digit", root=project)
    assert_golden(bundle, digits)
    assert bundle.manifest.inputs[0].shape == (-1, 64)


def test_an_exported_program_file_is_opened_only_with_trust(
    project: Path, digits: Digits, digits_table: Table, converter: Converter
) -> None:
    import torch

    train: dict[str, Any] = {"__file__": str(project / "train.py")}
    exec(TRAIN, train)
    torch.export.save(train["program"](), project / "digits.pt2")
    with pytest.raises(UntrustedSource, match=r"evaluates expressions and may unpickle.*trust = true"):
        converter("digits.pt2", root=project)
    bundle = converter("digits.pt2", reference=digits_table, label="digit", root=project, trust=True)
    assert_golden(bundle, digits)


def test_example_inputs_do_instead_of_data(project: Path, converter: Converter) -> None:
    bundle = converter("train:with_examples", root=project)
    assert bundle.manifest.inputs[0].shape == (-1, 64)
    assert b'"rows_from": "generated"' in bundle.file("conversion.json").read_bytes()


def test_without_data_or_examples_it_says_what_to_give(project: Path, converter: Converter) -> None:
    with pytest.raises(InvalidSource, match=r"give a reference data file, or return \(module, example_inputs\)"):
        converter("train:linear", root=project)


def test_parameters_of_forward_are_filled_by_columns_of_their_names(converter: Converter) -> None:
    import torch

    class Pair(torch.nn.Module):
        def forward(self, image: Any, weight: Any) -> Any:
            return image.flatten(1).sum(1, keepdim=True) * weight.unsqueeze(1)

    rng = np.random.default_rng(0)
    table = make_table(
        {"image": rng.normal(size=(9, 2, 3)).astype(np.float32), "weight": rng.normal(size=9).astype(np.float32)}
    )
    bundle = converter(Pair(), reference=table, task="regression")
    assert [(spec.name, spec.shape) for spec in bundle.manifest.inputs] == [("image", (-1, 2, 3)), ("weight", (-1,))]
    assert bundle.manifest.prediction == Prediction("prediction", "value")
    feed = table.feed(bundle.manifest.inputs)
    with Model(bundle) as model:
        answer = model.infer(feed)["prediction"]
    np.testing.assert_allclose(answer[:, 0], feed["image"].sum((1, 2)) * feed["weight"], rtol=1e-4)


def test_a_module_in_training_mode_is_converted_for_inference_and_left_as_it_was(converter: Converter) -> None:
    import torch

    module = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.Dropout(0.9), torch.nn.Softmax(dim=1)).train()
    table = make_table({"a": [0.1, 0.2, 0.3], "b": [1.0, 2.0, 3.0]})
    bundle = converter(module, reference=table)
    assert module.training
    assert bundle.manifest.prediction == Prediction("probabilities", "probabilities")
    assert bundle.manifest.inputs[0].datatype is Datatype.FP32


def test_a_module_that_fixes_the_batch_is_refused(converter: Converter) -> None:
    import torch

    class Fixed(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return x.reshape(2, 2)

    with pytest.raises(InvalidSource, match="cannot export Fixed to ONNX with a free batch axis"):
        converter(Fixed(), reference=make_table({"a": [0.1, 0.2], "b": [1.0, 2.0]}))


def test_a_pickled_module_is_opened_only_with_trust(tmp_path: Path, converter: Converter) -> None:
    import torch

    torch.save(torch.nn.Sequential(torch.nn.Linear(2, 3)), tmp_path / "model.pt")
    with pytest.raises(UntrustedSource, match="is a pickled module"):
        converter("model.pt")
    table = make_table({"a": [0.1, 0.2], "b": [1.0, 2.0]})
    assert converter("model.pt", reference=table, trust=True).manifest.outputs[0].name == "logits"


def test_weights_alone_are_answered_with_what_to_write(tmp_path: Path, converter: Converter) -> None:
    import torch

    torch.save(torch.nn.Linear(2, 3).state_dict(), tmp_path / "weights.pth")
    with pytest.raises(InvalidSource, match=r"weights without the module.*module:callable"):
        converter("weights.pth")


@pytest.mark.parametrize("name", ["broken.pt2", "broken.pt"])
def test_a_broken_file_is_said_to_be_broken(name: str, tmp_path: Path, converter: Converter) -> None:
    (tmp_path / name).write_bytes(b"nothing of the kind")
    with pytest.raises(InvalidSource, match=f"{name} cannot be read"):
        converter(name, trust=True)


def test_torchscript_is_answered_with_what_to_export_instead(tmp_path: Path, converter: Converter) -> None:
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as archive:
        archive.writestr("script/constants.pkl", b"")
    with pytest.raises(InvalidSource, match=r"is TorchScript.*torch\.export\.save"):
        converter("script.pt", trust=True)
