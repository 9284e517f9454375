"""Gemma 4 for text, images and sound in one model: its text model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from gptkit.interop.families.decoder import Decoder
from gptkit.interop.families.gemma4 import Gemma4Family
from gptkit.interop.families.parts.gemma import N_IDS, PER_LAYER
from gptkit.interop.families.parts.gemma.experts import EXPERTS
from gptkit.interop.families.parts.gemma.small import TIED
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["Gemma4UnifiedFamily"]

OTHERS = (N_IDS, PER_LAYER, "enable_moe_block", *EXPERTS)
"""Keys of Gemma 4 that these models do not have."""


class Gemma4UnifiedFamily(Gemma4Family):
    """Gemma 4 12B (text): as Gemma 4, without embeddings for each layer and without experts."""

    name: Literal["gemma4-unified"] = "gemma4-unified"  # type: ignore[assignment]
    model_type: ClassVar[str] = "gemma4_unified_text"
    model_types: ClassVar[tuple[str, ...]] = ("gemma4_unified",)
    architecture: ClassVar[str] = "Gemma4UnifiedForCausalLM"
    tiny: ClassVar[tuple[Mapping[str, Any], ...]] = (TIED,)
    window: ClassVar[int] = 1024

    def read_block(self, config: ExternalConfig) -> dict[str, Any]:
        return {"name": "sandwich", "output_scale": "fixed"}

    def read_feedforward(self, config: ExternalConfig) -> dict[str, Any]:
        return Decoder.read_feedforward(self, config)

    def config(self, model: Any) -> dict[str, Any]:
        return {key: value for key, value in super().config(model).items() if key not in OTHERS}
