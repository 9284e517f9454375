"""Gemma."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from gptkit.interop.families.decoder import Decoder
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["GemmaFamily"]


class GemmaFamily(Decoder):
    """Gemma: embeddings times √d_model, norms that store w - 1, GEGLU, a head size of its own."""

    name: Literal["gemma"] = "gemma"
    model_type: ClassVar[str] = "gemma"
    architecture: ClassVar[str] = "GemmaForCausalLM"
    tied: ClassVar[bool] = True
    d_head: ClassVar[int | None] = 256
    activation: ClassVar[tuple[str, str]] = ("hidden_act", "gelu_pytorch_tanh")

    def model(self, config: ExternalConfig) -> dict[str, Any]:
        config.only("use_bidirectional_attention", False, why="attention is causal here")
        return super().model(config)

    def read_embedding(self, config: ExternalConfig) -> dict[str, Any]:
        return {"name": "token", "scale": "sqrt"}

    def read_norm(self, config: ExternalConfig) -> dict[str, Any]:
        return {**super().read_norm(config), "offset": 1, "cast": "after"}

    def read_feedforward(self, config: ExternalConfig) -> dict[str, Any]:
        first = self.activation[0] == "hidden_act"
        config.value("hidden_activation" if first else "hidden_act")
        result = super().read_feedforward(config)
        # The first releases say `gelu` and mean its approximation, as they said in `hidden_activation` later.
        renamed = first and config.value("hidden_act") == "gelu"
        return {**result, "activation": "gelu-tanh" if renamed else result["activation"]}
