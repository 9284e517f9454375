"""GPT-NeoX Japanese."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.gpt_neox import GPTNeoXFamily
from gptkit.interop.families.parts.activations import read_activation, write_activation
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["GPTNeoXJapaneseFamily"]


class GPTNeoXJapaneseFamily(GPTNeoXFamily):
    """GPT-NeoX Japanese: one branch after the other, whole heads rotated, one bias: of the last layer's attention."""

    name: Literal["gpt-neox-japanese"] = "gpt-neox-japanese"  # type: ignore[assignment]
    model_type: ClassVar[str] = "gpt_neox_japanese"
    architecture: ClassVar[str] = "GPTNeoXJapaneseForCausalLM"
    prefix: ClassVar[str] = "gpt_neox_japanese."
    tied: ClassVar[bool] = True
    attention_biases: ClassVar[bool] = False
    fraction: ClassVar[float] = 1.0

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        return {"name": "multi-head", "n_heads": config.integer("num_attention_heads")}

    def read_feedforward(self, config: ExternalConfig) -> dict[str, Any]:
        d_hidden = config.integer("hidden_size") * config.integer("intermediate_multiple_size", 4)
        return {"name": "mlp", "d_hidden": d_hidden, "activation": read_activation(config, *self.activation), "bias": False}

    def read_block(self, config: ExternalConfig) -> dict[str, Any]:
        return {"name": "pre-norm"}

    def read_layers(self, config: ExternalConfig, n_layers: int) -> Sequence[dict[str, Any]]:
        return [*({} for _ in range(n_layers - 1)), {"attention": {"output_bias": True}}]

    def config(self, model: Any) -> dict[str, Any]:
        result = super().config(model)
        del result["use_parallel_residual"]
        return {**result, "intermediate_multiple_size": model.feedforward.d_hidden // model.d_model}

    def write_feedforward(self, layers: Sequence[Any]) -> dict[str, Any]:
        return {self.activation[0]: write_activation(layers[0].feedforward.activation)}

    def rules(self, model: Any) -> list[Rule]:
        bias = Rule("blocks.*.attention.output.bias", f"{self.prefix}layers.*.attention.dense_bias")
        usual = super().rules(model)
        prefix = GPTNeoXFamily.prefix
        return [bias, *(Rule(each.native, each.external.replace(prefix, self.prefix), each.layout) for each in usual)]
