"""Text into token tensors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fairway.core.errors import InvalidBundle, InvalidRequest
from fairway.core.extras import require
from fairway.core.tensors import Tensor, Tensors

_FIELDS = {
    "input_ids": "ids",
    "attention_mask": "attention_mask",
    "token_type_ids": "type_ids",
    "offset_mapping": "offsets",
}


class Tokenize:
    """Run a Hugging Face tokenizer over one BYTES input of shape ``[-1]`` or ``[-1, 1]``.

    Parameters
    ----------
    directory : Path
        Where ``file`` lies.
    file : str
        A ``tokenizer.json``.
    input : str
        The input that holds UTF-8 text. It is replaced by the token tensors; others pass through.
    outputs : sequence of str
        Of ``input_ids``, ``attention_mask`` and ``token_type_ids``: what the graph takes, INT64 ``[rows, tokens]``; and
        ``offset_mapping``, ``[rows, tokens, 2]``: which characters of the text each token is.
    max_length : int
        Longer texts are truncated to this many tokens.
    pad_id : int
        Shorter rows of a batch are filled with this token and masked.
    eos_id : int, default -1
        The token after which a generated text ends; -1 for none.
    """

    def __init__(
        self,
        directory: Path,
        *,
        file: str,
        input: str,
        outputs: Sequence[str],
        max_length: int,
        pad_id: int = 0,
        eos_id: int = -1,
    ) -> None:
        tokenizers = require("tokenizers", extra="text")
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(directory / file))
        except Exception as error:  # noqa: BLE001 (the Rust library raises a bare Exception)
            raise InvalidBundle(f"{file!r} is not a tokenizer: {error}") from None
        self._tokenizer.enable_truncation(max_length)
        self._tokenizer.enable_padding(pad_id=pad_id)
        self._pad_id = pad_id
        self._input = input
        self._outputs = tuple(outputs)
        self.max_length = max_length
        self.eos_id = eos_id

    def __call__(self, tensors: Tensors) -> Tensors:
        """Tokenize every row; rows are padded to the batch's longest."""
        rest = {name: array for name, array in tensors.items() if name != self._input}
        try:
            texts = [item.decode() if isinstance(item, bytes) else str(item) for item in tensors[self._input].ravel()]
        except UnicodeDecodeError as error:
            raise InvalidRequest(f"input {self._input!r} is not UTF-8: {error}") from None
        encoded = self._tokenizer.encode_batch(texts)
        made: dict[str, Tensor] = {
            name: np.array([getattr(row, _FIELDS[name]) for row in encoded], dtype=np.int64) for name in self._outputs
        }
        return {**rest, **made}

    def fill_to_multiple(self, tokens: int) -> None:
        """From now on, fill rows up to a multiple of so many tokens, if ``max_length`` is one."""
        if self.max_length % tokens == 0:
            self._tokenizer.enable_padding(pad_id=self._pad_id, pad_to_multiple_of=tokens)

    def decode(self, tokens: Sequence[int]) -> str:
        """The text that tokens spell, special ones left out."""
        return str(self._tokenizer.decode(list(tokens)))
