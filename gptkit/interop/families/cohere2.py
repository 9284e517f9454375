"""Cohere's Command R7B and A."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.cohere import CohereFamily
from gptkit.interop.families.parts.keys import keys
from gptkit.interop.families.parts.windows import all_but_every, read_windows, write_windows
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["Cohere2Family"]


class Cohere2Family(CohereFamily):
    """Command R7B and A: three sliding layers with rotary positions to a full one without any."""

    name: Literal["cohere2"] = "cohere2"  # type: ignore[assignment]
    model_type: ClassVar[str] = "cohere2"
    architecture: ClassVar[str] = "Cohere2ForCausalLM"
    harmless: ClassVar[frozenset[str]] = keys(
        "order_of_interleaved_layers cache_implementation use_parallel_embedding max_input_length"
    )
    base: ClassVar[float] = 10000.0

    def model(self, config: ExternalConfig) -> dict[str, Any]:
        usual = {"position_embedding_type": "rope_gptj", "use_parallel_block": True, "use_qk_norm": False}
        usual |= {"use_embedding_sharing": True, "use_gated_activation": True, "rotary_pct": 1.0}
        for key, value in usual.items():
            config.only(key, value, why="transformers has nothing else in this family")
        return super().model(config)

    def read_layers(self, config: ExternalConfig, n_layers: int) -> Sequence[dict[str, Any]]:
        window = config.nullable("sliding_window", 4096)
        n = config.integer(config.alias("sliding_window_pattern", "layer_switch"), 4)
        slides = read_windows(config, all_but_every(n, n_layers))
        return [{"attention": {"window": window}} if each else {"position": "none"} for each in slides]

    def config(self, model: Any) -> dict[str, Any]:
        result = {**super().config(model), **write_windows(model, 4096)}
        del result["use_qk_norm"]
        return result
