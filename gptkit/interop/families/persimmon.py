"""Persimmon."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from gptkit.interop.families.decoder import Decoder
from gptkit.interop.layouts import GROUPED
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["PersimmonFamily"]


class PersimmonFamily(Decoder):
    """Persimmon: layer norms, also of queries and keys, squared ReLU, rotary on half of each head, biases everywhere."""

    name: Literal["persimmon"] = "persimmon"
    model_type: ClassVar[str] = "persimmon"
    architecture: ClassVar[str] = "PersimmonForCausalLM"
    eps: ClassVar[tuple[str, float]] = ("layer_norm_eps", 1e-5)
    activation: ClassVar[tuple[str, str]] = ("hidden_act", "relu2")
    fraction: ClassVar[float] = 0.5
    attention_biases: ClassVar[bool] = False

    def read_norm(self, config: ExternalConfig) -> dict[str, Any]:
        return {"name": "layer", "eps": config.number(*self.eps)}

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        norm = self.read_norm(config) if config.flag("qk_layernorm", True) else None
        n_heads = config.integer("num_attention_heads")
        return {"name": "multi-head", "n_heads": n_heads, "qkv_bias": True, "output_bias": True, "qk_norm": norm}

    def read_feedforward(self, config: ExternalConfig) -> dict[str, Any]:
        return {**super().read_feedforward(config), "name": "mlp", "bias": True}

    def config(self, model: Any) -> dict[str, Any]:
        result = {**super().config(model), "qk_layernorm": model.layer_specs()[0].attention.qk_norm is not None}
        return {key: value for key, value in result.items() if key not in ("num_key_value_heads", "head_dim")}

    def rules(self, model: Any) -> list[Rule]:
        layer = "model.layers.*"
        return [
            Rule("blocks.*.attention.qkv", f"{layer}.self_attn.query_key_value", GROUPED),
            Rule("blocks.*.attention.q_norm", f"{layer}.self_attn.q_layernorm"),
            Rule("blocks.*.attention.k_norm", f"{layer}.self_attn.k_layernorm"),
            Rule("blocks.*.attention.output", f"{layer}.self_attn.dense"),
            Rule("blocks.*.feedforward.up", f"{layer}.mlp.dense_h_to_4h"),
            Rule("blocks.*.feedforward.down", f"{layer}.mlp.dense_4h_to_h"),
            Rule("final_norm", "model.final_layernorm"),
            *super().rules(model),
        ]
