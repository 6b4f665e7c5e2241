"""Keep a talkative library quiet, and its temporary files where they can be found and removed."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

_LOCK = threading.Lock()


@contextlib.contextmanager
def quiet(scratch: Path) -> Iterator[None]:
    """Within, prints and records on the root logger vanish, and temporary files go below ``scratch``.

    ONNX Runtime's quantizer prints, calls ``logging.warning`` (which also installs a handler where there is none), and
    writes graphs to the system's temporary directory, which is often too small for a model.
    """
    import onnxruntime

    root, handler, before = logging.getLogger(), logging.NullHandler(), tempfile.tempdir
    with _LOCK, contextlib.redirect_stdout(io.StringIO()):
        root.addHandler(handler)
        root.addFilter(_nothing)
        onnxruntime.set_default_logger_severity(4)
        tempfile.tempdir = str(scratch)
        try:
            yield
        finally:
            tempfile.tempdir = before
            onnxruntime.set_default_logger_severity(2)
            root.removeFilter(_nothing)
            root.removeHandler(handler)


def _nothing(_: logging.LogRecord) -> bool:
    return False
