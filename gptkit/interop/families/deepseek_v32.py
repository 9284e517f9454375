"""DeepSeek V3.2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.deepseek_v3 import DeepseekV3Family
from gptkit.interop.families.parts.experts import read_sparse, write_sparse
from gptkit.interop.families.parts.latent import INDEX_SIZES, INDEXER, latent, only_indexed, read_sparse_latent
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["DeepseekV32Family"]


class DeepseekV32Family(DeepseekV3Family):
    """DeepSeek V3.2: DeepSeek V3 with an indexer that chooses the keys of each query."""

    name: Literal["deepseek-v32"] = "deepseek-v32"  # type: ignore[assignment]
    model_type: ClassVar[str] = "deepseek_v32"
    architecture: ClassVar[str] = "DeepseekV32ForCausalLM"
    tiny: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {**DeepseekV3Family.tiny[0], "index_topk": 6, "index_n_heads": 24, "index_head_dim": 12},
    )
    index_layout: ClassVar[str] = "half"
    """Layout in which the indexer rotates."""
    n_dense: ClassVar[int] = 3
    """`first_k_dense_replace` where the configuration has none."""

    def model(self, config: ExternalConfig) -> dict[str, Any]:
        config.only("rope_interleave", True, why="transformers rotates pairs in this family")
        only_indexed(config)
        return super().model(config)

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        sparse = read_sparse_latent(config, super().read_attention(config), self.size)
        return {**sparse, "index_layout": self.index_layout}

    def read_layers(self, config: ExternalConfig, n_layers: int) -> Sequence[dict[str, Any]]:
        plain = {"feedforward": self.read_dense(config)}
        sparse = read_sparse(config, n_layers, config.integer("first_k_dense_replace", self.n_dense))
        return [{} if each else plain for each in sparse]

    def write_attention(self, layers: Sequence[Any]) -> dict[str, Any]:
        attention = latent(layers).attention
        sizes = {key: getattr(attention, own) for own, (key, _) in INDEX_SIZES.items()}
        return {**super().write_attention(layers), **sizes}

    def write_feedforward(self, layers: Sequence[Any]) -> dict[str, Any]:
        result = super().write_feedforward(layers)
        del result["first_k_dense_replace"]
        return {**result, **write_sparse(layers)}

    def rules(self, model: Any) -> list[Rule]:
        native, external = "blocks.*.attention.indexer", "model.layers.*.self_attn.indexer"
        return [*(Rule(f"{native}.{own}", f"{external}.{name}") for own, name in INDEXER.items()), *super().rules(model)]
