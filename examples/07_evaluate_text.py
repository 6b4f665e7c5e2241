"""A small text classifier, trained here in seconds: which library does a docstring belong to? Then `fairway evaluate`."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pkgutil
import random
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

OUT = Path("example-output/evaluate/docstrings").absolute()
LIBRARIES = ("numpy", "scipy", "sklearn", "matplotlib")
GIVEAWAYS = re.compile(r"\b(numpy|np|scipy|sp|sklearn|scikit-learn|matplotlib|mpl|plt|pyplot)\b", re.IGNORECASE)
PER_LIBRARY, LENGTH = 500, 40

SETTINGS = """\
[model]
name = "docstrings"
task = "classification"
source = "checkpoint"                 # a Hugging Face folder

[data]
test = "test.parquet"
reference = "train.parquet"
label = "label"

[[slices]]
name = "short"
where = "length(text) < 120"

[gate]
accuracy_score = { min = 0.50, slice_min = 0.30 }
latency_p99_ms = { max = 10_000, at_rps = 200 }

[evaluate]
processes = 2
analyses = ["errors", "calibration", "weak_slices", "robustness", "data_checks"]
"""


def docstrings(library: str) -> Iterator[str]:
    """First paragraphs of what the library's public modules define, without the names that would give it away."""
    root = importlib.import_module(library)
    seen: set[str] = set()
    for module in [root, *_modules(root)]:
        for name, found in sorted(vars(module).items()):
            if name.startswith("_") or not str(getattr(found, "__module__", "")).startswith(library):
                continue
            members = (
                [found, *(each for key, each in vars(found).items() if key[0] != "_")]
                if inspect.isclass(found)
                else [found]
            )
            for member in members:
                text = inspect.getdoc(member) if callable(member) else None
                text = GIVEAWAYS.sub("it", " ".join((text or "").split())[:400])
                if len(text) > 40 and text not in seen:
                    seen.add(text)
                    yield text


def _modules(root: Any) -> Iterator[Any]:
    for each in sorted(pkgutil.iter_modules(root.__path__), key=lambda each: each.name):
        if each.name.startswith("_") or each.name in ("conftest", "tests", "testing", "f2py", "pylab", "distutils"):
            continue
        try:
            yield importlib.import_module(f"{root.__name__}.{each.name}")
        except Exception:  # noqa: BLE001 (one that wants what is not installed)
            continue


def write_data() -> list[tuple[str, str]]:
    """Half of the texts to train on, half to test on."""
    rows = []
    for library in LIBRARIES:
        texts = list(docstrings(library))
        random.Random(0).shuffle(texts)
        rows += [(text, library) for text in texts[:PER_LIBRARY]]
    random.Random(1).shuffle(rows)
    half = len(rows) // 2
    for name, part in (("train", rows[:half]), ("test", rows[half:])):
        pq.write_table(pa.table({"text": [r[0] for r in part], "label": [r[1] for r in part]}), OUT / f"{name}.parquet")
    return rows[:half]


def train(rows: list[tuple[str, str]]) -> None:
    """A WordPiece tokenizer and a BERT of one layer, from nothing, saved as a Hugging Face folder."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    torch: Any = importlib.import_module("torch")
    transformers: Any = importlib.import_module("transformers")

    torch.manual_seed(0)
    torch.set_num_threads(1)  # so small a model gains nothing by more, and loses where the machine is busy
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    trainer = trainers.WordPieceTrainer(vocab_size=3000, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator([text for text, _ in rows], trainer)
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=LENGTH, **names)
    config = transformers.BertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=96,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=192,
        max_position_embeddings=LENGTH,
        id2label=dict(enumerate(LIBRARIES)),
        label2id={name: place for place, name in enumerate(LIBRARIES)},
    )
    model = transformers.BertForSequenceClassification(config)
    encoded = fast(
        [text for text, _ in rows], truncation=True, padding="max_length", max_length=LENGTH, return_tensors="pt"
    )
    labels = torch.tensor([LIBRARIES.index(label) for _, label in rows])
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    model.train()
    for epoch in range(5):
        losses = []
        for batch in torch.randperm(len(rows)).split(32):
            loss = model(encoded["input_ids"][batch], encoded["attention_mask"][batch], labels=labels[batch]).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        print(f"epoch {epoch + 1}: loss {sum(losses) / len(losses):.3f}")
    model.save_pretrained(OUT / "checkpoint")
    fast.save_pretrained(OUT / "checkpoint")


def main() -> None:
    missing = [name for name in ("torch", "transformers", "tokenizers") if importlib.util.find_spec(name) is None]
    if missing:
        print(f"skipped: {', '.join(missing)} not installed; pip install 'fairway[huggingface]'")
        return
    OUT.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of modules on their way out
        train(write_data())
    (OUT / "fairway.toml").write_text(SETTINGS)
    command = [sys.executable, "-m", "fairway", "evaluate", "--project", str(OUT)]
    forms = [
        "--html",
        str(OUT / "report.html"),
        "--markdown",
        str(OUT / "report.md"),
        "--junit",
        str(OUT / "report.xml"),
    ]
    done = subprocess.run([*command, *forms], stdout=subprocess.PIPE, text=True, check=False)
    print("\n".join(done.stdout.splitlines()[:24]), "\n  …")
    print(f"exit code {done.returncode}; look at {OUT / 'report.html'}")
    assert done.returncode == 0, done.stdout


if __name__ == "__main__":
    main()
