"""JetMoE."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.decoder import Decoder
from gptkit.interop.families.parts.activations import read_activation, write_activation
from gptkit.interop.families.parts.experts import INERT, sparse
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["JetMoeFamily"]


class JetMoeFamily(Decoder):
    """JetMoE: experts in place of feed-forwards, and experts that are the query and output projections of attention."""

    name: Literal["jetmoe"] = "jetmoe"
    model_type: ClassVar[str] = "jetmoe"
    architecture: ClassVar[str] = "JetMoeForCausalLM"
    tied: ClassVar[bool] = True
    harmless: ClassVar[frozenset[str]] = Decoder.harmless | INERT | {"aux_loss_coef", "num_attention_heads"}

    def model(self, config: ExternalConfig) -> dict[str, Any]:
        # The norms of layers have the class's own epsilon; the configuration's is that of the last norm.
        final = {"name": "rms", "eps": config.number(*self.eps)}
        return {**super().model(config), "norm": {"name": "rms", "eps": 1e-6}, "final_norm": final}

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        return {
            "name": "expert-heads",
            "n_experts": config.integer("num_local_experts", 8),
            "router": {"name": "top-k-softmax", "k": config.integer("num_experts_per_tok", 2)},
            "n_kv_heads": config.integer("num_key_value_heads", 16),
            "d_head": config.integer(config.alias("kv_channels", "head_dim"), 128),
            "output_bias": True,
        }

    def read_feedforward(self, config: ExternalConfig) -> dict[str, Any]:
        attention = self.read_attention(config)
        activation = read_activation(config, "activation_function", "silu")
        expert = {"name": "gated", "d_hidden": config.integer("intermediate_size", 5632), "activation": activation}
        return sparse(attention["n_experts"], attention["router"], expert, output_bias=True)

    def write_attention(self, layers: Sequence[Any]) -> dict[str, Any]:
        attention = layers[0].attention
        return {
            "num_local_experts": attention.n_experts,
            "num_experts_per_tok": attention.router.k,
            "num_key_value_heads": attention.n_kv_heads,
            "kv_channels": attention.d_head,
        }

    def write_feedforward(self, layers: Sequence[Any]) -> dict[str, Any]:
        expert = layers[0].feedforward.expert
        return {"intermediate_size": expert.d_hidden, "activation_function": write_activation(expert.activation)}

    def config(self, model: Any) -> dict[str, Any]:
        return {**super().config(model), "rms_norm_eps": model.final_norm.eps}

    def rules(self, model: Any) -> list[Rule]:
        branches = {"attention": "self_attention.experts", "feedforward": "mlp"}
        experts = {"attention": ("query", "output"), "feedforward": ("experts.gate_up", "experts.down")}
        return [
            Rule("blocks.*.attention.kv", "model.layers.*.self_attention.kv_proj"),
            *(
                Rule(f"blocks.*.{own}.{native}", f"model.layers.*.{name}.{external}")
                for own, name in branches.items()
                for native, external in zip(
                    ("router.scores", *experts[own], "output_bias"),
                    ("router.layer", "input_linear", "output_linear", "bias"),
                    strict=True,
                )
            ),
            *super().rules(model),
        ]
