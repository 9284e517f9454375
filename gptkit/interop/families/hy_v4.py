"""Hunyuan 4."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families import _hy_v4
from gptkit.interop.families._experts import read_sparse
from gptkit.interop.families._latent import INDEX_SIZES, LatentDecoder
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["HunyuanV4Family"]


class HunyuanV4Family(LatentDecoder):
    """Hunyuan 4: sparse latent attention with gates and sinks, residual streams that are not mixed, clamped experts."""

    name: Literal["hunyuan4"] = "hunyuan4"
    model_type: ClassVar[str] = "hy_v4"
    architecture: ClassVar[str] = "HYV4ForCausalLM"
    harmless: ClassVar[frozenset[str]] = LatentDecoder.harmless | {"learnable_sink_init"}
    renames: ClassVar[tuple[tuple[str, str], ...]] = _hy_v4.RENAMES
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
        groups = {own: config.integer(key, 1) for own, key in _hy_v4.GROUPS.items()}
        fields = {"selection_bias": True, "group_score": "top-2-sum", "renormalize": config.flag("norm_topk_prob", True)}
        return {"name": "sigmoid", **groups, **fields, "scale": config.number("routed_scaling_factor", 2.827)}

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        result = super().read_attention(config)
        if result["q_rank"] is None:
            config.refuse("q_lora_rank", "the indexer needs the latent of the queries")
        sizes = {own: self.size(config, *key) for own, key in INDEX_SIZES.items()}
        fields = {"index_eps": config.number(*self.eps), "output_gate": True, "sinks": True}
        return {**result, "name": "sparse-latent", **sizes, **fields}

    def read_feedforward(self, config: ExternalConfig) -> dict[str, Any]:
        result = super().read_feedforward(config)
        # transformers applies `hidden_act` to the other feed-forwards only.
        own = {"activation": "silu", "clamp": config.number("swiglu_limit", 10.0)}
        return {**result, "expert": {**result["expert"], **own}}

    def read_block(self, config: ExternalConfig) -> dict[str, Any]:
        return _hy_v4.read_streams(config, config.number(*self.eps))

    def read_layers(self, config: ExternalConfig, n_layers: int) -> Sequence[dict[str, Any]]:
        config.only("layer_types", ["indexed_attention"] * n_layers, why="the family has nothing else")
        plain: dict[str, Any] = {"feedforward": self.read_dense(config)}
        layers, indexers = read_sparse(config, n_layers, 1), _hy_v4.read_indexers(config, n_layers)
        return [{**({} if each else plain), **own} for each, own in zip(layers, indexers, strict=True)]

    def config(self, model: Any) -> dict[str, Any]:
        result = {**super().config(model), **_hy_v4.write(model.layer_specs())}
        del result["first_k_dense_replace"]
        return result

    def rules(self, model: Any) -> list[Rule]:
        return [*_hy_v4.rules(model), *super().rules(model)]
