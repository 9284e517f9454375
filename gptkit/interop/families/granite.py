"""Granite."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from gptkit.interop.families.decoder import Decoder
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["GraniteFamily"]


class GraniteFamily(Decoder):
    """Granite 3: Llama with embeddings, branches, scores and logits multiplied by chosen numbers."""

    name: Literal["granite"] = "granite"
    model_type: ClassVar[str] = "granite"
    architecture: ClassVar[str] = "GraniteForCausalLM"
    feedforward_biases: ClassVar[bool] = True

    def read_embedding(self, config: ExternalConfig) -> dict[str, Any]:
        return {"name": "token", "scale": config.number("embedding_multiplier", 1.0)}

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        return {**super().read_attention(config), "scale": config.number("attention_multiplier", 1.0)}

    def read_block(self, config: ExternalConfig) -> dict[str, Any]:
        return {"name": "pre-norm", "residual_scale": config.number("residual_multiplier", 1.0)}

    def read_head(self, config: ExternalConfig) -> dict[str, Any]:
        scaling = config.number("logits_scaling", 1.0)
        if scaling == 0:
            config.refuse("logits_scaling", "logits are divided by it")
        return {"scale": 1 / scaling}

    def config(self, model: Any) -> dict[str, Any]:
        layers = model.layer_specs()
        scales = [
            layer.attention.scale or layer.attention.d_head**-0.5 for layer in layers if hasattr(layer.attention, "scale")
        ]
        return {
            **super().config(model),
            "embedding_multiplier": model.embedding.scale or 1.0,
            "attention_multiplier": scales[0] if scales else 1.0,
            "residual_multiplier": layers[0].block.residual_scale,
            "logits_scaling": 1 / model.head.scale,
        }
