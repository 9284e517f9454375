"""SmolLM 3."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.decoder import Decoder
from gptkit.interop.families.parts.layers import every
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["SmolLM3Family"]


class SmolLM3Family(Decoder):
    """SmolLM 3: Llama without positions in every fourth layer."""

    name: Literal["smollm3"] = "smollm3"
    model_type: ClassVar[str] = "smollm3"
    architecture: ClassVar[str] = "SmolLM3ForCausalLM"
    tied: ClassVar[bool] = True
    base: ClassVar[float] = 2000000.0
    feedforward_biases: ClassVar[bool] = True

    def read_layers(self, config: ExternalConfig, n_layers: int) -> Sequence[dict[str, Any]]:
        config.only("use_sliding_window", False, why="no released model has windows, and which layers would is not settled")
        for key in ("sliding_window", "layer_types"):
            config.value(key)
        bare = every(config.integer("no_rope_layer_interval", 4), n_layers)
        turned = config.items("no_rope_layers", [int(not each) for each in bare])
        if len(turned) != n_layers or not set(turned) <= {0, 1}:
            config.refuse("no_rope_layers", f"it should have 1 (rotary) or 0 (none) for each of {n_layers} layers")
        return [{} if each else {"position": "none"} for each in turned]

    def config(self, model: Any) -> dict[str, Any]:
        turned = [int(layer.position.name != "none") for layer in model.layer_specs()]
        return {**super().config(model), "no_rope_layers": turned, "use_sliding_window": False}
