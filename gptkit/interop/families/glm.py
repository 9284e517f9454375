"""GLM 4."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from gptkit.interop.families.decoder import Decoder
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["GlmFamily"]


class GlmFamily(Decoder):
    """GLM 4: biases on queries, keys and values, rotary on neighboring features of half of each head."""

    name: Literal["glm"] = "glm"
    model_type: ClassVar[str] = "glm"
    architecture: ClassVar[str] = "GlmForCausalLM"
    eps: ClassVar[tuple[str, float]] = ("rms_norm_eps", 1.5625e-07)
    fraction: ClassVar[float] = 0.5
    d_head: ClassVar[int | None] = 128
    biased: ClassVar[bool] = True
    output_biases: ClassVar[bool] = False

    def read_position(self, config: ExternalConfig) -> dict[str, Any]:
        return {**super().read_position(config), "layout": "interleaved"}

    def rules(self, model: Any) -> list[Rule]:
        return [Rule("blocks.*.feedforward.gate_up", "model.layers.*.mlp.gate_up_proj"), *super().rules(model)]
