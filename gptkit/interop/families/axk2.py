"""A.X K2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.deepseek_v32 import DeepseekV32Family
from gptkit.interop.families.parts.experts import first_of
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["AXK2Family"]

NORMS = {"attention_norm": "input_layernorm", "feedforward_norm": "post_attention_layernorm"}
PARTS = {"norm": "norm", "down": "W_down", "up": "W_up"}


class AXK2Family(DeepseekV32Family):
    """A.X K2: DeepSeek V3.2 with gated norms, and queries and output gates that are projected from both latents."""

    name: Literal["axk2"] = "axk2"  # type: ignore[assignment]
    model_type: ClassVar[str] = "axk2"
    architecture: ClassVar[str] = "AXK2ForCausalLM"
    groups: ClassVar[tuple[int, int]] = (1, 1)
    n_dense: ClassVar[int] = 1
    q_rank: ClassVar[int | None] = 384
    sizes: ClassVar[Mapping[str, int]] = {
        "kv_lora_rank": 128,
        "qk_rope_head_dim": 32,
        "qk_nope_head_dim": 64,
        "v_head_dim": 64,
        "n_shared_experts": 1,
        "index_n_heads": 16,
    }
    tiny: ClassVar[tuple[Mapping[str, Any], ...]] = ({**DeepseekV32Family.tiny[0], "gated_norm_rank": 5},)

    def model(self, config: ExternalConfig) -> dict[str, Any]:
        return {**super().model(config), "final_norm": super().read_norm(config)}

    def read_norm(self, config: ExternalConfig) -> dict[str, Any]:
        return {"name": "gated", "norm": super().read_norm(config), "rank": config.integer("gated_norm_rank", 16)}

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        return {**super().read_attention(config), "query_latents": "both", "output_gate": True, "gate_input": "queries"}

    def read_layers(self, config: ExternalConfig, n_layers: int) -> Sequence[dict[str, Any]]:
        # The norm before a feed-forward without experts has no gates.
        block = {"block": {"feedforward_norm": super().read_norm(config)}}
        return [{**layer, **block} if layer else {} for layer in super().read_layers(config, n_layers)]

    def write_norm(self, layers: Sequence[Any]) -> dict[str, Any]:
        return {self.eps[0]: layers[0].norm.norm.eps, "gated_norm_rank": layers[0].norm.rank}

    def write_feedforward(self, layers: Sequence[Any]) -> dict[str, Any]:
        result = super().write_feedforward(layers)
        del result["rope_interleave"]
        if first_of(layers, "experts").router.n_groups == 1:
            result |= {"n_group": None, "topk_group": None}
        return result

    def rules(self, model: Any) -> list[Rule]:
        gates = [
            Rule(f"blocks.*.{native}.{own}", f"model.layers.*.{external}.{name}")
            for native, external in NORMS.items()
            for own, name in PARTS.items()
        ]
        return [*gates, *super().rules(model)]
