"""What a Hugging Face network is wrapped in, so that its graph answers with what a task needs and no more."""

from __future__ import annotations

from typing import Any

from fairway.core.extras import require

OFFSETS = "offset_mapping"


def one_tensor(network: Any) -> Any:
    """The logits, or the network's only tensor."""
    torch: Any = require("torch", extra="huggingface")

    class OneTensor(torch.nn.Module):  # type: ignore[misc] # torch is untyped here
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any = None) -> Any:
            answer = _ask(self.network, input_ids, attention_mask, token_type_ids)
            return answer if isinstance(answer, torch.Tensor) else answer.logits

    return OneTensor()


def tagger(network: Any) -> Any:
    """A score per token and tag, and beside it which characters of the text each token is: callers need both."""
    torch: Any = require("torch", extra="huggingface")

    class Tagger(torch.nn.Module):  # type: ignore[misc] # torch is untyped here
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, input_ids: Any, attention_mask: Any, offset_mapping: Any, token_type_ids: Any = None) -> Any:
            return _ask(self.network, input_ids, attention_mask, token_type_ids).logits, offset_mapping.clone()

    return Tagger()


def language_model(network: Any) -> Any:
    """The log probability of each token after those before it (0 for the first one and for padding), and what comes next.

    A score per token and word of the vocabulary would be megabytes per row; these two are what weighing and writing take.
    """
    torch: Any = require("torch", extra="huggingface")

    class LanguageModel(torch.nn.Module):  # type: ignore[misc] # torch is untyped here
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            logits = self.network(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).logits.float()
            shifted = torch.nn.functional.pad(logits, (0, 0, 1, 0))[:, : logits.shape[1]]  # by the one before
            chosen = shifted.log_softmax(-1).gather(-1, input_ids.unsqueeze(-1)).squeeze(-1)
            real = attention_mask.to(chosen.dtype)
            after_first = (real.cumsum(1) > 1.5).to(chosen.dtype)
            last = (attention_mask.sum(1) - 1).clamp(min=0)
            index = last[:, None, None].expand(-1, 1, logits.shape[-1])
            return chosen * real * after_first, logits.gather(1, index).squeeze(1)

    return LanguageModel()


def _ask(network: Any, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
    more = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
    return network(input_ids=input_ids, attention_mask=attention_mask, **more)
