"""Hunyuan 4."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.parts import hy_v4
from gptkit.interop.families.parts.experts import read_groups, read_sparse
from gptkit.interop.families.parts.latent import LatentDecoder, only_indexed, read_indexers, read_sparse_latent
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["HunyuanV4Family"]


class HunyuanV4Family(LatentDecoder):
    """Hunyuan 4: sparse latent attention with gates and sinks, residual streams that are not mixed, clamped experts."""

    name: Literal["hunyuan4"] = "hunyuan4"
    model_type: ClassVar[str] = "hy_v4"
    architecture: ClassVar[str] = "HYV4ForCausalLM"
    harmless: ClassVar[frozenset[str]] = LatentDecoder.harmless | {"learnable_sink_init"}
    renames: ClassVar[tuple[tuple[str, str], ...]] = hy_v4.RENAMES
    ignored: ClassVar[tuple[str, ...]] = (*LatentDecoder.ignored, r"model\.mtp_layers\..*")
    eps: ClassVar[tuple[str, float]] = ("rms_norm_eps", 1e-5)
    sizes: ClassVar[Mapping[str, int]] = {
        "qk_nope_head_dim": 192,
        "v_head_dim": 256,
        "index_n_heads": 16,
        "n_shared_experts": 1,
    }
    tiny: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {key: value for key, value in LatentDecoder.tiny[0].items() if key != "first_k_dense_replace"}
        | {"index_topk": 6, "index_n_heads": 24, "index_head_dim": 12, "indexer_types": ["full", "shared"] * 2},
    )

    def read_router(self, config: ExternalConfig) -> dict[str, Any]:
        fields = {"name": "sigmoid", "selection_bias": True, "group_score": "top-2-sum"}
        return {**fields, **read_groups(config, scale=2.827)}

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        sparse = read_sparse_latent(config, super().read_attention(config), self.size)
        return {**sparse, "index_eps": config.number(*self.eps), "output_gate": True, "sinks": True}

    def read_feedforward(self, config: ExternalConfig) -> dict[str, Any]:
        result = super().read_feedforward(config)
        # transformers applies `hidden_act` to the other feed-forwards only.
        own = {"activation": "silu", "clamp": config.number("swiglu_limit", 10.0)}
        return {**result, "expert": {**result["expert"], **own}}

    def read_block(self, config: ExternalConfig) -> dict[str, Any]:
        return hy_v4.read_streams(config, config.number(*self.eps))

    def read_layers(self, config: ExternalConfig, n_layers: int) -> Sequence[dict[str, Any]]:
        only_indexed(config)
        plain: dict[str, Any] = {"feedforward": self.read_dense(config)}
        usual = ["shared" if index and (index - 1) % 4 else "full" for index in range(n_layers)]
        layers, indexers = read_sparse(config, n_layers, 1), read_indexers(config, n_layers, usual)
        return [{**({} if each else plain), **own} for each, own in zip(layers, indexers, strict=True)]

    def config(self, model: Any) -> dict[str, Any]:
        result = {**super().config(model), **hy_v4.write(model.layer_specs())}
        del result["first_k_dense_replace"]
        return result

    def rules(self, model: Any) -> list[Rule]:
        return [*hy_v4.rules(model), *super().rules(model)]
