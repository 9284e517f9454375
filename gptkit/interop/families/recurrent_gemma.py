"""RecurrentGemma."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.decoder import Decoder
from gptkit.interop.families.parts import recurrent_gemma as griffin
from gptkit.interop.families.parts.activations import read_activation, write_activation
from gptkit.interop.families.parts.hybrids import layers_without
from gptkit.interop.families.parts.keys import keys
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["RecurrentGemmaFamily"]

CAP = ("logits_soft_cap", 30.0)


class RecurrentGemmaFamily(Decoder):
    """RecurrentGemma (Griffin): gated linear recurrences in two of three layers, sliding attention in the third."""

    name: Literal["recurrent-gemma"] = "recurrent-gemma"
    model_type: ClassVar[str] = "recurrent_gemma"
    architecture: ClassVar[str] = "RecurrentGemmaForCausalLM"
    harmless: ClassVar[frozenset[str]] = Decoder.harmless | keys("final_w_init_variance_scale w_init_variance_scale")
    tied: ClassVar[bool] = True
    activation: ClassVar[tuple[str, str]] = ("hidden_activation", "gelu_pytorch_tanh")
    fraction: ClassVar[float] = 0.5
    tiny: ClassVar[tuple[Mapping[str, Any], ...]] = ({"attention_window_size": 6, "lru_width": 40},)

    def model(self, config: ExternalConfig) -> dict[str, Any]:
        # The recurrence has no limit, and the configuration no such key; exports have it.
        length = config.integer("max_position_embeddings", 8192)
        return {**super().model(config), "context_length": length}

    def read_embedding(self, config: ExternalConfig) -> dict[str, Any]:
        config.only("embeddings_scale_by_sqrt_dim", True, why="transformers always multiplies embeddings by √hidden_size")
        return {"name": "token", "scale": griffin.in_bf16(math.sqrt(config.integer("hidden_size")))}

    def read_position(self, config: ExternalConfig) -> dict[str, Any]:
        position = super().read_position(config)
        if "scaling" in position:
            config.refuse("rope_parameters", "transformers supports rope_type default only")
        return position

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        window = config.integer("attention_window_size", 2048)
        return {**super().read_attention(config), "output_bias": True, "window": window}

    def read_norm(self, config: ExternalConfig) -> dict[str, Any]:
        return {**super().read_norm(config), "offset": 1, "cast": "after"}

    def read_feedforward(self, config: ExternalConfig) -> dict[str, Any]:
        width = config.integer(self.width, 7680) // 2
        return {"name": "gated", "d_hidden": width, "activation": read_activation(config, *self.activation), "bias": True}

    def read_head(self, config: ExternalConfig) -> dict[str, Any]:
        return {"softcap": config.number(*CAP)}

    def read_layers(self, config: ExternalConfig, n_layers: int) -> Sequence[dict[str, Any]]:
        recurrence = griffin.read_recurrence(config, read_activation(config, *self.activation))
        return [recurrence if each else {} for each in griffin.read_types(config, n_layers)]

    def config(self, model: Any) -> dict[str, Any]:
        return {**super().config(model), CAP[0]: model.head.softcap, **griffin.write_recurrence(model)}

    def write_attention(self, layers: Sequence[Any]) -> dict[str, Any]:
        full = layers_without(layers, "rg-lru")
        return {**super().write_attention(full), "attention_window_size": full[0].attention.window}

    def write_feedforward(self, layers: Sequence[Any]) -> dict[str, Any]:
        feedforward = layers[0].feedforward
        return {self.width: 2 * feedforward.d_hidden, self.activation[0]: write_activation(feedforward.activation)}

    def rules(self, model: Any) -> list[Rule]:
        return [*griffin.rules(model), Rule("final_norm", "model.final_norm"), *super().rules(model)]
