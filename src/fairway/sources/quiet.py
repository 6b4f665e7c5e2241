"""Silence for exporters that print, log and warn about their own insides."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

_CHATTER: tuple[tuple[type[Warning], str], ...] = (
    (FutureWarning, r"`isinstance\(treespec, LeafSpec\)` is deprecated"),
    (UserWarning, r"(?s).*The axis name: .* will not be used, since it shares the same shape constraints"),
    (UserWarning, r"Exporting a model while it is in training mode"),  # said of a wrapper; the model inside is not
    (DeprecationWarning, r"You are using the legacy TorchScript-based ONNX export"),  # Keras's choice of exporter
    (DeprecationWarning, r"The feature will be removed\. Please remove usage of this function"),  # the same one, inside
    (
        Warning,
        r"Converting a tensor to a Python (boolean|integer|float|number) might cause the trace",
    ),  # and its tracer
    (DeprecationWarning, r"__array__ implementation doesn't accept a copy keyword"),
)
_LOGGERS = ("torch.onnx", "torch.export", "transformers", "onnxscript", "onnx_ir")


@contextmanager
def quiet() -> Iterator[None]:
    """Keep known third-party noise from the user, and no other warning."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        for category, message in _CHATTER:
            warnings.filterwarnings("ignore", message, category)
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
