"""GLM 4 of April 2025."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from gptkit.interop.families.glm import GlmFamily
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["Glm4Family"]


class Glm4Family(GlmFamily):
    """GLM 4 (0414) and Z1: GLM 4 with norms around each branch."""

    name: Literal["glm4"] = "glm4"  # type: ignore[assignment]
    model_type: ClassVar[str] = "glm4"
    architecture: ClassVar[str] = "Glm4ForCausalLM"

    def read_block(self, config: ExternalConfig) -> dict[str, Any]:
        return {"name": "sandwich"}

    def rules(self, model: Any) -> list[Rule]:
        norms = [
            Rule("blocks.*.attention_output_norm", "model.layers.*.post_self_attn_layernorm"),
            Rule("blocks.*.feedforward_output_norm", "model.layers.*.post_mlp_layernorm"),
        ]
        return [*norms, *super().rules(model)]
