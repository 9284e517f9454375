"""OLMo Hybrid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.olmo2 import Olmo2Family
from gptkit.interop.families.parts.gated_delta import DELTA, delta_rules, read_delta, read_delta_types, write_delta
from gptkit.interop.families.parts.hybrids import layers_with, layers_without
from gptkit.interop.families.parts.keys import keys
from gptkit.interop.layouts import HALVES, LINEAR_HEADS, THIRDS
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["OlmoHybridFamily"]


class OlmoHybridFamily(Olmo2Family):
    """OLMo Hybrid: three pre-norm layers of linear attention to one of OLMo 2's, mostly without positions."""

    name: Literal["olmo-hybrid"] = "olmo-hybrid"  # type: ignore[assignment]
    model_type: ClassVar[str] = "olmo_hybrid"
    architecture: ClassVar[str] = "OlmoHybridForCausalLM"
    harmless: ClassVar[frozenset[str]] = Olmo2Family.harmless | keys(
        "linear_a_log_min linear_a_log_max linear_dt_min linear_dt_max linear_dt_init_floor"
    )
    eps: ClassVar[tuple[str, float]] = ("rms_norm_eps", 1e-6)
    tiny: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"linear_key_head_dim": 8, "linear_value_head_dim": 12, "layer_types": ["linear_attention", "full_attention"] * 2},
    )

    def read_position(self, config: ExternalConfig) -> dict[str, Any]:
        section = config.section("rope_scaling" if config.value("rope_scaling") else "rope_parameters")
        null = section.is_null("rope_theta") or (config.is_null("rope_theta") and "rope_theta" not in section)
        if not null:
            return super().read_position(config)
        config.value("rope_theta")
        section.only("rope_type", "default", why="without rope_theta, layers have no positions")
        return {"name": "none"}

    def read_layers(self, config: ExternalConfig, n_layers: int) -> Sequence[dict[str, Any]]:
        n_heads = config.integer("num_attention_heads")
        d_key = config.integer("linear_key_head_dim", int(0.75 * config.integer("hidden_size") / max(1, n_heads)))
        defaults = {"n_heads": n_heads, "n_value_heads": n_heads, "d_key": d_key, "d_value": 2 * d_key}
        linear = read_delta(config, 1e-5, defaults)
        linear["attention"]["negative_eigenvalues"] = config.flag("linear_allow_neg_eigval", True)
        linear["block"] = "pre-norm"
        return [linear if each else {} for each in read_delta_types(config, n_layers)]

    def config(self, model: Any) -> dict[str, Any]:
        result = super().config(model)
        turned = any(layer.position.name == "rotary" for layer in model.layer_specs())
        return result if turned else {**result, "rope_parameters": {"rope_type": "default", "rope_theta": None}}

    def write_attention(self, layers: Sequence[Any]) -> dict[str, Any]:
        linear = layers_with(layers, DELTA)[0].attention
        result = {**super().write_attention(layers_without(layers, DELTA)), **write_delta(layers)}
        return {**result, "linear_allow_neg_eigval": linear.negative_eigenvalues}

    def rules(self, model: Any) -> list[Rule]:
        native, layer = "blocks.*.attention", "model.layers.*"
        linear = f"{layer}.linear_attn"
        return [
            Rule(f"{native}.conv", f"{linear}.{{q,k,v}}_conv1d", THIRDS),
            Rule(f"{native}.qkvz", f"{linear}.{{q,k,v,g}}_proj", LINEAR_HEADS),
            Rule(f"{native}.rates", f"{linear}.{{b,a}}_proj", HALVES),
            *delta_rules(model, "o_norm", "o_proj"),
            # transformers saves both norms of a layer, by whatever name it has them, under these.
            Rule("blocks.*.attention_norm", f"{layer}.attention_layer_norm"),
            Rule("blocks.*.feedforward_norm", f"{layer}.feedforward_layer_norm"),
            Rule("blocks.*.attention_output_norm", f"{layer}.feedforward_layer_norm"),
            *super().rules(model),
        ]
