"""DeepSeek V4."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.decoder import Decoder
from gptkit.interop.families.parts import deepseek_v4 as own
from gptkit.interop.families.parts.activations import read_activation
from gptkit.interop.families.parts.experts import INERT, sparse
from gptkit.interop.families.parts.keys import keys
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["DeepseekV4Family"]


class DeepseekV4Family(Decoder):
    """DeepSeek V4: attention to a window and to compressed blocks, experts by token ids in first layers, mixed streams."""

    name: Literal["deepseek-v4"] = "deepseek-v4"
    model_type: ClassVar[str] = "deepseek_v4"
    architecture: ClassVar[str] = "DeepseekV4ForCausalLM"
    harmless: ClassVar[frozenset[str]] = Decoder.harmless | INERT | keys("num_nextn_predict_layers")
    renames: ClassVar[tuple[tuple[str, str], ...]] = own.RENAMES
    ignored: ClassVar[tuple[str, ...]] = (*Decoder.ignored, r"(model\.)?mtp\..*")
    tiny: ClassVar[tuple[Mapping[str, Any], ...]] = (own.TINY,)

    def read_position(self, config: ExternalConfig) -> dict[str, Any]:
        return own.read_position(config, "compress")

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        return own.read_attention(config, config.number(*self.eps))

    def read_feedforward(self, config: ExternalConfig) -> dict[str, Any]:
        config.only("mlp_bias", False, why="gptkit has no biases of the shared expert alone")
        config.only("n_shared_experts", 1, why="transformers has one shared expert in this family")
        width = config.integer(config.alias("moe_intermediate_size", "intermediate_size"), 2048)
        clamp = config.number("swiglu_limit", 10.0)
        expert = {
            "name": "gated",
            "d_hidden": width,
            "activation": read_activation(config, *self.activation),
            "clamp": clamp,
        }
        router = own.read_router(config)
        return sparse(config.integer("n_routed_experts", 256), router, expert, shared=expert)

    def read_block(self, config: ExternalConfig) -> dict[str, Any]:
        fields = {"streams": config.integer("hc_mult", 4), "iterations": config.integer("hc_sinkhorn_iters", 20)}
        eps = {"eps": config.number("hc_eps", 1e-6), "norm_eps": config.number(*self.eps)}
        return {"name": "manifold-hyper-connections", **fields, **eps}

    def read_layers(self, config: ExternalConfig, n_layers: int) -> Sequence[dict[str, Any]]:
        return own.read_layers(config, n_layers)

    def write_attention(self, layers: Sequence[Any]) -> dict[str, Any]:
        return own.write_attention(layers)

    def write_feedforward(self, layers: Sequence[Any]) -> dict[str, Any]:
        return own.write_feedforward(layers)

    def config(self, model: Any) -> dict[str, Any]:
        result, block = super().config(model), model.layer_specs()[0].block
        for key in ("rope_theta", "rope_scaling", "partial_rotary_factor"):
            result.pop(key, None)
        streams = {"hc_mult": block.streams, "hc_sinkhorn_iters": block.iterations, "hc_eps": block.eps}
        return {**result, **streams, **own.write_positions(model)}

    def rules(self, model: Any) -> list[Rule]:
        return [*own.rules(model), *super().rules(model)]
