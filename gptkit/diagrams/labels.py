"""Short names of the types of layers in a model, from what distinguishes them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gptkit.model.spec import LayerSpec

__all__ = ["labels"]


def labels(layers: Sequence[LayerSpec]) -> list[str]:
    """Return a name for each type: ``sliding`` and ``full``, ``gated`` and ``experts``; letters if these words are equal.

    A single type has an empty name.
    """
    if len(layers) < 2:
        return [""] * len(layers)
    aspects = list(map(_aspects, layers))
    count = len(aspects[0])
    # The fewest aspects that differ between all types.
    for chosen in (each for size in range(1, count + 1) for each in combinations(range(count), size)):
        words = [" ".join(of[index] for index in chosen if of[index]) for of in aspects]
        if len(set(words)) == len(layers) and all(words):
            return words
    return [chr(ord("A") + index % 26) * (1 + index // 26) for index in range(len(layers))]


def _aspects(layer: LayerSpec) -> tuple[str, ...]:
    position = "no position" if layer.position.name == "none" else layer.position.name
    reach = ""
    if "window" in type(layer.attention).model_fields:
        reach = "sliding" if getattr(layer.attention, "window", None) else "full"
        reach = "chunked" if getattr(layer.attention, "chunk", None) else reach
    return (
        layer.attention.name,
        reach,
        "shared keys" if getattr(layer.attention, "reuse_kv", False) else "",
        position if layer.attention.accepts else "",
        layer.feedforward.name,
        layer.block.name,
    )
