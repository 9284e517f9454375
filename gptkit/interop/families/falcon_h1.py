"""Falcon-H1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.decoder import Decoder
from gptkit.interop.families.parts import falcon_h1
from gptkit.interop.families.parts.keys import keys
from gptkit.interop.families.parts.mamba.mamba2 import INERT_MAMBA, TENSORS
from gptkit.interop.layouts import HEADS, Within
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["FalconH1Family"]


class FalconH1Family(Decoder):
    """Falcon-H1: attention and Mamba-2 side by side in every layer, and factors of embeddings, projections and outputs."""

    name: Literal["falcon-h1"] = "falcon-h1"
    model_type: ClassVar[str] = "falcon_h1"
    architecture: ClassVar[str] = "FalconH1ForCausalLM"
    harmless: ClassVar[frozenset[str]] = (
        Decoder.harmless
        | INERT_MAMBA
        | keys("attn_layer_indices layer_types layers_block_type mamba_expand mamba_use_mlp")
        | keys("mlp_expansion_factor time_step_floor time_step_max time_step_min time_step_rank")
    )
    eps: ClassVar[tuple[str, float]] = ("rms_norm_eps", 1e-5)
    inner: ClassVar[str] = "feed_forward"
    feedforward_biases: ClassVar[bool] = True
    tiny: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"mamba_n_heads": 4, "mamba_d_ssm": 40, "mamba_d_head": "auto", "mamba_d_state": 8, "mamba_n_groups": 2},
    )

    def read_embedding(self, config: ExternalConfig) -> dict[str, Any]:
        scale = config.number("embedding_multiplier", 1.0)
        return {"name": "token", "scale": None if scale == 1 else scale}

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        attention = super().read_attention(config)
        scale = attention["d_head"] ** -0.5 * config.number("key_multiplier", 1.0)
        return {
            "name": "hybrid",
            "attention": {**attention, "scale": scale},
            "recurrence": falcon_h1.read_mamba(config, self.eps, self.activation),
            "attention_scale": config.number("attention_out_multiplier", 1.0),
            "attention_input_scale": config.number("attention_in_multiplier", 1.0),
            "recurrence_scale": config.number("ssm_out_multiplier", 1.0),
            "recurrence_input_scale": config.number("ssm_in_multiplier", 1.0),
        }

    def read_feedforward(self, config: ExternalConfig) -> dict[str, Any]:
        gate, output = falcon_h1.read_factors(config, "mlp_multipliers", 2)
        return {**super().read_feedforward(config), "gate_scale": gate, "output_scale": output}

    def read_head(self, config: ExternalConfig) -> dict[str, Any]:
        return {"scale": config.number("lm_head_multiplier", 1.0)}

    def config(self, model: Any) -> dict[str, Any]:
        return {**super().config(model), **falcon_h1.write(model)}

    def write_attention(self, layers: Sequence[Any]) -> dict[str, Any]:
        return super().write_attention([falcon_h1.attending(layer) for layer in layers])

    def rules(self, model: Any) -> list[Rule]:
        native, external = "blocks.*.attention", "model.layers.*"
        return [
            *(Rule(f"{native}.recurrence.{own}", f"{external}.mamba.{name}") for own, name in TENSORS.items()),
            Rule(f"{native}.attention.qkv", f"{external}.self_attn.{{q,k,v}}_proj", Within(HEADS, "attention")),
            Rule(f"{native}.attention.output", f"{external}.self_attn.o_proj"),
            Rule("blocks.*.feedforward_norm", f"{external}.pre_ff_layernorm"),
            Rule("final_norm", "model.final_layernorm"),
            *super().rules(model),
        ]
