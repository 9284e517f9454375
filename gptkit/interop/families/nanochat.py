"""nanochat."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from gptkit.interop.families.decoder import Decoder
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["NanoChatFamily"]


class NanoChatFamily(Decoder):
    """nanochat: norms without weights, also of embeddings and of rotated queries and keys; squared ReLU, capped logits."""

    name: Literal["nanochat"] = "nanochat"
    model_type: ClassVar[str] = "nanochat"
    architecture: ClassVar[str] = "NanoChatForCausalLM"
    activation: ClassVar[tuple[str, str]] = ("hidden_act", "relu2")

    def read_embedding(self, config: ExternalConfig) -> dict[str, Any]:
        return {"name": "token", "norm": self.read_norm(config)}

    def read_position(self, config: ExternalConfig) -> dict[str, Any]:
        return {**super().read_position(config), "reverse": True}

    def read_norm(self, config: ExternalConfig) -> dict[str, Any]:
        return {**super().read_norm(config), "scale": False}

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        return {**super().read_attention(config), "qk_norm": self.read_norm(config), "qk_norm_order": "after"}

    def read_feedforward(self, config: ExternalConfig) -> dict[str, Any]:
        return {**super().read_feedforward(config), "name": "mlp"}

    def read_head(self, config: ExternalConfig) -> dict[str, Any]:
        key = "final_logit_softcapping"
        return {"softcap": config.maybe(key) if key in config.data else config.number(key, 15.0)}

    def config(self, model: Any) -> dict[str, Any]:
        return {**super().config(model), "final_logit_softcapping": model.head.softcap}

    def rules(self, model: Any) -> list[Rule]:
        names = {"up": "fc1", "down": "fc2"}
        linears = [Rule(f"blocks.*.feedforward.{native}", f"model.layers.*.mlp.{each}") for native, each in names.items()]
        return [*linears, *super().rules(model)]
