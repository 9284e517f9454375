"""HyperCLOVA X."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from gptkit.interop.families.granite import GraniteFamily
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["HyperClovaXFamily"]


class HyperClovaXFamily(GraniteFamily):
    """HyperCLOVA X: Granite with norms of the branches' outputs, and logits multiplied by their scale."""

    name: Literal["hyperclovax"] = "hyperclovax"  # type: ignore[assignment]
    model_type: ClassVar[str] = "hyperclovax"
    architecture: ClassVar[str] = "HyperCLOVAXForCausalLM"
    rank: ClassVar[int] = 11

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        result = super().read_attention(config)
        return {**result, "scale": config.number("attention_multiplier", result["d_head"] ** -0.5)}

    def read_block(self, config: ExternalConfig) -> dict[str, Any]:
        normed = config.flag("use_post_norm", True)
        return {**super().read_block(config), "name": "sandwich" if normed else "pre-norm"}

    def read_head(self, config: ExternalConfig) -> dict[str, Any]:
        return {"scale": config.number("logits_scaling", 1.0)}

    def config(self, model: Any) -> dict[str, Any]:
        own = {"logits_scaling": model.head.scale, "use_post_norm": model.layer_specs()[0].block.name == "sandwich"}
        return {**super().config(model), **own}

    def rules(self, model: Any) -> list[Rule]:
        norms = [
            Rule("blocks.*.attention_output_norm", "model.layers.*.post_norm1"),
            Rule("blocks.*.feedforward_output_norm", "model.layers.*.post_norm2"),
        ]
        return [*norms, *super().rules(model)]
