"""Cohere Compass, the language models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.cohere2 import Cohere2Family
from gptkit.interop.families.parts.keys import keys
from gptkit.interop.families.parts.rope import read_typed, write_rotary
from gptkit.interop.families.parts.windows import read_windows
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["CohereCompassFamily"]

FULL, SLIDING = "full_attention", "sliding_attention"
# Text has one position on all axes of images, so the split of the frequencies among them has no effect.
AXES = keys("mrope_section mrope_interleaved")


class CohereCompassFamily(Cohere2Family):
    """Cohere Compass (text): Command R7B with rotary positions on halves, which each type of layers has or has not."""

    name: Literal["cohere-compass"] = "cohere-compass"  # type: ignore[assignment]
    model_type: ClassVar[str] = "cohere_compass_text"
    model_types: ClassVar[tuple[str, ...]] = ("cohere_compass",)
    architecture: ClassVar[str] = "CohereCompassForCausalLM"
    harmless: ClassVar[frozenset[str]] = Cohere2Family.harmless | {"pooling"}
    prefixes: ClassVar[Mapping[str, str]] = {"model.language_model.": "model."}
    ignored: ClassVar[tuple[str, ...]] = (*Cohere2Family.ignored, r"model\.visual\..*")
    tiny: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"rope_parameters": {FULL: {"rope_type": "default", "rope_theta": 5000.0}}},
    )

    def read_position(self, config: ExternalConfig) -> dict[str, Any]:
        return self._of_type(config, FULL)

    def _of_type(self, config: ExternalConfig, layer_type: str) -> dict[str, Any]:
        """Return the position of a type of layers: none where its entry is null."""
        nested = config.section("rope_parameters", {"rope_theta", "rope_type"})
        if nested.value(layer_type) is None:
            return {"name": "none"}
        nested.section(layer_type, AXES)
        # Null, so that a layer does not inherit the scaling of the other type.
        return {"scaling": None, **read_typed(config, layer_type, 10000.0)}

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        d_head = config.integer("hidden_size") // max(1, config.integer("num_attention_heads"))
        config.only("head_dim", d_head, why="transformers divides hidden_size by the number of heads in this family")
        return super().read_attention(config)

    def read_head(self, config: ExternalConfig) -> dict[str, Any]:
        return {"scale": config.number("logit_scale", 1.0)}

    def read_layers(self, config: ExternalConfig, n_layers: int) -> Sequence[dict[str, Any]]:
        window, slides = config.nullable("sliding_window", 4096), read_windows(config, [False] * n_layers)
        nested = config.section("rope_parameters", {"rope_theta", "rope_type"})
        for layer_type in {SLIDING if each else FULL for each in slides}:
            if layer_type not in nested.data:
                config.refuse("rope_parameters", f"it should have an entry {layer_type}; null stands for no positions")
        sliding = {"attention": {"window": window}, "position": self._of_type(config, SLIDING)}
        return [sliding if each else {} for each in slides]

    def config(self, model: Any) -> dict[str, Any]:
        result = super().config(model)
        for key in ("partial_rotary_factor", "rope_scaling", "rope_theta"):
            result.pop(key, None)
        types = result["layer_types"]
        positions = {each: layer.position for each, layer in zip(types, model.layer_specs(), strict=True)}
        written = {each: write_rotary(it) if it.name == "rotary" else None for each, it in positions.items()}
        # The class needs a window even where no layer has one.
        return {
            **result,
            "sliding_window": result["sliding_window"] or 4096,
            "rope_parameters": {FULL: None, SLIDING: None, **written},
        }
