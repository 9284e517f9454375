"""ZAYA1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.decoder import Decoder
from gptkit.interop.families.parts import experts
from gptkit.interop.families.parts.zaya import attention
from gptkit.interop.families.parts.zaya.layers import read_kinds, read_position, write_kinds
from gptkit.interop.families.parts.zaya.tensors import zaya_rules
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["ZayaFamily"]

AFFINE = {"name": "affine", "bias": "before"}
TINY: dict[str, Any] = {"num_experts": 5, "num_experts_per_tok": 1, "router_hidden_size": 7, "cca_time0": 3}
TINY |= {"layer_types": ["hybrid", "hybrid_sliding", "hybrid", "hybrid"], "sliding_window": 6}


class ZayaFamily(Decoder):
    """ZAYA1: convolutional attention in few heads, experts chosen by networks, learned scales of the residual stream."""

    name: Literal["zaya"] = "zaya"
    model_type: ClassVar[str] = "zaya"
    architecture: ClassVar[str] = "ZayaForCausalLM"
    harmless: ClassVar[frozenset[str]] = Decoder.harmless | experts.INERT
    tied: ClassVar[bool] = True
    eps: ClassVar[tuple[str, float]] = ("rms_norm_eps", 1e-5)
    d_head: ClassVar[int | None] = 128
    tiny: ClassVar[tuple[Mapping[str, Any], ...]] = (TINY,)

    def read_embedding(self, config: ExternalConfig) -> dict[str, Any]:
        return {"name": "token", "norm": AFFINE}

    def read_position(self, config: ExternalConfig) -> dict[str, Any]:
        return read_position(config)

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        return attention.read_attention(config)

    def read_feedforward(self, config: ExternalConfig) -> dict[str, Any]:
        config.only("num_experts_per_tok", 1, why="transformers has one expert per token in this family")
        expert = experts.dense(super().read_feedforward(config), config.integer("moe_intermediate_size", 2048))
        router = {"name": "network", "k": 1, "renormalize": False, "selection_bias": True, "reads_previous": True}
        router |= {"d_hidden": config.integer("router_hidden_size", 256), "norm": self.read_norm(config)}
        return experts.sparse(config.integer("num_experts", 16), router, expert, zero_experts=1)

    def read_block(self, config: ExternalConfig) -> dict[str, Any]:
        return {"name": "pre-norm", "output_norm": AFFINE, "stream_norm": AFFINE}

    def read_head(self, config: ExternalConfig) -> dict[str, Any]:
        return {"bias": config.flag("lm_head_bias", False)}

    def read_layers(self, config: ExternalConfig, n_layers: int) -> Sequence[dict[str, Any]]:
        return read_kinds(config, n_layers)

    def write_attention(self, layers: Sequence[Any]) -> dict[str, Any]:
        return attention.write_attention(layers[0].attention)

    def write_feedforward(self, layers: Sequence[Any]) -> dict[str, Any]:
        return {
            **experts.write_experts(layers, "num_experts", "moe_intermediate_size"),
            "router_hidden_size": layers[0].feedforward.router.d_hidden,
        }

    def config(self, model: Any) -> dict[str, Any]:
        return {**write_kinds(super().config(model), model), "lm_head_bias": model.head.bias}

    def rules(self, model: Any) -> list[Rule]:
        return [*zaya_rules(), *super().rules(model)]
