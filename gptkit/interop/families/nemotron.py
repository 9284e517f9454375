"""Nemotron."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from gptkit.interop.families.decoder import Decoder
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["NemotronFamily"]


class NemotronFamily(Decoder):
    """Nemotron 4 and Minitron: layer norms that store w - 1, squared ReLU without a gate, rotary on half of each head."""

    name: Literal["nemotron"] = "nemotron"
    model_type: ClassVar[str] = "nemotron"
    architecture: ClassVar[str] = "NemotronForCausalLM"
    synonyms: ClassVar[Mapping[str, str]] = {
        "kv_channels": "head_dim",
        "num_query_groups": "num_key_value_heads",
        "rope_percent": "partial_rotary_factor",
        "rope_percentage": "partial_rotary_factor",
    }
    eps: ClassVar[tuple[str, float]] = ("norm_eps", 1e-5)
    activation: ClassVar[tuple[str, str]] = ("hidden_act", "relu2")
    fraction: ClassVar[float] = 0.5
    feedforward_biases: ClassVar[bool] = True

    def read_norm(self, config: ExternalConfig) -> dict[str, Any]:
        return {"name": "layer", "eps": config.number(*self.eps), "offset": 1.0}

    def read_feedforward(self, config: ExternalConfig) -> dict[str, Any]:
        return {**super().read_feedforward(config), "name": "mlp"}
