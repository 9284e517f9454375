"""The sampler that an external model's defaults of generation describe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["sampler_of"]

_LINKS = (
    # Key of generation_config.json, sampler, its field, and the value that changes nothing; in the order of application.
    ("repetition_penalty", "repetition-penalty", "penalty", 1),
    ("no_repeat_ngram_size", "no-repeat-ngram", "n", 0),
    ("temperature", "temperature", "value", 1),
    ("top_h", "top-h", "h", 1),
    ("top_k", "top-k", "k", 0),
    ("top_p", "top-p", "p", 1),
    ("min_p", "min-p", "p", 0),
    ("typical_p", "typical", "p", 1),
    ("epsilon_cutoff", "epsilon", "p", 0),
    ("eta_cutoff", "eta", "epsilon", 0),
)
_TOP_K = 50
"""The value of transformers where sampling is on and no other is named."""


def sampler_of(generation: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Return the sampler, as a spec file has it, for the keys of generation_config.json; None where they name none."""
    if generation.get("do_sample") is False:
        return [{"name": "greedy"}]
    given = {key: generation[key] for key, *_ in _LINKS if _is_number(generation.get(key))}
    if not given and generation.get("do_sample") is not True:
        return None
    given.setdefault("top_k", _TOP_K)
    return [{"name": name, field: given[key]} for key, name, field, neutral in _LINKS if given.get(key, neutral) != neutral]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
