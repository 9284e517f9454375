"""Phi 1 to 2."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from gptkit.interop.families.decoder import Decoder
from gptkit.interop.layouts import HEADS
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["PhiFamily"]


class PhiFamily(Decoder):
    """Phi 1, 1.5 and 2: parallel branches with one norm, rotary on a part of each head, biases everywhere."""

    name: Literal["phi"] = "phi"
    model_type: ClassVar[str] = "phi"
    architecture: ClassVar[str] = "PhiForCausalLM"
    eps: ClassVar[tuple[str, float]] = ("layer_norm_eps", 1e-5)
    activation: ClassVar[tuple[str, str]] = ("hidden_act", "gelu_new")
    attention_biases: ClassVar[bool] = False
    fraction: ClassVar[float] = 0.5

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        norm = self.read_norm(config) if config.flag("qk_layernorm", False) else None
        return {**super().read_attention(config), "qkv_bias": True, "output_bias": True, "qk_norm": norm}

    def read_norm(self, config: ExternalConfig) -> dict[str, Any]:
        return {"name": "layer", "eps": config.number(*self.eps)}

    def read_feedforward(self, config: ExternalConfig) -> dict[str, Any]:
        return {**super().read_feedforward(config), "name": "mlp", "bias": True}

    def read_block(self, config: ExternalConfig) -> dict[str, Any]:
        return {"name": "parallel"}

    def read_head(self, config: ExternalConfig) -> dict[str, Any]:
        return {"bias": True}

    def config(self, model: Any) -> dict[str, Any]:
        result = {**super().config(model), "qk_layernorm": model.layer_specs()[0].attention.qk_norm is not None}
        return {key: value for key, value in result.items() if key != "mlp_bias"}

    def rules(self, model: Any) -> list[Rule]:
        layer = "model.layers.*"
        return [
            Rule("embedding.table", "model.embed_tokens"),
            Rule("blocks.*.attention_norm", f"{layer}.input_layernorm"),
            Rule("blocks.*.attention.qkv", f"{layer}.self_attn.{{q,k,v}}_proj", HEADS),
            Rule("blocks.*.attention.q_norm", f"{layer}.self_attn.q_layernorm"),
            Rule("blocks.*.attention.k_norm", f"{layer}.self_attn.k_layernorm"),
            Rule("blocks.*.attention.output", f"{layer}.self_attn.dense"),
            Rule("blocks.*.feedforward.up", f"{layer}.mlp.fc1"),
            Rule("blocks.*.feedforward.down", f"{layer}.mlp.fc2"),
            Rule("final_norm", "model.final_layernorm"),
            Rule("head", "lm_head"),
        ]
