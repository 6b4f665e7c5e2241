"""Threads that run a model's long calls give way to the event loop, which answers the short ones."""

from __future__ import annotations

import os
import sys
import threading

import httpx
import pytest

from fairway.bundle.format import Bundle
from fairway.serving.app import serve
from fairway.serving.niceness import RUNNING
from fairway.serving.settings import ServeSettings
from tests.serving.conftest import request_of


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a thread has no niceness of its own")
def test_an_engine_thread_is_nicer_than_the_process(bundles: tuple[Bundle, ...]) -> None:
    with serve(bundles[:1], settings=ServeSettings(port=0, inline_us=0)) as running:
        assert httpx.post(f"{running.url}/v2/models/linear/infer", json=request_of()).status_code == 200
        (engine,) = [thread for thread in threading.enumerate() if thread.name.startswith("linear:1")]
        assert engine.native_id is not None
        nicer = os.getpriority(os.PRIO_PROCESS, engine.native_id) - os.getpriority(os.PRIO_PROCESS, os.getpid())
    assert nicer == RUNNING
