"""A bundle made runnable: pre-processing, engine, post-processing."""

from __future__ import annotations

from types import TracebackType

import numpy as np
from msgspec import structs

from fairway.bundle.format import Bundle
from fairway.core.errors import UnsupportedMachine
from fairway.core.manifest import Manifest
from fairway.core.processor import int8_sums, processor
from fairway.core.tensors import Tensors, TensorSpec
from fairway.engines.base import load_engine
from fairway.engines.cache import EngineCache
from fairway.processing.steps import load_step
from fairway.processing.text import Tokenize

_TOKENS = 32
"""Texts are filled up to a multiple of so many tokens for an accelerator."""


class Model:
    """One loaded bundle. Synchronous and thread-safe; a context manager.

    An accelerator plans each shape anew when it first meets it, which takes many times as long as to answer. So that it meets
    few, rows are filled up to the next power of two with copies of the last, whose answers are dropped, and texts to a
    multiple of 32 tokens: where rows do not depend on each other, and no output has an axis of tokens.

    Parameters
    ----------
    bundle : Bundle
        Verified by whoever read it.
    threads : int, optional
        Threads of one engine call (0: every core), instead of what the bundle says.
    cache : EngineCache, optional
        What the engine is loaded from, if that is there.

    Attributes
    ----------
    bundle : Bundle
    inputs, outputs : tuple of TensorSpec
        What :meth:`infer` takes and gives.
    raw_inputs, raw_outputs : tuple of TensorSpec
        The same with processing skipped.
    cached : bool
        Whether the engine was loaded from ``cache``.
    """

    def __init__(self, bundle: Bundle, *, threads: int | None = None, cache: EngineCache | None = None) -> None:
        self.bundle = bundle
        self.manifest: Manifest = bundle.manifest
        _check_files(bundle)
        _check_processor(bundle)
        self._pre = tuple(load_step(step, bundle.path) for step in self.manifest.processing.pre)
        self._post = tuple(load_step(step, bundle.path) for step in self.manifest.processing.post)
        spec = self.manifest.engine if threads is None else structs.replace(self.manifest.engine, threads=threads)
        self.cached = False
        if cache is None:
            self._engine = load_engine(spec, bundle.path)
        else:
            self._engine, self.cached = cache.load(spec, bundle)
        self.inputs: tuple[TensorSpec, ...] = self.manifest.inputs
        self.outputs: tuple[TensorSpec, ...] = self.manifest.outputs
        self.raw_inputs = self._engine.inputs
        self.raw_outputs = self._engine.outputs
        specs = (*self.raw_inputs, *self.raw_outputs)
        self._fills = spec.accelerated and spec.batching and all(each.shape[:1] == (-1,) for each in specs)
        if self._fills and self.tokenizer and all(-1 not in each.shape[1:] for each in self.raw_outputs):
            self.tokenizer.fill_to_multiple(_TOKENS)
        self._bare = not (self._pre or self._post or self._fills)

    @property
    def tokenizer(self) -> Tokenize | None:
        """The step that makes tokens of text, if there is one."""
        return next((step for step in self._pre if isinstance(step, Tokenize)), None)

    def infer(self, feed: Tensors, *, raw: bool = False) -> Tensors:
        """Answer all rows of ``feed``, which fits ``inputs`` (``raw_inputs`` if ``raw``)."""
        if self._bare:
            return self._engine.infer(feed)
        if raw:
            return self._run(feed)
        answer = self._run(self.prepare(feed))
        for step in self._post:
            answer = step(answer)
        return answer

    def prepare(self, feed: Tensors) -> Tensors:
        """Pre-process all rows of ``feed``, which fits ``inputs``: what the engine gets, fitting ``raw_inputs``."""
        for step in self._pre:
            feed = step(feed)
        return feed

    def _run(self, feed: Tensors) -> Tensors:
        if not self._fills:
            return self._engine.infer(feed)
        rows = len(next(iter(feed.values())))
        missing = (1 << max(rows - 1, 0).bit_length()) - rows
        if not missing or not rows:
            return self._engine.infer(feed)
        filled = {name: np.concatenate([array, np.repeat(array[-1:], missing, axis=0)]) for name, array in feed.items()}
        return {name: array[:rows] for name, array in self._engine.infer(filled).items()}

    def close(self) -> None:
        """Free the engine."""
        self._engine.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _check_processor(bundle: Bundle) -> None:
    """Weights of 8 bits answer otherwise where sums of their products saturate, so that what was evaluated would not hold.

    Raises
    ------
    UnsupportedMachine
        If this processor adds them up otherwise than the one that the bundle was made on.
    """
    manifest = bundle.manifest
    there = manifest.lineage.environment.get("int8_sums", "")
    if not there or not any(record.parameters.get("reduce_range") is False for record in manifest.recipe):
        return
    if (here := int8_sums()) and here != there:
        lacks = "lacks VNNI instructions" if here == "saturating" else "has VNNI instructions, which that one lacked"
        raise UnsupportedMachine(
            f"{bundle.path.name} has weights of 8 bits (reduce_range = false) and was evaluated on "
            f"{manifest.lineage.environment.get('cpu', 'another CPU')}; this CPU ({processor()}) {lacks}, and would answer "
            "otherwise. Serve it on a CPU like that one, or optimize the model again with reduce_range = true"
        )


def _check_files(bundle: Bundle) -> None:
    """Whatever the engine and the steps read was verified with the bundle: nothing beside or outside it."""
    processing = bundle.manifest.processing
    named = [step.parameters["file"] for step in (*processing.pre, *processing.post) if "file" in step.parameters]
    for name in (bundle.manifest.engine.file, *named):
        bundle.file(str(name))
