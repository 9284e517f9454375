"""Arcee's Trinity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.decoder import Decoder
from gptkit.interop.families.parts.experts import INERT, dense, expert_rules, first_of, sparse, write_experts
from gptkit.interop.families.parts.windows import all_but_every, read_windows, write_windows
from gptkit.interop.layouts import HEADS
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["AfmoeFamily"]
BARE: dict[str, Any] = {"position": "none"}
USUAL = {"score_func": "sigmoid", "route_norm": True, "n_group": 1, "topk_group": 1}


class AfmoeFamily(Decoder):
    """Arcee's Trinity: gated attention, windows with rotary positions or neither, norms around branches, many experts."""

    name: Literal["afmoe"] = "afmoe"
    model_type: ClassVar[str] = "afmoe"
    architecture: ClassVar[str] = "AfmoeForCausalLM"
    harmless: ClassVar[frozenset[str]] = Decoder.harmless | INERT | {"load_balance_coeff", "use_grouped_mm"}
    eps: ClassVar[tuple[str, float]] = ("rms_norm_eps", 1e-5)
    d_head: ClassVar[int | None] = 128
    attention_biases: ClassVar[bool] = False

    def read_embedding(self, config: ExternalConfig) -> dict[str, Any]:
        scale = config.integer("hidden_size") ** 0.5
        return {"name": "token", "scale": scale if config.flag("mup_enabled", False) else None}

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        config.only("attention_bias", False, why="the gate would have no bias, and it has one here where the others do")
        return {**super().read_attention(config), "qk_norm": self.read_norm(config), "output_gate": True}

    def read_block(self, config: ExternalConfig) -> dict[str, Any]:
        return {"name": "sandwich"}

    def read_feedforward(self, config: ExternalConfig) -> dict[str, Any]:
        for key, value in USUAL.items():
            config.only(key, value, why="transformers has nothing else")
        expert = dense(super().read_feedforward(config), config.integer("moe_intermediate_size", 1408))
        k, scale = config.integer("num_experts_per_tok", 6), config.number("route_scale", 1.0)
        router = {"name": "sigmoid", "selection_bias": True, "k": k, "scale": scale}
        shared = dense(expert, expert["d_hidden"] * config.integer("num_shared_experts", 2))
        return sparse(config.integer("num_experts", 64), router, expert, shared=shared)

    def read_layers(self, config: ExternalConfig, n_layers: int) -> Sequence[dict[str, Any]]:
        n, n_dense = config.integer("global_attn_every_n_layers", 4), config.integer("num_dense_layers", 1)
        slide = {"attention": {"window": config.integer("sliding_window", 1024)}}
        plain = {"feedforward": super().read_feedforward(config)}
        layers = [slide if each else BARE for each in read_windows(config, all_but_every(n, n_layers))]
        return [{**layer, **plain} if index < n_dense else layer for index, layer in enumerate(layers)]

    def write_feedforward(self, layers: Sequence[Any]) -> dict[str, Any]:
        result, plain = first_of(layers, "experts"), first_of(layers, "gated")
        return {
            **write_experts(layers, "num_experts", "moe_intermediate_size"),
            "intermediate_size": (plain or result.expert).d_hidden,
            "num_shared_experts": result.shared.d_hidden // result.expert.d_hidden,
            "num_dense_layers": sum(layer.feedforward.name != "experts" for layer in layers),
            "route_scale": result.router.scale,
        }

    def config(self, model: Any) -> dict[str, Any]:
        return {**super().config(model), **write_windows(model), "mup_enabled": model.embedding.scale is not None}

    def rules(self, model: Any) -> list[Rule]:
        layer = "model.layers.*"
        names = {"attention_output_norm": "post_attention_layernorm", "feedforward_norm": "pre_mlp_layernorm"}
        names |= {"feedforward_output_norm": "post_mlp_layernorm", "feedforward.router.selection_bias": "mlp.expert_bias"}
        return [
            *(Rule(f"blocks.*.{native}", f"{layer}.{external}") for native, external in names.items()),
            Rule("blocks.*.attention.qkv", f"{layer}.self_attn.{{q,k,v,gate}}_proj", HEADS),
            *expert_rules(f"{layer}.mlp", router="router.gate", shared="shared_experts"),
            *super().rules(model),
        ]
