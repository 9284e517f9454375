"""FlexOlmo."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from gptkit.interop.families.olmo2 import Olmo2Family
from gptkit.interop.families.olmoe import OlmoeFamily
from gptkit.interop.families.parts.experts import INERT, expert_rules
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["FlexOlmoFamily"]


class FlexOlmoFamily(OlmoeFamily):
    """FlexOlmo: OLMo 2 with experts, each of them trained apart."""

    name: Literal["flex-olmo"] = "flex-olmo"  # type: ignore[assignment]
    model_type: ClassVar[str] = "flex_olmo"
    architecture: ClassVar[str] = "FlexOlmoForCausalLM"
    harmless: ClassVar[frozenset[str]] = Olmo2Family.harmless | INERT
    eps: ClassVar[tuple[str, float]] = ("rms_norm_eps", 1e-6)
    base: ClassVar[float] = 500000.0
    experts: ClassVar[tuple[int, int]] = (7, 5)

    def read_norm(self, config: ExternalConfig) -> dict[str, Any]:
        return {**super().read_norm(config), "cast": "after"}

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        config.only("clip_qkv", None, why="transformers does not clip in this family")
        return super().read_attention(config)

    def read_block(self, config: ExternalConfig) -> dict[str, Any]:
        return {"name": "output-norm"}

    def rules(self, model: Any) -> list[Rule]:
        return [*expert_rules("model.layers.*.mlp"), *Olmo2Family(name="olmo2").rules(model)]
