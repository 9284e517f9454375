"""Jamba."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.decoder import Decoder
from gptkit.interop.families.parts.experts import INERT, expert_rules, first_of, sparse, write_experts
from gptkit.interop.families.parts.hybrids import layers_with, layers_without
from gptkit.interop.families.parts.keys import keys
from gptkit.interop.families.parts.mamba import mamba1
from gptkit.interop.families.parts.periods import read_period, write_period
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["JambaFamily"]

NAMES = {"d_state": "mamba_d_state", "step_rank": "mamba_dt_rank", "conv_width": "mamba_d_conv"}
NAMES |= {"conv_bias": "mamba_conv_bias", "bias": "mamba_proj_bias", "activation": "hidden_act"}


class JambaFamily(Decoder):
    """Jamba: Mamba with norms in most layers, attention without positions in some, experts in every second one."""

    name: Literal["jamba"] = "jamba"
    model_type: ClassVar[str] = "jamba"
    architecture: ClassVar[str] = "JambaForCausalLM"
    rank: ClassVar[int] = 11
    harmless: ClassVar[frozenset[str]] = (
        Decoder.harmless | INERT | mamba1.INERT | keys("calc_logits_for_entire_prompt n_ctx")
    )
    inner: ClassVar[str] = "feed_forward"
    attention_biases: ClassVar[bool] = False
    tiny: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"attn_layer_period": 3, "attn_layer_offset": 1, "mamba_d_state": 6, "mamba_dt_rank": 5},
    )

    def read_position(self, config: ExternalConfig) -> dict[str, Any]:
        return {"name": "none"}

    def read_layers(self, config: ExternalConfig, n_layers: int) -> Sequence[dict[str, Any]]:
        config.only("mamba_inner_layernorms", True, why="transformers always has these norms")
        d_model = config.integer("hidden_size")
        d_inner = config.integer("mamba_expand", 2) * d_model
        mamba = {"attention": mamba1.read_selective(config, NAMES, d_model, d_inner, self.read_norm(config))}
        router = {"name": "softmax-top-k", "k": config.integer("num_experts_per_tok", 2), "renormalize": False}
        experts = sparse(config.integer("num_experts", 16), router, self.read_feedforward(config))
        more = {"feedforward": experts} if experts["n_experts"] > 1 else {}
        attends = read_period(config, "attn", 8, 4, n_layers)
        chosen = read_period(config, "expert", 2, 1, n_layers)
        return [{**({} if full else mamba), **(more if each else {})} for full, each in zip(attends, chosen, strict=True)]

    def config(self, model: Any) -> dict[str, Any]:
        layers = model.layer_specs()
        result = super().config(model)
        if matching := layers_with(layers, "mamba1"):
            mamba = matching[0].attention
            result |= {key: getattr(mamba, own) for own, key in NAMES.items() if own != "activation"}
            result["mamba_expand"] = mamba.d_inner // model.d_model
        return {
            **result,
            **write_period("attn", [layer.attention.name != "mamba1" for layer in layers]),
        }

    def write_attention(self, layers: Sequence[Any]) -> dict[str, Any]:
        return super().write_attention(layers_without(layers, "mamba1"))

    def write_feedforward(self, layers: Sequence[Any]) -> dict[str, Any]:
        if first_of(layers, "experts") is None:
            return {**super().write_feedforward(layers), "num_experts": 1}
        experts = write_experts(layers, "num_experts", self.width)
        return {**experts, **write_period("expert", [layer.feedforward.name == "experts" for layer in layers])}

    def rules(self, model: Any) -> list[Rule]:
        norms = {"blocks.*.feedforward_norm": "layers.*.pre_ff_layernorm", "final_norm": "final_layernorm"}
        named = [Rule(own, f"model.{name}") for own, name in norms.items()]
        experts = expert_rules("model.layers.*.feed_forward", router="router")
        return [*mamba1.selective_rules(model, "model.layers.{}.mamba"), *experts, *named, *super().rules(model)]
