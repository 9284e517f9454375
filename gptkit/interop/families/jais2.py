"""Jais 2."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from gptkit.interop.families.arcee import ArceeFamily
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["Jais2Family"]


class Jais2Family(ArceeFamily):
    """Jais 2: rotary, layer norms, squared ReLU, biases everywhere."""

    name: Literal["jais2"] = "jais2"  # type: ignore[assignment]
    model_type: ClassVar[str] = "jais2"
    architecture: ClassVar[str] = "Jais2ForCausalLM"
    eps: ClassVar[tuple[str, float]] = ("layer_norm_eps", 1e-5)
    biased: ClassVar[bool] = True

    def read_norm(self, config: ExternalConfig) -> dict[str, Any]:
        return {"name": "layer", "eps": config.number(*self.eps)}
