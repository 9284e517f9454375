"""gpt-oss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.decoder import Decoder
from gptkit.interop.families.parts.experts import INERT, first_of, sparse, write_experts
from gptkit.interop.families.parts.rope import read_rotary
from gptkit.interop.families.parts.windows import all_but_every, read_windows, write_windows
from gptkit.interop.layouts import ALTERNATING, TRANSPOSED, TRANSPOSED_ALTERNATING, Stack
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["GptOssFamily"]


YARN = {"rope_type": "yarn", "factor": 32.0, "original_max_position_embeddings": 4096, "truncate": False}
"""The scaling of a configuration without keys for positions, as in transformers."""


class GptOssFamily(Decoder):
    """gpt-oss: attention sinks, a window in every other layer, experts with clamped gates and biases everywhere."""

    name: Literal["gpt-oss"] = "gpt-oss"
    model_type: ClassVar[str] = "gpt_oss"
    architecture: ClassVar[str] = "GptOssForCausalLM"
    harmless: ClassVar[frozenset[str]] = Decoder.harmless | INERT | {"experts_per_token", "initial_context_length"}
    eps: ClassVar[tuple[str, float]] = ("rms_norm_eps", 1e-5)
    base: ClassVar[float] = 150000.0
    d_head: ClassVar[int | None] = 64

    def read_position(self, config: ExternalConfig) -> dict[str, Any]:
        if config.value("rope_scaling") or config.value("rope_parameters") is not None:
            return super().read_position(config)
        return read_rotary(ExternalConfig(YARN), config, config.number("rope_theta", self.base))

    def read_norm(self, config: ExternalConfig) -> dict[str, Any]:
        return {**super().read_norm(config), "cast": "after"}

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        bias = config.flag("attention_bias", True)
        return {**super().read_attention(config), "sinks": True, "qkv_bias": bias, "output_bias": bias}

    def read_feedforward(self, config: ExternalConfig) -> dict[str, Any]:
        config.value("hidden_act")  # it says `silu`; the experts have their own
        activation = {"name": "quick-gelu", "alpha": config.number("swiglu_alpha", 1.702)}
        expert = {"name": "gated", "d_hidden": config.integer("intermediate_size"), "activation": activation}
        expert |= {"bias": True, "clamp": config.number("swiglu_limit", 7.0), "up_offset": 1.0}
        router = {"name": "top-k-softmax", "k": config.integer("num_experts_per_tok", 4), "bias": True}
        return sparse(config.integer("num_local_experts", 128), router, expert)

    def read_layers(self, config: ExternalConfig, n_layers: int) -> Sequence[dict[str, Any]]:
        slide = {"attention": {"window": config.nullable("sliding_window", 128)}}
        return [slide if each else {} for each in read_windows(config, all_but_every(2, n_layers))]

    def write_feedforward(self, layers: Sequence[Any]) -> dict[str, Any]:
        expert = first_of(layers, "experts").expert
        result = write_experts(layers, "num_local_experts", "intermediate_size")
        return {**result, "hidden_act": "silu", "swiglu_alpha": expert.activation.alpha, "swiglu_limit": expert.clamp}

    def config(self, model: Any) -> dict[str, Any]:
        return {**super().config(model), **write_windows(model, 128)}

    def rules(self, model: Any) -> list[Rule]:
        native, external = "blocks.*.feedforward.experts", "model.layers.*.mlp.experts"
        experts = [
            Rule("blocks.*.attention.sinks", "model.layers.*.self_attn.sinks"),
            Rule("blocks.*.feedforward.router.scores", "model.layers.*.mlp.router"),
            Rule(f"{native}.gate_up.weight", f"{external}.gate_up_proj", Stack(TRANSPOSED_ALTERNATING)),
            Rule(f"{native}.gate_up.bias", f"{external}.gate_up_proj_bias", Stack(ALTERNATING)),
            Rule(f"{native}.down.weight", f"{external}.down_proj", Stack(TRANSPOSED)),
            Rule(f"{native}.down.bias", f"{external}.down_proj_bias"),
        ]
        return [*experts, *super().rules(model)]
