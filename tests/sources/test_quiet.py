"""Exporters are silenced where their noise is known, and nowhere else."""

from __future__ import annotations

import logging
import sys
import warnings

import pytest

from fairway.sources.quiet import quiet


def test_known_noise_is_kept_from_the_user(capfd: pytest.CaptureFixture[str]) -> None:
    with quiet():
        sys.stdout.write("Obtain model graph")
        sys.stderr.write("progress")
        warnings.warn("`isinstance(treespec, LeafSpec)` is deprecated, use something else", FutureWarning, stacklevel=1)
    assert capfd.readouterr() == ("", "")


def test_other_warnings_pass() -> None:
    with pytest.warns(UserWarning, match="your weights look odd"), quiet():
        warnings.warn("your weights look odd", UserWarning, stacklevel=1)


def test_loggers_are_left_as_they_were_even_after_an_error() -> None:
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    seen = []

    def fail() -> None:
        with quiet():
            seen.append(logger.level)
            raise ValueError("failed")

    with pytest.raises(ValueError, match="failed"):
        fail()
    assert seen == [logging.CRITICAL]
    assert logger.level == before
