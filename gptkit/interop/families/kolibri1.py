"""Kolibri 1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.decoder import Decoder
from gptkit.interop.families.parts.experts import INERT, dense, expert_rules, first_of, sparse, write_experts
from gptkit.interop.families.parts.windows import all_but_every, read_windows, write_windows
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["Kolibri1Family"]


class Kolibri1Family(Decoder):
    """Kolibri 1: windows with rotary positions or neither, norms around branches, experts selected by biased logits."""

    name: Literal["kolibri1"] = "kolibri1"
    model_type: ClassVar[str] = "kolibri1"
    architecture: ClassVar[str] = "Kolibri1ForCausalLM"
    harmless: ClassVar[frozenset[str]] = Decoder.harmless | INERT | {"intermediate_size"}
    width: ClassVar[str] = "moe_intermediate_size"
    d_head: ClassVar[int | None] = 128
    attention_biases: ClassVar[bool] = False
    tiny: ClassVar[tuple[Mapping[str, Any], ...]] = ({"num_local_experts": 8, "sliding_window": 6, "num_hidden_layers": 5},)

    def model(self, config: ExternalConfig) -> dict[str, Any]:
        config.use_names({"num_experts": "num_local_experts"})
        return super().model(config)

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        return {**super().read_attention(config), "qk_norm": self.read_norm(config)}

    def read_block(self, config: ExternalConfig) -> dict[str, Any]:
        return {"name": "sandwich"}

    def read_feedforward(self, config: ExternalConfig) -> dict[str, Any]:
        expert = dense(super().read_feedforward(config), config.integer(self.width, 512))
        shared = dense(expert, config.integer("shared_expert_intermediate_size", 512))
        router = {
            "name": "sigmoid",
            "selection_bias": True,
            "selects_by": "logit",
            "k": config.integer("num_experts_per_tok", 6),
            "renormalize": config.flag("norm_topk_prob", False),
        }
        return sparse(config.integer("num_experts", 384), router, expert, shared=shared)

    def read_layers(self, config: ExternalConfig, n_layers: int) -> Sequence[dict[str, Any]]:
        slide: dict[str, Any] = {"attention": {"window": config.integer("sliding_window", 513)}}
        bare: dict[str, Any] = {"position": "none"}
        return [slide if each else bare for each in read_windows(config, all_but_every(5, n_layers))]

    def write_feedforward(self, layers: Sequence[Any]) -> dict[str, Any]:
        experts = first_of(layers, "experts")
        return {
            **write_experts(layers, "num_local_experts", self.width),
            "shared_expert_intermediate_size": experts.shared.d_hidden,
            "norm_topk_prob": experts.router.renormalize,
        }

    def config(self, model: Any) -> dict[str, Any]:
        return {**super().config(model), **write_windows(model)}

    def rules(self, model: Any) -> list[Rule]:
        layer = "model.layers.*"
        names = {"attention_output_norm": "post_attn_norm", "feedforward_norm": "post_attention_layernorm"}
        names |= {"feedforward_output_norm": "post_ffn_norm", "feedforward.router.selection_bias": "moe.router.expert_bias"}
        return [
            *(Rule(f"blocks.*.{own}", f"{layer}.{external}") for own, external in names.items()),
            *expert_rules(f"{layer}.mlp", shared="shared_experts"),
            *super().rules(model),
        ]
