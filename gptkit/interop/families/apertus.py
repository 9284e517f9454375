"""Apertus."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from gptkit.interop.families.decoder import Decoder
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["ApertusFamily"]

SCALING = {
    "name": "llama3",
    "factor": 8.0,
    "low_frequency_factor": 1.0,
    "high_frequency_factor": 4.0,
    "original_context_length": 8192,
}
"""The scaling of a configuration without one."""


class ApertusFamily(Decoder):
    """Apertus: xIELU without a gate, a norm for every head's query and key."""

    name: Literal["apertus"] = "apertus"
    model_type: ClassVar[str] = "apertus"
    architecture: ClassVar[str] = "ApertusForCausalLM"
    eps: ClassVar[tuple[str, float]] = ("rms_norm_eps", 1e-5)
    activation: ClassVar[tuple[str, str]] = ("hidden_act", "xielu")
    base: ClassVar[float] = 12000000.0

    def read_position(self, config: ExternalConfig) -> dict[str, Any]:
        if config.value("rope_scaling") or config.value("rope_parameters") is not None:
            return super().read_position(config)
        config.only("rope_theta", self.base, why="without rope_parameters, transformers has 12000000")
        return {"name": "rotary", "base": self.base, "scaling": SCALING}

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        return {**super().read_attention(config), "qk_norm": self.read_norm(config)}

    def read_feedforward(self, config: ExternalConfig) -> dict[str, Any]:
        config.only("post_norm", False, why="transformers normalizes the inputs of branches")
        config.only("qk_norm", True, why="transformers normalizes queries and keys")
        return {**super().read_feedforward(config), "name": "mlp"}

    def rules(self, model: Any) -> list[Rule]:
        layer = "model.layers.*"
        native = "blocks.*.feedforward.activation"
        names = {"positive": "alpha_p", "negative": "alpha_n", "beta": "beta", "eps": "eps"}
        return [
            Rule("blocks.*.attention_norm", f"{layer}.attention_layernorm"),
            Rule("blocks.*.feedforward_norm", f"{layer}.feedforward_layernorm"),
            *(Rule(f"{native}.{inner}", f"{layer}.mlp.act_fn.{outer}") for inner, outer in names.items()),
            *super().rules(model),
        ]
