"""OLMo 3."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.olmo2 import Olmo2Family
from gptkit.interop.families.parts.rope import read_two, write_two
from gptkit.interop.families.parts.windows import all_but_every, read_windows, write_windows
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["Olmo3Family"]


class Olmo3Family(Olmo2Family):
    """OLMo 3: OLMo 2 with three sliding layers to a full one, and longer texts read by the full ones."""

    name: Literal["olmo3"] = "olmo3"  # type: ignore[assignment]
    model_type: ClassVar[str] = "olmo3"
    architecture: ClassVar[str] = "Olmo3ForCausalLM"

    def read_position(self, config: ExternalConfig) -> dict[str, Any]:
        return read_two(config, 5e5, 5e5, "")[0]

    def read_layers(self, config: ExternalConfig, n_layers: int) -> Sequence[dict[str, Any]]:
        local = read_two(config, 5e5, 5e5, "")[1]
        slide = {"attention": {"window": config.nullable("sliding_window", 4096)}, "position": local}
        return [slide if each else {} for each in read_windows(config, all_but_every(4, n_layers))]

    def config(self, model: Any) -> dict[str, Any]:
        result = super().config(model)
        for key in ("rope_theta", "rope_scaling", "partial_rotary_factor"):
            result.pop(key, None)
        return {**result, **write_two(model.layer_specs()), **write_windows(model, 4096)}
