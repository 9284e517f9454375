"""OLMo 2."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from gptkit.interop.families.decoder import Decoder
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["Olmo2Family"]


class Olmo2Family(Decoder):
    """OLMo 2: norms on the branches' outputs only, and on all queries and all keys of a token together."""

    name: Literal["olmo2"] = "olmo2"
    model_type: ClassVar[str] = "olmo2"
    architecture: ClassVar[str] = "Olmo2ForCausalLM"
    eps: ClassVar[tuple[str, float]] = ("rms_norm_eps", 1e-5)

    def read_norm(self, config: ExternalConfig) -> dict[str, Any]:
        return {**super().read_norm(config), "cast": "after"}

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        return {**super().read_attention(config), "qk_norm": self.read_norm(config), "qk_norm_width": "full"}

    def read_block(self, config: ExternalConfig) -> dict[str, Any]:
        return {"name": "output-norm"}

    def rules(self, model: Any) -> list[Rule]:
        norms = [
            Rule("blocks.*.attention_output_norm", "model.layers.*.post_attention_layernorm"),
            Rule("blocks.*.feedforward_output_norm", "model.layers.*.post_feedforward_layernorm"),
        ]
        return [*norms, *super().rules(model)]
