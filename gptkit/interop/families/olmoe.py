"""OLMoE."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.decoder import Decoder
from gptkit.interop.families.parts.experts import INERT, expert_rules, first_of, sparse, write_experts
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["OlmoeFamily"]


class OlmoeFamily(Decoder):
    """OLMoE: small experts whose weights are not renormalized, and a norm over all queries and all keys of a token."""

    name: Literal["olmoe"] = "olmoe"
    model_type: ClassVar[str] = "olmoe"
    architecture: ClassVar[str] = "OlmoeForCausalLM"
    harmless: ClassVar[frozenset[str]] = Decoder.harmless | INERT
    eps: ClassVar[tuple[str, float]] = ("rms_norm_eps", 1e-5)

    experts: ClassVar[tuple[int, int]] = (64, 8)
    """Defaults: the number of experts, and the number chosen per token."""

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        result = {**super().read_attention(config), "qk_norm": self.read_norm(config), "qk_norm_width": "full"}
        clip = config.maybe("clip_qkv")
        return result if clip is None else {**result, "clip_qkv": clip, "clip_order": "after"}

    def read_feedforward(self, config: ExternalConfig) -> dict[str, Any]:
        renormalize = config.flag("norm_topk_prob", False)
        number, chosen = self.experts
        router = {"name": "softmax-top-k", "k": config.integer("num_experts_per_tok", chosen), "renormalize": renormalize}
        return sparse(config.integer("num_experts", number), router, super().read_feedforward(config))

    def write_feedforward(self, layers: Sequence[Any]) -> dict[str, Any]:
        result = write_experts(layers, "num_experts", "intermediate_size")
        return {**result, "norm_topk_prob": first_of(layers, "experts").router.renormalize}

    def config(self, model: Any) -> dict[str, Any]:
        return {**super().config(model), "clip_qkv": model.layer_specs()[0].attention.clip_qkv}

    def rules(self, model: Any) -> list[Rule]:
        return [*expert_rules("model.layers.*.mlp"), *super().rules(model)]
