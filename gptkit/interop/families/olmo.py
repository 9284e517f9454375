"""OLMo."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from gptkit.interop.families.decoder import Decoder
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["OlmoFamily"]


class OlmoFamily(Decoder):
    """OLMo: layer norms without parameters, optional clamping of queries, keys and values."""

    name: Literal["olmo"] = "olmo"
    model_type: ClassVar[str] = "olmo"
    architecture: ClassVar[str] = "OlmoForCausalLM"

    def read_norm(self, config: ExternalConfig) -> dict[str, Any]:
        return {"name": "layer", "eps": 1e-5, "scale": False, "shift": False}

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        return {**super().read_attention(config), "clip_qkv": config.maybe("clip_qkv")}

    def config(self, model: Any) -> dict[str, Any]:
        result = {**super().config(model), "clip_qkv": model.layer_specs()[0].attention.clip_qkv}
        del result["rms_norm_eps"]
        return result
