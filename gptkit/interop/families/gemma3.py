"""Gemma 3, the text models and the language models of the multimodal ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.gemma2 import Gemma2Family
from gptkit.interop.families.parts.rope import read_two, write_two
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["Gemma3Family"]


class Gemma3Family(Gemma2Family):
    """Gemma 3 (text): five sliding layers to a full one, each with its own rotary base; normalized queries and keys."""

    name: Literal["gemma3"] = "gemma3"  # type: ignore[assignment]
    model_type: ClassVar[str] = "gemma3_text"
    model_types: ClassVar[tuple[str, ...]] = ("gemma3",)
    architecture: ClassVar[str] = "Gemma3ForCausalLM"
    prefixes: ClassVar[Mapping[str, str]] = {"model.language_model.": "model.", "language_model.": ""}
    ignored: ClassVar[tuple[str, ...]] = (
        *Gemma2Family.ignored,
        r"(model\.)?(vision_tower|multi_modal_projector)\..*",
    )
    caps: ClassVar[tuple[float | None, float | None]] = (None, None)
    every: ClassVar[int] = 6

    def read_position(self, config: ExternalConfig) -> dict[str, Any]:
        return read_two(config, 1e6, 1e4)[0]

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        config.only("attn_logit_softcapping", None, why="transformers ignores it in Gemma 3; remove it from the file")
        return {**super().read_attention(config), "qk_norm": self.read_norm(config)}

    def read_layers(self, config: ExternalConfig, n_layers: int) -> Sequence[dict[str, Any]]:
        local = read_two(config, 1e6, 1e4)[1]
        return [{**each, "position": local} if each else {} for each in super().read_layers(config, n_layers)]

    def config(self, model: Any) -> dict[str, Any]:
        result = super().config(model)
        for key in ("rope_theta", "rope_scaling", "partial_rotary_factor"):
            result.pop(key, None)
        return {**result, **write_two(model.layer_specs())}
