"""GLM-5."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.deepseek_v32 import DeepseekV32Family
from gptkit.interop.families.parts.latent import read_indexers, write_indexers
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["GlmMoeDsaFamily"]

LETTERS = {"F": "full", "S": "shared"}


class GlmMoeDsaFamily(DeepseekV32Family):
    """GLM-5: DeepSeek V3.2 with other defaults, and layers that use the choice of keys of an earlier one."""

    name: Literal["glm-moe-dsa"] = "glm-moe-dsa"  # type: ignore[assignment]
    model_type: ClassVar[str] = "glm_moe_dsa"
    architecture: ClassVar[str] = "GlmMoeDsaForCausalLM"
    eps: ClassVar[tuple[str, float]] = ("rms_norm_eps", 1e-5)
    groups: ClassVar[tuple[int, int]] = (1, 1)
    q_rank: ClassVar[int | None] = 2048
    index_layout: ClassVar[str] = "same"
    tiny: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {**DeepseekV32Family.tiny[0], "indexer_types": ["full", "shared", "full", "shared"]},
    )

    sizes: ClassVar[Mapping[str, int]] = {"qk_nope_head_dim": 192, "v_head_dim": 256, "index_n_heads": 32}

    def read_layers(self, config: ExternalConfig, n_layers: int) -> Sequence[dict[str, Any]]:
        every, first = max(1, config.integer("index_topk_freq", 1)), config.integer("index_skip_topk_offset", 2)
        usual = ["full" if max(index - first + 1, 0) % every == 0 else "shared" for index in range(n_layers)]
        letters = config.value("index_topk_pattern")
        if letters is not None:
            if not isinstance(letters, (str, list)):
                config.refuse("index_topk_pattern", "it should be a text with a letter for each layer, or a list")
            usual = [LETTERS.get(each, each) for each in letters]
        layers, indexers = super().read_layers(config, n_layers), read_indexers(config, n_layers, usual)
        return [{**layer, **indexer} for layer, indexer in zip(layers, indexers, strict=True)]

    def write_attention(self, layers: Sequence[Any]) -> dict[str, Any]:
        return {**super().write_attention(layers), **write_indexers(layers)}
