"""IQuest-Coder."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from gptkit.interop.families.decoder import Decoder
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["IQuestCoderFamily"]


class IQuestCoderFamily(Decoder):
    """IQuest-Coder: Llama with a head size of its own."""

    name: Literal["iquestcoder"] = "iquestcoder"
    model_type: ClassVar[str] = "iquestcoder"
    architecture: ClassVar[str] = "LlamaForCausalLM"
    eps: ClassVar[tuple[str, float]] = ("rms_norm_eps", 1e-5)
    d_head: ClassVar[int | None] = 128
    feedforward_biases: ClassVar[bool] = True

    def model(self, config: ExternalConfig) -> dict[str, Any]:
        config.only("clip_qkv", None, why="transformers does not clip in this family")
        config.only("use_sliding_window", False, why="transformers has no windows in this family")
        config.value("sliding_window")
        return super().model(config)
