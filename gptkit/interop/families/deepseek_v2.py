"""DeepSeek V2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.parts.experts import first_of
from gptkit.interop.families.parts.latent import LatentDecoder
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["DeepseekV2Family"]


class DeepseekV2Family(LatentDecoder):
    """DeepSeek V2: latent attention, experts weighted by a softmax, optionally from the best groups only."""

    name: Literal["deepseek-v2"] = "deepseek-v2"
    model_type: ClassVar[str] = "deepseek_v2"
    architecture: ClassVar[str] = "DeepseekV2ForCausalLM"
    sizes: ClassVar[Mapping[str, int]] = {"n_shared_experts": 2}
    # transformers does not renormalize in this family, whatever norm_topk_prob says.
    harmless: ClassVar[frozenset[str]] = LatentDecoder.harmless | {"norm_topk_prob"}

    def model(self, config: ExternalConfig) -> dict[str, Any]:
        config.only("scoring_func", "softmax", why="the family has nothing else")
        return super().model(config)

    def read_position(self, config: ExternalConfig) -> dict[str, Any]:
        return {**super().read_position(config), "layout": "interleaved"}

    def read_router(self, config: ExternalConfig) -> dict[str, Any]:
        config.only("topk_method", "greedy", "group_limited_greedy", why="the family has nothing else")
        result = {
            "name": "softmax-top-k",
            "renormalize": False,
            "scale": config.number("routed_scaling_factor", 1.0),
        }
        groups = {"n_groups": config.integer("n_group", 1), "top_groups": config.integer("topk_group", 1)}
        return {**result, **groups} if config.text("topk_method", "greedy") == "group_limited_greedy" else result

    def write_feedforward(self, layers: Sequence[Any]) -> dict[str, Any]:
        router = first_of(layers, "experts").router
        limited = router.n_groups > 1
        return {
            **super().write_feedforward(layers),
            "topk_method": "group_limited_greedy" if limited else "greedy",
            "n_group": router.n_groups,
            "topk_group": router.top_groups,
        }
