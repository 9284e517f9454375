"""EXAONE 4."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.olmo2 import Olmo2Family
from gptkit.interop.families.parts.windows import all_but_every, read_windows, write_windows
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["Exaone4Family"]


class Exaone4Family(Olmo2Family):
    """EXAONE 4: norms on the branches' outputs; three sliding layers with rotary positions to a full one without any."""

    name: Literal["exaone4"] = "exaone4"  # type: ignore[assignment]
    model_type: ClassVar[str] = "exaone4"
    architecture: ClassVar[str] = "Exaone4ForCausalLM"
    attention_biases: ClassVar[bool] = False

    def read_norm(self, config: ExternalConfig) -> dict[str, Any]:
        return {**super().read_norm(config), "cast": "before"}

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        return {**super().read_attention(config), "qk_norm_width": "head"}

    def read_layers(self, config: ExternalConfig, n_layers: int) -> Sequence[dict[str, Any]]:
        window, interval = config.nullable("sliding_window", 4096), self._interval(config)
        slides = read_windows(config, all_but_every(interval if window else 1, n_layers))
        if window == 0:
            config.refuse("sliding_window", "a window has at least one token; write null for layers without windows")
        if window is None and any(slides):
            config.refuse("layer_types", "it has sliding windows, and sliding_window is null")
        # Without windows, all layers have positions.
        return [{"attention": {"window": window}} if each else {"position": "none"} for each in slides] if window else []

    def _interval(self, config: ExternalConfig) -> int:
        """Return n where each n-th layer is a full one: 4, or LLLG."""
        pattern = config.value("sliding_window_pattern")
        if isinstance(pattern, str) and pattern == "L" * (len(pattern) - 1) + "G":
            return len(pattern)
        return config.integer("sliding_window_pattern", 4)

    def config(self, model: Any) -> dict[str, Any]:
        result = {**super().config(model), **write_windows(model)}
        return {**result, "sliding_window_pattern": 4 if result["sliding_window"] else None}
