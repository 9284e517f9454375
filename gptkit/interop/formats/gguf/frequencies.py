"""Divisors of the rotary frequencies: the form in which llama.cpp stores Llama 3's scaling."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gptkit.core.errors import ExternalModelError

__all__ = ["FREQUENCIES", "read_rope_factors", "rope_factors"]

FREQUENCIES = "rope_freqs.weight"
"""Name of the tensor."""
_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
_TRAINED = tuple(2**power for power in range(4, 21))
"""Context lengths that a scaled model may have been trained with; the factors are compared for each."""


def rope_factors(config: Mapping[str, Any]) -> Tensor | None:
    """Return the tensor `FREQUENCIES` for a configuration with Llama 3's scaling; None without it."""
    scaling = config.get("rope_scaling") or {}
    if scaling.get("rope_type") != "llama3":
        return None
    d_head, base, factor = _d_head(config), config["rope_theta"], scaling["factor"]
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    trained = scaling["original_max_position_embeddings"]
    factors = []
    for index in range(0, d_head, 2):
        turns = trained / (2 * math.pi * base ** (index / d_head))
        share = min(1.0, max(0.0, (turns - low) / (high - low)))
        factors.append(1 / ((1 - share) / factor + share))
    return torch.tensor(factors, dtype=torch.float32)


def read_rope_factors(config: Mapping[str, Any], stored: Tensor, location: str) -> dict[str, Any]:
    """Return the scaling of rotary positions that gives these factors.

    Raises:
        ExternalModelError: no known scaling does.
    """
    largest = float(stored.max()) if stored.numel() else 0.0
    sound = 1 <= largest < 1e6 and config["rope_theta"] > 1 and 2 * stored.numel() == _d_head(config)
    for trained in _TRAINED if sound else ():
        scaling = {
            "rope_type": "llama3",
            "factor": round(largest, 4),
            **_LLAMA3,
            "original_max_position_embeddings": trained,
        }
        expected = rope_factors({**config, "rope_scaling": scaling})
        if expected is not None and torch.allclose(expected, stored.float(), rtol=1e-4):
            return scaling
    raise ExternalModelError(f"{location}: {FREQUENCIES} is an unsupported scaling of rotary positions")


def _d_head(config: Mapping[str, Any]) -> int:
    return int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])
