"""Cohere's Command R."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from gptkit.interop.families.decoder import Decoder
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["CohereFamily"]


class CohereFamily(Decoder):
    """Command R: parallel branches with one norm without bias, rotary on neighboring features, scaled logits."""

    name: Literal["cohere"] = "cohere"
    model_type: ClassVar[str] = "cohere"
    architecture: ClassVar[str] = "CohereForCausalLM"
    tied: ClassVar[bool] = True
    eps: ClassVar[tuple[str, float]] = ("layer_norm_eps", 1e-5)
    base: ClassVar[float] = 500000.0

    def read_position(self, config: ExternalConfig) -> dict[str, Any]:
        return {**super().read_position(config), "layout": "interleaved"}

    def read_norm(self, config: ExternalConfig) -> dict[str, Any]:
        return {"name": "layer", "eps": config.number(*self.eps), "shift": False}

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        normed = config.flag("use_qk_norm", False)
        norms = {"qk_norm": self.read_norm(config), "qk_norm_width": "each-head"} if normed else {}
        return {**super().read_attention(config), **norms}

    def read_block(self, config: ExternalConfig) -> dict[str, Any]:
        return {"name": "parallel"}

    def read_head(self, config: ExternalConfig) -> dict[str, Any]:
        return {"scale": config.number("logit_scale", 0.0625)}

    def config(self, model: Any) -> dict[str, Any]:
        normed = model.layer_specs()[0].attention.qk_norm is not None
        return {**super().config(model), "logit_scale": model.head.scale, "use_qk_norm": normed}
