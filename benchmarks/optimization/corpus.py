"""A text task that ships with the installed packages: which library is this passage of documentation from?

Passages are cut from docstrings, found by parsing (nothing is imported). The libraries' names are masked. Whole files go
to one side of the split, so no docstring is on both.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import random
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

from benchmarks.optimization.tables import Rows

LIBRARIES = (
    "matplotlib", "networkx", "numpy", "pandas", "scipy", "sklearn", "sqlalchemy", "sympy", "torch", "transformers",
)  # fmt: skip
WORDS = 44
"""Words in a passage: about 64 tokens of the vocabulary made here."""
TRAIN, TEST = 18_000, 4_000

_NAMES = re.compile(
    r"\b(?:matplotlib|mpl|plt|pyplot|networkx|nx|numpy|np|pandas|pd|scipy|sklearn|scikit[- ]learn|sqlalchemy|sqla|sa|"
    r"sympy|torch|pytorch|transformers|hugging ?face)\b",
    re.IGNORECASE,
)


def passages() -> tuple[Rows, Rows]:
    """Training and test rows, balanced over the libraries; the same for the same installed packages."""
    sides: dict[bool, Rows] = {True: [], False: []}
    for label, library in enumerate(LIBRARIES):
        found: dict[bool, list[str]] = {True: [], False: []}
        for test, text in _passages(library):
            found[test].append(text)
        for test, most in ((True, TEST), (False, TRAIN)):
            kept = sorted(set(found[test]) - (set() if test else set(found[True])))
            random.Random(label).shuffle(kept)
            sides[test] += [(text, label) for text in kept[: most // len(LIBRARIES)]]
    for rows in sides.values():
        random.Random(0).shuffle(rows)
    return sides[False], sides[True]


def _passages(library: str) -> Iterator[tuple[bool, str]]:
    """Whether it is a test passage, and the passage."""
    for held_out, text in docstrings(library):
        words = masked(text)
        for start in range(0, len(words) - WORDS // 2, WORDS):
            yield held_out, " ".join(words[start : start + WORDS])


def masked(text: str) -> list[str]:
    """The words of a text, without the libraries' names."""
    return _NAMES.sub("lib", text).split()


def docstrings(package: str, *, files: int | None = None) -> Iterator[tuple[bool, str]]:
    """Docstrings of an installed package, or of a folder in one such as ``scipy/stats``, and whether the file is held out."""
    library, _, folder = package.partition("/")
    spec = importlib.util.find_spec(library)
    assert spec
    assert spec.origin
    root = Path(spec.origin).parent / folder
    chosen = [file for file in sorted(root.rglob("*.py")) if "test" not in file.relative_to(root).as_posix()]
    for file in chosen[:files]:
        held_out = hashlib.sha256(file.relative_to(root).as_posix().encode()).digest()[0] < 64
        for text in _of_file(file):
            yield held_out, text


def _of_file(file: Path) -> Iterator[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(file.read_text("utf-8"))
    except (SyntaxError, ValueError, RecursionError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module):
            yield ast.get_docstring(node) or ""
