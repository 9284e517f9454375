"""Youtu-LLM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.decoder import Decoder
from gptkit.interop.families.deepseek_v3 import DeepseekV3Family
from gptkit.interop.families.parts.latent import LatentDecoder
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["YoutuFamily"]


class YoutuFamily(DeepseekV3Family):
    """Youtu-LLM: DeepSeek V3's latent attention with a gated feed-forward in every layer."""

    name: Literal["youtu"] = "youtu"  # type: ignore[assignment]
    model_type: ClassVar[str] = "youtu"
    architecture: ClassVar[str] = "YoutuForCausalLM"
    harmless: ClassVar[frozenset[str]] = DeepseekV3Family.harmless | {"embedding_initializer_range"}
    tied: ClassVar[bool] = True
    tiny: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {key: value for key, value in LatentDecoder.tiny[0].items() if "lora" in key or "head" in key},
    )

    def model(self, config: ExternalConfig) -> dict[str, Any]:
        return Decoder.model(self, config)

    def read_feedforward(self, config: ExternalConfig) -> dict[str, Any]:
        return self.read_dense(config)

    def read_layers(self, config: ExternalConfig, n_layers: int) -> Sequence[dict[str, Any]]:
        return []

    def write_feedforward(self, layers: Sequence[Any]) -> dict[str, Any]:
        return {
            **Decoder.write_feedforward(self, layers),
            "rope_interleave": layers[0].position.layout == "interleaved",
        }
