"""A.X K1."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from gptkit.interop.families.glm4_moe_lite import Glm4MoeLiteFamily
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["AXK1Family"]


class AXK1Family(Glm4MoeLiteFamily):
    """A.X K1: DeepSeek V3 with a norm of the experts' output."""

    name: Literal["axk1"] = "axk1"  # type: ignore[assignment]
    model_type: ClassVar[str] = "axk1"
    architecture: ClassVar[str] = "AXK1ForCausalLM"
    # In released files, dense layers have a norm that transformers does not apply.
    ignored: ClassVar[tuple[str, ...]] = (*Glm4MoeLiteFamily.ignored, r"model\.layers\.0\.post_mlp_layernorm\.weight")
    eps: ClassVar[tuple[str, float]] = ("rms_norm_eps", 1e-6)
    groups: ClassVar[tuple[int, int]] = (8, 4)
    scale: ClassVar[float] = 2.5

    def read_feedforward(self, config: ExternalConfig) -> dict[str, Any]:
        return {**super().read_feedforward(config), "output_norm": self.read_norm(config)}

    def rules(self, model: Any) -> list[Rule]:
        norm = Rule("blocks.*.feedforward.output_norm", "model.layers.*.post_mlp_layernorm")
        return [norm, *super().rules(model)]
