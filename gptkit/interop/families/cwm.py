"""Code World Model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.decoder import Decoder
from gptkit.interop.families.parts.rope import read_rotary
from gptkit.interop.families.parts.windows import read_windows, write_windows
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["CwmFamily"]

SCALING = {
    "rope_type": "llama3",
    "rope_theta": 1000000.0,
    "factor": 16.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
"""The scaling of a configuration without keys for positions, as in transformers."""


class CwmFamily(Decoder):
    """Code World Model: Llama 3 with a full layer before three sliding ones."""

    name: Literal["cwm"] = "cwm"
    model_type: ClassVar[str] = "cwm"
    architecture: ClassVar[str] = "CwmForCausalLM"
    rank: ClassVar[int] = 11
    eps: ClassVar[tuple[str, float]] = ("rms_norm_eps", 1e-5)
    base: ClassVar[float] = 1000000.0
    d_head: ClassVar[int | None] = 128
    attention_biases: ClassVar[bool] = False
    tiny: ClassVar[tuple[Mapping[str, Any], ...]] = ({"bos_token_id": 1, "eos_token_id": 2},)

    def read_position(self, config: ExternalConfig) -> dict[str, Any]:
        if config.value("rope_scaling") or config.value("rope_parameters") is not None:
            return super().read_position(config)
        config.only("rope_theta", self.base, 1000000, why="without rope_parameters, transformers has 1000000")
        return read_rotary(ExternalConfig(SCALING), config, self.base)

    def read_layers(self, config: ExternalConfig, n_layers: int) -> Sequence[dict[str, Any]]:
        slide = {"attention": {"window": config.nullable("sliding_window", 8192)}}
        return [slide if each else {} for each in read_windows(config, [i % 4 != 0 for i in range(n_layers)])]

    def config(self, model: Any) -> dict[str, Any]:
        # The class does not accept null.
        return {**super().config(model), **write_windows(model, 8192), "bos_token_id": 0}
