"""Comparison of the logits of an export with those of the exported model.

Shapes: T tokens, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gptkit.core.errors import TokenizerError
from gptkit.kinds.tokenizer import Tokenizer

__all__ = ["difference", "sample_ids"]

_TEXT = """Once upon a time there was a miller who had three sons. When he died, the eldest got the mill, the second the
donkey, and the youngest nothing but the cat. "What shall I do with a cat?" he said. "I can have a pair of gloves from its
fur, and that is all." The cat had understood every word, and answered: "You need not kill me. Give me a bag and a pair of
boots, so that I can walk among people, and in 12 days you will see that things are not as bad as you think." """


def sample_ids(tokenizer: Tokenizer, n_tokens: int, n_rows: int) -> Tensor:
    """Return the ids of a text, or of all tokens in turn where the tokenizer does not encode it."""
    try:
        ids = tokenizer.encode(_TEXT)[:n_tokens]
    except TokenizerError:
        ids = []
    if len(ids) < 2 or max(ids) >= n_rows:
        ids = [index % n_rows for index in range(n_tokens)]
    return torch.tensor([ids])


def difference(own_TV: Tensor, other_TV: Tensor) -> str:
    """Return a sentence about how much the logits of the model and of its export differ."""
    largest = float((own_TV - other_TV).abs().max())
    own, other = own_TV.log_softmax(-1), other_TV.log_softmax(-1)
    divergence = float((own.exp() * (own - other)).sum(-1).mean())
    n_equal, n_tokens = int((own.argmax(-1) == other.argmax(-1)).sum()), len(own)
    return (
        f"compared on {n_tokens} tokens: largest logit difference {largest:.2g} (largest logit "
        f"{float(own_TV.abs().max()):.3g}), KL divergence {max(0.0, divergence):.2g} nats per token, same most likely token "
        f"at {n_equal} of {n_tokens} positions"
    )
