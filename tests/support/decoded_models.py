"""Small models with each form of cache, whose greedy texts are diverse."""

from __future__ import annotations

from typing import Any

import torch

from gptkit.components.sampler.greedy import GreedySpec
from gptkit.components.tokenizer.byte import ByteTokenizer
from gptkit.model.gpt import GPT

__all__ = ["GREEDY", "MODELS", "SCHEDULED", "TOKENIZER", "decoded_model"]

TOKENIZER = ByteTokenizer(["<|end|>"], end="<|end|>")
GREEDY = (GreedySpec(),)

MODELS: dict[str, dict[str, Any]] = {
    "rotary": {},
    "learned": {"position": "learned", "norm": "layer", "feedforward": "mlp"},
    "alibi": {"position": "alibi", "attention": {"name": "grouped-query", "n_heads": 4, "n_kv_heads": 2}},
    "window": {"layers": [{"repeat": 1, "attention": {"window": 5}}, {"repeat": 1, "position": "none"}]},
}
SCHEDULED = {
    **MODELS,
    "recurrent": {"layers": [{"attention": {"name": "gated-delta"}, "position": "none"}, {"attention": {"window": 5}}]},
    "latent": {"attention": {"name": "latent"}},
    "dynamic": {
        "position": {"name": "rotary", "scaling": {"name": "dynamic", "factor": 2.0, "original_context_length": 12}}
    },
}
"""Also models whose caches hold more than keys and values of all tokens."""


def decoded_model(name: str, context_length: int, **parts: Any) -> GPT:
    """Return the model of `SCHEDULED`, with further parts, with random weights."""
    spec = {
        "d_model": 32,
        "n_layers": 2,
        "context_length": context_length,
        "attention": {"name": "multi-head", "n_heads": 4},
    }
    made = GPT({**spec, **SCHEDULED[name], **parts}, vocab_size=TOKENIZER.vocab_size).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in made.parameters():
            # Large enough that texts are diverse; the model is untrained.
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return made
