"""Text into token tensors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from fairway.core.errors import InvalidBundle, InvalidRequest
from fairway.core.manifest import Step
from fairway.core.tensors import Tensor
from fairway.processing.steps import Transform, load_step

PAD, UNKNOWN, START, END = 9, 0, 1, 2
VOCABULARY = {"[UNK]": UNKNOWN, "[CLS]": START, "[SEP]": END, "good": 3, "film": 4, "[PAD]": PAD}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = Tokenizer(models.WordLevel(VOCABULARY, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", START), ("[SEP]", END)]
    )
    path: Path = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save(str(path / "tokenizer.json"))
    return path


@pytest.fixture(scope="module")
def tokenize(folder: Path) -> Transform:
    return load_step(
        Step(
            "tokenize",
            {
                "file": "tokenizer.json",
                "input": "text",
                "outputs": ["input_ids", "attention_mask", "token_type_ids"],
                "max_length": 6,
                "pad_id": PAD,
            },
        ),
        folder,
    )


def texts(*items: str | bytes) -> Tensor:
    array = np.empty(len(items), dtype=object)
    array[:] = [item.encode() if isinstance(item, str) else item for item in items]
    return array


def test_rows_are_padded_to_the_longest_of_their_batch_and_masked(tokenize: Transform) -> None:
    made = tokenize({"text": texts("good film", "good")})
    assert made["input_ids"].tolist() == [[START, 3, 4, END], [START, 3, END, PAD]]
    assert made["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]
    assert made["token_type_ids"].tolist() == [[0, 0, 0, 0], [0, 0, 0, 0]]
    assert all(array.dtype == np.int64 for array in made.values())


def test_long_texts_are_truncated_and_keep_their_end_token(tokenize: Transform) -> None:
    ids = tokenize({"text": texts("good " * 50)})["input_ids"]
    assert ids.tolist() == [[START, 3, 3, 3, 3, END]]


def test_the_text_input_is_replaced_and_others_pass_through(tokenize: Transform) -> None:
    other = np.ones((1, 2), np.float32)
    made = tokenize({"text": texts("good"), "other": other})
    assert set(made) == {"input_ids", "attention_mask", "token_type_ids", "other"}
    assert made["other"] is other


def test_a_column_of_texts_is_taken_too(tokenize: Transform) -> None:
    column = texts("good", "film").reshape(-1, 1)
    assert tokenize({"text": column})["input_ids"].tolist() == [[START, 3, END], [START, 4, END]]


def test_bytes_that_are_no_text_are_the_callers_fault(tokenize: Transform) -> None:
    with pytest.raises(InvalidRequest, match="'text' is not UTF-8"):
        tokenize({"text": texts("good", b"\xff\xfe")})


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.text(max_size=30), min_size=1, max_size=6))
def test_a_row_gets_the_same_tokens_whatever_it_is_batched_with(rows: list[str], tokenize: Transform) -> None:
    together = tokenize({"text": texts(*rows)})
    assert all(len(array) == len(rows) for array in together.values())
    for index, row in enumerate(rows):
        alone = tokenize({"text": texts(row)})["input_ids"][0]
        kept = together["attention_mask"][index].astype(bool)
        assert together["input_ids"][index][kept].tolist() == alone.tolist()
        assert (together["input_ids"][index][~kept] == PAD).all()


def test_a_file_that_is_no_tokenizer_is_a_broken_bundle(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    step = Step("tokenize", {"file": "tokenizer.json", "input": "text", "outputs": ["input_ids"], "max_length": 6})
    with pytest.raises(InvalidBundle, match=r"'tokenizer\.json' is not a tokenizer"):
        load_step(step, tmp_path)
