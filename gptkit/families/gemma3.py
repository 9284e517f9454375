"""Gemma 3, the text models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from gptkit.families._rope import read_rotary, write_rotary
from gptkit.families.gemma2 import Gemma2Family
from gptkit.kinds.foreign import ForeignConfig

__all__ = ["Gemma3Family"]


class Gemma3Family(Gemma2Family):
    """Gemma 3 (text): five sliding layers to a full one, each with its own rotary base; normalised queries and keys."""

    name: Literal["gemma3"] = "gemma3"  # type: ignore[assignment]
    model_type: ClassVar[str] = "gemma3_text"
    architecture: ClassVar[str] = "Gemma3ForCausalLM"
    caps: ClassVar[tuple[float | None, float | None]] = (None, None)
    every: ClassVar[int] = 6

    def read_position(self, config: ForeignConfig) -> dict[str, Any]:
        nested = config.section("rope_parameters")
        section = nested.section("full_attention") if "full_attention" in nested else config.section("rope_scaling")
        return read_rotary(section, config, config.number("rope_theta", 1e6))

    def read_attention(self, config: ForeignConfig) -> dict[str, Any]:
        return {**super().read_attention(config), "qk_norm": self.read_norm(config)}

    def read_layers(self, config: ForeignConfig, n_layers: int) -> Sequence[dict[str, Any]]:
        nested = config.section("rope_parameters").section("sliding_attention")
        local = read_rotary(nested, config, config.number("rope_local_base_freq", 1e4))
        position = {"scaling": None, **local}
        return [{**each, "position": position} if each else {} for each in super().read_layers(config, n_layers)]

    def config(self, model: Any) -> dict[str, Any]:
        layers = model.layer_specs()
        full = next((layer.position for layer in layers if not layer.attention.window), model.position)
        local = next((layer.position for layer in layers if layer.attention.window), full)
        found = super().config(model)
        for key in ("rope_theta", "rope_scaling", "partial_rotary_factor"):
            found.pop(key, None)
        both = {"full_attention": write_rotary(full), "sliding_attention": write_rotary(local)}
        return {**found, "rope_parameters": both}
