"""MiniCPM 3."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from gptkit.interop.families.youtu import YoutuFamily
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["MiniCPM3Family"]


class MiniCPM3Family(YoutuFamily):
    """MiniCPM 3: latent attention; embeddings, branches and logits multiplied by numbers that depend on the sizes."""

    name: Literal["minicpm3"] = "minicpm3"  # type: ignore[assignment]
    model_type: ClassVar[str] = "minicpm3"
    architecture: ClassVar[str] = "MiniCPM3ForCausalLM"
    eps: ClassVar[tuple[str, float]] = ("rms_norm_eps", 1e-5)
    feedforward_biases: ClassVar[bool] = True
    tiny: ClassVar[tuple[Mapping[str, Any], ...]] = ({**YoutuFamily.tiny[0], "qk_nope_head_dim": 16},)

    def read_embedding(self, config: ExternalConfig) -> dict[str, Any]:
        return {"name": "token", "scale": config.number("scale_emb", 12)}

    def read_position(self, config: ExternalConfig) -> dict[str, Any]:
        config.only("rope_interleave", False, why="transformers rotates halves in this family")
        return {**super().read_position(config), "layout": "half"}

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        sizes = {"q_rank": ("q_lora_rank", 768), "kv_rank": ("kv_lora_rank", 256), "d_nope": ("qk_nope_head_dim", 64)}
        d_value = config.integer("hidden_size") // max(1, config.integer("num_attention_heads"))
        sizes |= {"d_rotary": ("qk_rope_head_dim", 32), "d_value": ("v_head_dim", d_value)}
        return {**super().read_attention(config), **{field: config.integer(*key) for field, key in sizes.items()}}

    def read_block(self, config: ExternalConfig) -> dict[str, Any]:
        depth = config.layers("num_hidden_layers") ** 0.5
        usual = depth if config.is_null("scale_depth") else 1.4
        return {"name": "pre-norm", "residual_scale": config.number("scale_depth", usual) / depth}

    def read_head(self, config: ExternalConfig) -> dict[str, Any]:
        d_model = config.integer("hidden_size")
        return {"scale": config.integer("dim_model_base", d_model if config.is_null("dim_model_base") else 256) / d_model}

    def config(self, model: Any) -> dict[str, Any]:
        result = {**super().config(model), "scale_emb": model.embedding.scale or 1.0}
        result["scale_depth"] = model.layer_specs()[0].block.residual_scale * math.sqrt(model.n_layers)
        return {**result, "dim_model_base": round(model.head.scale * model.d_model)}
