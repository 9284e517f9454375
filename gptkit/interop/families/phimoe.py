"""Phi 3.5 with experts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.decoder import Decoder
from gptkit.interop.families.parts.experts import INERT, first_of, mixtral_rules, sparse, write_experts
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["PhimoeFamily"]


class PhimoeFamily(Decoder):
    """Phi 3.5 MoE: layer norms, biases in attention, experts chosen one after the other."""

    name: Literal["phimoe"] = "phimoe"
    model_type: ClassVar[str] = "phimoe"
    architecture: ClassVar[str] = "PhimoeForCausalLM"
    harmless: ClassVar[frozenset[str]] = (Decoder.harmless | INERT) - {"router_jitter_noise"}
    eps: ClassVar[tuple[str, float]] = ("rms_norm_eps", 1e-5)
    base: ClassVar[float] = 1e6

    def read_position(self, config: ExternalConfig) -> dict[str, Any]:
        section = config.section("rope_scaling" if config.value("rope_scaling") else "rope_parameters")
        short, long = (section.maybe(key) for key in ("short_mscale", "long_mscale"))
        if short != long:
            section.refuse("long_mscale", f"it differs from short_mscale {short}; sine and cosine have one factor here")
        result = super().read_position(config)
        if short is not None and "scaling" in result:
            result["scaling"]["attention_factor"] = short
        return result

    def read_norm(self, config: ExternalConfig) -> dict[str, Any]:
        return {"name": "layer", "eps": config.number(*self.eps)}

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        return {**super().read_attention(config), "window": config.nullable("sliding_window")}

    def read_feedforward(self, config: ExternalConfig) -> dict[str, Any]:
        config.only("num_experts_per_tok", 2, why="the family's router selects two experts")
        tolerance = config.number("router_jitter_noise", 0.01)
        router = {"name": "sparsemixer", "k": 2, "tolerance": tolerance}
        return sparse(config.integer("num_local_experts", 16), router, super().read_feedforward(config))

    def read_head(self, config: ExternalConfig) -> dict[str, Any]:
        return {"bias": config.flag("lm_head_bias", False)}

    def write_feedforward(self, layers: Sequence[Any]) -> dict[str, Any]:
        result = write_experts(layers, "num_local_experts", "intermediate_size")
        return {**result, "router_jitter_noise": first_of(layers, "experts").router.tolerance}

    def config(self, model: Any) -> dict[str, Any]:
        window = model.layer_specs()[0].attention.window
        result = {**super().config(model), "sliding_window": window, "lm_head_bias": model.head.bias}
        if result.get("rope_scaling"):
            factor = result["rope_scaling"].pop("attention_factor", None)
            result["rope_scaling"] |= {} if factor is None else {"short_mscale": factor, "long_mscale": factor}
        return result

    def rules(self, model: Any) -> list[Rule]:
        return [*mixtral_rules("model.layers.*.block_sparse_moe"), *super().rules(model)]
