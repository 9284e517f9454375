"""DeepSeek V3 and R1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.parts.experts import first_of, read_groups, write_groups
from gptkit.interop.families.parts.latent import LatentDecoder
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["DeepseekV3Family"]


class DeepseekV3Family(LatentDecoder):
    """DeepSeek V3 and R1: latent attention, experts judged by a sigmoid with a bias that only selects."""

    name: Literal["deepseek-v3"] = "deepseek-v3"
    model_type: ClassVar[str] = "deepseek_v3"
    model_types: ClassVar[tuple[str, ...]] = ("kimi_k2",)
    architecture: ClassVar[str] = "DeepseekV3ForCausalLM"
    groups: ClassVar[tuple[int, int]] = (8, 4)
    """`n_group` and `topk_group` where the configuration has none."""
    scale: ClassVar[float] = 2.5
    """`routed_scaling_factor` where the configuration has none."""

    def model(self, config: ExternalConfig) -> dict[str, Any]:
        config.only("scoring_func", "sigmoid", why="the family has nothing else")
        config.only("topk_method", "noaux_tc", why="the family has nothing else")
        return super().model(config)

    def read_position(self, config: ExternalConfig) -> dict[str, Any]:
        layout = "interleaved" if config.flag("rope_interleave", True) else "half"
        return {**super().read_position(config), "layout": layout}

    def read_router(self, config: ExternalConfig) -> dict[str, Any]:
        fields = {"name": "sigmoid", "selection_bias": True, "group_score": "top-2-sum"}
        return {**fields, **read_groups(config, self.groups, self.scale)}

    def write_feedforward(self, layers: Sequence[Any]) -> dict[str, Any]:
        router = first_of(layers, "experts").router
        rotary = [layer.position.layout == "interleaved" for layer in layers if layer.position.name == "rotary"]
        return {
            **super().write_feedforward(layers),
            **({"rope_interleave": rotary[0]} if rotary else {}),
            **write_groups(router),
        }
