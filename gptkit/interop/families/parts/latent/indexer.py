"""The indexer of sparse latent attention, which chooses the keys of each query."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from gptkit.interop.families.parts.layers import read_types
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Layout

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["INDEXER", "INDEX_SIZES", "RotatedLast", "only_indexed", "read_indexers", "read_sparse_latent", "write_indexers"]

INDEX_SIZES = {"top_k": ("index_topk", 2048), "index_heads": ("index_n_heads", 64), "d_index": ("index_head_dim", 128)}
"""Keys of the indexer's sizes and their defaults, by the fields of `sparse-latent`."""
INDEXER = {"query": "wq_b", "key": "wk", "key_norm": "k_norm", "weights": "weights_proj"}
"""External names of the indexer's tensors, by the native ones."""


class RotatedLast(Layout):
    """Features of an indexer whose last ones are rotated; here these are the first ones."""

    def join(self, parts: Sequence[Tensor], layer: Any) -> Tensor:
        return self._rolled(parts[0], layer, layer.attention.d_rotary)

    def split(self, tensor: Tensor, layer: Any) -> list[Tensor]:
        return [self._rolled(tensor, layer, -layer.attention.d_rotary)]

    def _rolled(self, tensor: Tensor, layer: Any, shift: int) -> Tensor:
        heads = tensor.reshape(-1, layer.attention.d_index, *tensor.shape[1:])
        return heads.roll(shift, dims=1).reshape(tensor.shape)


def only_indexed(config: ExternalConfig) -> None:
    """Refuse layers of other types than those with an indexer, whose type has had two names."""
    kinds = ("indexed_attention", "deepseek_sparse_attention")
    every = ([kind] * config.layers("num_hidden_layers") for kind in kinds)
    config.only("layer_types", *every, why="the family has nothing else")


def read_sparse_latent(
    config: ExternalConfig, latent: dict[str, Any], size: Callable[[ExternalConfig, str, int], int]
) -> dict[str, Any]:
    """Return latent attention with an indexer.

    Args:
        config: the configuration.
        latent: the same attention without one.
        size: what reads a size (`LatentAttention.size`).
    """
    if latent["q_rank"] is None:
        config.refuse("q_lora_rank", "the indexer needs the latent of the queries")
    return {**latent, "name": "sparse-latent", **{own: size(config, *key) for own, key in INDEX_SIZES.items()}}


def read_indexers(config: ExternalConfig, n_layers: int, usual: Sequence[str]) -> list[dict[str, Any]]:
    """Return what each layer overrides for the choice of keys: its own, or that of the last layer with an indexer."""
    types = read_types(config, n_layers, usual, ("full", "shared"), "indexer_types")
    if types[0] != "full":
        config.refuse("indexer_types", "the first layer should be full, since others use the choice of an earlier one")
    return [{"attention": {"indexer": "previous"}} if each == "shared" else {} for each in types]


def write_indexers(layers: Sequence[Any]) -> dict[str, Any]:
    """Return the keys of the indexers' sizes, and of which layers have one."""
    first = next(layer.attention for layer in layers if layer.attention.name == "sparse-latent")
    types = ["full" if layer.attention.indexer == "own" else "shared" for layer in layers]
    return {**{key: getattr(first, own) for own, (key, _) in INDEX_SIZES.items()}, "indexer_types": types}
