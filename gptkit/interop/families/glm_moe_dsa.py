"""GLM-5."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.deepseek_v32 import DeepseekV32Family
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["GlmMoeDsaFamily"]

LETTERS = {"F": "full", "S": "shared"}


class GlmMoeDsaFamily(DeepseekV32Family):
    """GLM-5: DeepSeek V3.2 with other defaults, and layers that use the choice of keys of an earlier one."""

    name: Literal["glm-moe-dsa"] = "glm-moe-dsa"  # type: ignore[assignment]
    model_type: ClassVar[str] = "glm_moe_dsa"
    architecture: ClassVar[str] = "GlmMoeDsaForCausalLM"
    eps: ClassVar[tuple[str, float]] = ("rms_norm_eps", 1e-5)
    q_rank: ClassVar[int | None] = 2048
    index_layout: ClassVar[str] = "same"
    tiny: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {**DeepseekV32Family.tiny[0], "indexer_types": ["full", "shared", "full", "shared"]},
    )

    sizes: ClassVar[Mapping[str, int]] = {"qk_nope_head_dim": 192, "v_head_dim": 256, "index_n_heads": 32}

    def read_router(self, config: ExternalConfig) -> dict[str, Any]:
        groups = {"n_groups": config.integer("n_group", 1), "top_groups": config.integer("topk_group", 1)}
        return {**super().read_router(config), **groups}

    def read_layers(self, config: ExternalConfig, n_layers: int) -> Sequence[dict[str, Any]]:
        every, first = max(1, config.integer("index_topk_freq", 1)), config.integer("index_skip_topk_offset", 2)
        usual = ["full" if max(index - first + 1, 0) % every == 0 else "shared" for index in range(n_layers)]
        letters = config.value("index_topk_pattern")
        if letters is not None:
            usual = [LETTERS.get(each, each) for each in letters]
        types = config.items("indexer_types", usual)
        if len(types) != n_layers or not set(types) <= set(LETTERS.values()) or types[0] != "full":
            config.refuse("indexer_types", f"it should name full or shared for each of {n_layers} layers, full first")
        shared: dict[str, Any] = {"attention": {"indexer": "previous"}}
        entries = super().read_layers(config, n_layers)
        return [{**entry, **(shared if each == "shared" else {})} for entry, each in zip(entries, types, strict=True)]

    def write_attention(self, layers: Sequence[Any]) -> dict[str, Any]:
        types = ["full" if layer.attention.indexer == "own" else "shared" for layer in layers]
        return {**super().write_attention(layers), "indexer_types": types}
