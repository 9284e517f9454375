"""Sizes of caches, from the meta device: blocks may call one attention several times, with a state for each call."""

from __future__ import annotations

import torch

from gptkit.kinds.block import BlockSpec
from gptkit.model.cache import Cache
from gptkit.model.gpt import GPT
from gptkit.nn.cache.state import Stateful

__all__ = ["cache_bytes_per_token", "whole_cache"]


def cache_bytes_per_token(model: GPT, dtype: torch.dtype) -> float:
    """Return the memory of one more token in the cache of a row, in bytes; 0 if all states are of fixed size."""
    if not _calls_repeatedly(model):
        return sum(module.state_bytes_per_token(dtype) for module in model.stateful)
    sites = whole_cache(model).states.by_call_site()
    return sum(model.stateful[index].state_bytes_per_token(dtype) for index, _ in sites)


def whole_cache(model: GPT) -> Cache:
    """Return a cache of one row on the meta device, with the states of all calls."""
    model = model if model.device.type == "meta" else GPT(model.spec, model.vocab_size, device="meta", dtype=model.dtype)
    cache = model.new_cache(1)
    if _calls_repeatedly(model):
        with torch.no_grad():
            model(torch.zeros(1, 1, dtype=torch.int64, device="meta"), cache=cache)
    return cache


def _calls_repeatedly(model: GPT) -> bool:
    repeats = any(isinstance(part, BlockSpec) and part.repeats_attention for part in model.spec.components())
    return repeats or any(isinstance(module, Stateful) for module in model.shared.modules())
