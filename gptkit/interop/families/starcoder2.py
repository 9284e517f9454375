"""StarCoder 2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from gptkit.interop.families.decoder import Decoder
from gptkit.interop.families.parts.keys import keys
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["Starcoder2Family"]


class Starcoder2Family(Decoder):
    """StarCoder 2: rotary, grouped queries and a sliding window, with layer norms, biases and an ungated feed-forward."""

    name: Literal["starcoder2"] = "starcoder2"
    model_type: ClassVar[str] = "starcoder2"
    architecture: ClassVar[str] = "Starcoder2ForCausalLM"
    harmless: ClassVar[frozenset[str]] = Decoder.harmless | keys(
        "activation_function attention_softmax_in_fp32 mlp_type norm_type scale_attention_softmax_in_fp32"
    )
    redundant: ClassVar[Mapping[str, tuple[Any, ...]]] = {"scale_attn_weights": (True,)}
    synonyms: ClassVar[Mapping[str, str]] = {"layer_norm_epsilon": "norm_epsilon"}
    tied: ClassVar[bool] = True
    eps: ClassVar[tuple[str, float]] = ("norm_epsilon", 1e-5)
    activation: ClassVar[tuple[str, str]] = ("hidden_act", "gelu_pytorch_tanh")
    attention_biases: ClassVar[bool] = False

    def read_norm(self, config: ExternalConfig) -> dict[str, Any]:
        return {"name": "layer", "eps": config.number(*self.eps)}

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        bias = config.flag("use_bias", True)
        more = {"window": config.nullable("sliding_window"), "qkv_bias": bias, "output_bias": bias}
        return {**super().read_attention(config), **more}

    def read_feedforward(self, config: ExternalConfig) -> dict[str, Any]:
        return {**super().read_feedforward(config), "name": "mlp", "bias": config.flag("use_bias", True)}

    def config(self, model: Any) -> dict[str, Any]:
        layer = model.layer_specs()[0]
        return {**super().config(model), "use_bias": layer.feedforward.bias, "sliding_window": layer.attention.window}

    def rules(self, model: Any) -> list[Rule]:
        plain = [
            Rule("blocks.*.feedforward.up", "model.layers.*.mlp.c_fc"),
            Rule("blocks.*.feedforward.down", "model.layers.*.mlp.c_proj"),
        ]
        return [*plain, *super().rules(model)]
