"""Names and rows of a model's weights in its export with generated code."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from gptkit.ejection.hugging_face.head import Head
from gptkit.ejection.hugging_face.interface import PACKED_ATTENTION
from gptkit.ejection.hugging_face.layers import Layers

__all__ = ["HEAD", "Weight", "external_weights"]

_PACKED = re.compile(r"(blocks\.(\d+)\..*)\b(qkv|gate_up)\.(weight|bias)")
HEAD = {
    "weight": "lm_head.weight",
    "projection.weight": "lm_head.weight",
    "bias": "lm_head.bias",
    "project.weight": "head_projection.weight",
}
"""Names of a head's weights in the export."""


@dataclass(frozen=True)
class Weight:
    """A tensor of the export: some rows of a native one.

    Attributes:
        name: its name in the export.
        native: the native tensor.
        rows: the first row and the one after the last; None for all.
    """

    name: str
    native: str
    rows: tuple[int, int] | None = None


def external_weights(native: str, shape: Sequence[int], layers: Layers, head: Head) -> list[Weight]:
    """Return the tensors of the export that a native tensor becomes; none for one that only training uses."""
    if native.startswith(head.unused):
        return []
    if native.startswith(head.prefix):
        return [Weight(HEAD[native.removeprefix(head.prefix)], native)]
    packed = _PACKED.fullmatch(native)
    # The projections of experts are stacked, with one more dimension, and remain packed.
    if packed is None or not layers.interface or len(shape) != (2 if packed[4] == "weight" else 1):
        return [Weight(f"model.{native}", native)]
    if packed[3] == "gate_up":
        sizes = {"gate": shape[0] // 2, "up": shape[0] // 2}
    else:
        heads = layers.heads(int(packed[2]))
        assert heads is not None
        n_heads, n_kv_heads, d_head = heads
        every = {"q": n_heads, "k": n_kv_heads, "v": n_kv_heads, "gate": n_heads}
        sizes = {name: every[name] * d_head for name in PACKED_ATTENTION}
        if sum(sizes.values()) > shape[0]:
            del sizes["gate"]
    result, first = [], 0
    for name, size in sizes.items():
        result.append(Weight(f"model.{packed[1]}{name}.{packed[4]}", native, (first, first + size)))
        first += size
    assert first == shape[0], native
    return result
