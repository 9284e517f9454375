"""RWKV-4: norms of layers whose output transformers halves, and where the tensors of layers are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Layout, Rule

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["factors", "read_norms", "rules", "write_norms"]

FINAL = 1e-5
"""The eps of the norm before the head, which transformers' configurations do not have."""

PROJECTIONS = ("key", "value", "receptance", "output")
NAMES = {
    "attention_norm": "ln1",
    "attention.decay": "attention.time_decay",
    "attention.bonus": "attention.time_first",
    **{f"attention.{each}": f"attention.{each}" for each in PROJECTIONS},
    "feedforward_norm": "ln2",
    "receptance": "feed_forward.receptance",
    "feedforward.up": "feed_forward.key",
    "feedforward.down": "feed_forward.value",
}


class Rows(Layout):
    """External tensors (1, 1, features) as the rows of one matrix."""

    def join(self, parts: Sequence[Tensor], layer: Any) -> Tensor:
        import torch

        return torch.stack([part.flatten() for part in parts])

    def split(self, tensor: Tensor, layer: Any) -> list[Tensor]:
        return [row[None, None] for row in tensor]


def read_norms(config: ExternalConfig, n_layers: int) -> list[dict[str, Any]]:
    """Return the norm of each layer, and the final one.

    After every `rescale_every` layers transformers halves the vectors, and the weights of what is added to them later. Only
    norms notice, because of their eps: it is four times as large in place of that.
    """
    eps, every = config.number("layer_norm_epsilon", 1e-5), config.integer("rescale_every", 6)
    halvings = [index // every if every > 0 else 0 for index in range(n_layers + 1)]
    if halvings[-1] > 60:
        config.refuse("rescale_every", f"vectors would be halved {halvings[-1]} times, 60 times at most are supported")
    sizes = [eps] * n_layers + [FINAL]
    return [{"name": "layer", "eps": size * 4.0**times} for size, times in zip(sizes, halvings, strict=True)]


def write_norms(layers: Sequence[Any], final: Any) -> dict[str, Any]:
    """Return the keys of which `read_norms` makes the eps of these norms, if there are any."""
    usual = layers[0].norm.eps
    sizes = [*(layer.norm.eps / usual for layer in layers), final.eps / FINAL]
    return {"layer_norm_epsilon": usual, "rescale_every": next((at for at, size in enumerate(sizes) if size != 1), 0)}


def factors(layers: Sequence[Any]) -> dict[str, float]:
    """Return by how much the vectors and outputs of layers are larger than transformers' halved ones."""
    sizes = [math.sqrt(layer.norm.eps / layers[0].norm.eps) for layer in layers]
    names = ("", ".attention", ".feedforward")
    return {f"blocks.{index}{name}": size for index, size in enumerate(sizes) for name in names}


def rules() -> list[Rule]:
    """Where the tensors of the layers are."""
    own, layer = "blocks.*", "rwkv.blocks.*"
    return [
        *(Rule(f"{own}.{name}", f"{layer}.{external}") for name, external in NAMES.items()),
        Rule(f"{own}.attention.mix", f"{layer}.attention.time_mix_{{key,value,receptance}}", Rows()),
        Rule(f"{own}.mix", f"{layer}.feed_forward.time_mix_{{key,receptance}}", Rows()),
    ]
