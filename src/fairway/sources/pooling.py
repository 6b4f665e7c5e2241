"""One vector per text from an encoder's token vectors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fairway.core.errors import InvalidSource
from fairway.core.extras import require


def pooled_encoder(encoder: Any, folder: Path) -> Any:
    """``encoder`` followed by what the folder declares, as sentence-transformers does, else by the mean over tokens.

    Raises
    ------
    InvalidSource
        If the folder declares a pooling other than the mean or the first token, or a module of another kind.
    """
    torch: Any = require("torch", extra="huggingface")
    pooling, normalize = _declared(folder)
    first_token = _first_token(pooling)

    class PooledEncoder(torch.nn.Module):  # type: ignore[misc] # torch is untyped here
        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder
            self.config = encoder.config

        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any = None) -> Any:
            more = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
            vectors = self.encoder(input_ids=input_ids, attention_mask=attention_mask, **more).last_hidden_state
            if first_token:
                pooled = vectors[:, 0]
            else:
                weights = attention_mask.unsqueeze(-1).to(vectors.dtype)
                pooled = (vectors * weights).sum(1) / weights.sum(1).clamp(min=1.0)
            return torch.nn.functional.normalize(pooled, dim=-1) if normalize else pooled

    return PooledEncoder()


def _declared(folder: Path) -> tuple[Path, bool]:
    """The folder of the pooling, and whether vectors are normalized after it."""
    file = folder / "modules.json"
    if not file.is_file():
        return folder / "1_Pooling", any(folder.glob("*_Normalize"))
    try:
        modules = [
            (str(each["type"]).rpartition(".")[2], str(each["path"])) for each in json.loads(file.read_text("utf-8"))
        ]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InvalidSource(f"{file} cannot be read: {error}") from None
    if unknown := [kind for kind, _ in modules if kind not in _MODULES]:
        raise InvalidSource(f"{file} declares a module {unknown[0]}; known are {', '.join(_MODULES)}")
    pooling = next((path for kind, path in modules if kind == "Pooling"), "1_Pooling")
    return folder / pooling, any(kind == "Normalize" for kind, _ in modules)


_MODULES = ("Transformer", "Pooling", "Normalize")


def _first_token(folder: Path) -> bool:
    file = folder / "config.json"
    if not file.is_file():
        return False
    declared = json.loads(file.read_text("utf-8"))
    modes = {
        _FORMER.get(mode, mode) for mode, on in declared.items() if mode.startswith("pooling_mode_") and on is True
    }
    named = declared.get("pooling_mode") or ()
    modes |= {named} if isinstance(named, str) else set(map(str, named))
    if modes == {"cls"}:
        return True
    if modes <= {"mean"}:
        return False
    raise InvalidSource(f"{file} declares {', '.join(sorted(modes))}; the mean and the first token are known")


_FORMER = {"pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean"}
"""Names from when each way had a setting of its own."""
