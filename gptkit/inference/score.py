"""Log-probability of a text under a model.

Shapes: T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gptkit.core.errors import GptkitError
from gptkit.inference.modes import evaluating
from gptkit.inference.protocol import LanguageModel

__all__ = ["score"]


@torch.inference_mode()
def score(model: LanguageModel, ids: Sequence[int] | Tensor, *, chunk: int = 256) -> Tensor:
    """Return the log-probability of each token given the preceding ones: ln P(ids[t] | ids[:t]) for t = 1 … T - 1.

    A text longer than the context length is scored with a sliding context that keeps its second half, so that every token
    has at least half a context of preceding tokens. Only the logits of `chunk` tokens are held at once. The perplexity of
    the text is ``score(model, ids).mean().neg().exp()``. Dropout is disabled.

    Args:
        model: the model.
        ids: the tokens of one text.
        chunk: number of tokens per forward pass.

    Returns:
        (T - 1,) fp32 in nats, on the CPU; empty for fewer than two tokens.

    Raises:
        GptkitError: an id is outside the model's vocabulary.
    """
    ids_T = torch.as_tensor(ids, dtype=torch.long).flatten().to(model.device)
    n_tokens = ids_T.shape[0]
    if n_tokens < 2:
        return torch.zeros(0)
    lowest, highest = ids_T.aminmax()
    if lowest < 0 or highest >= model.vocab_size:
        wrong = int(lowest if lowest < 0 else highest)
        raise GptkitError(
            f"the text contains token {wrong}, but the model's vocabulary has {model.vocab_size} tokens",
            hint="Use the model's tokenizer.",
        )
    with evaluating(model):
        return _score(model, ids_T, max(1, chunk))


def _score(model: LanguageModel, ids_T: Tensor, chunk: int) -> Tensor:
    n_read = ids_T.shape[0] - 1
    limit = model.context_length
    cache = model.new_cache(1, capacity=min(limit, n_read))
    scores: list[Tensor] = []
    at = 0
    while at < n_read:
        if cache.length >= cache.capacity:
            # Together with the next token, half a context, as in `generate` with a sliding context.
            keep = max(1, limit // 2) - 1
            cache = model.new_cache(1, capacity=min(limit, keep + n_read - at))
            if keep:
                model(ids_T[None, at - keep : at], cache=cache, last_only=True)
        end = min(n_read, at + chunk, at + cache.capacity - cache.length)
        logits_TV: Tensor = model(ids_T[None, at:end], cache=cache).logits[0]
        log_p_TV = logits_TV.float().log_softmax(dim=-1)
        scores.append(log_p_TV.gather(-1, ids_T[at + 1 : end + 1, None])[:, 0].cpu())
        at = end
    return torch.cat(scores)
