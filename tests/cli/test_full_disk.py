"""A disk that is full while a report is written: an error that names the file, and the report of before is still whole."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fairway.cli.output import write_file
from fairway.core.errors import InvalidConfig


@contextmanager
def full_after(size_bytes: int) -> Iterator[None]:
    """No file grows beyond that: the kernel refuses the write, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_report_that_does_not_fit_leaves_the_one_of_before(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    write_file(page, "before")
    with full_after(10_000), pytest.raises(InvalidConfig, match=r"cannot write .*report\.html: File too large"):
        write_file(page, "x" * 100_000)
    assert page.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
