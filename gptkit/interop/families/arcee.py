"""Arcee's AFM."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from gptkit.interop.families.decoder import Decoder
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["ArceeFamily"]


class ArceeFamily(Decoder):
    """Arcee's AFM: Llama with a squared ReLU in place of the gated feed-forward."""

    name: Literal["arcee"] = "arcee"
    model_type: ClassVar[str] = "arcee"
    architecture: ClassVar[str] = "ArceeForCausalLM"
    eps: ClassVar[tuple[str, float]] = ("rms_norm_eps", 1e-5)
    activation: ClassVar[tuple[str, str]] = ("hidden_act", "relu2")
    feedforward_biases: ClassVar[bool] = True

    def read_feedforward(self, config: ExternalConfig) -> dict[str, Any]:
        return {**super().read_feedforward(config), "name": "mlp"}
