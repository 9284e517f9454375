"""Llama, and all that take its shape."""

from __future__ import annotations

from typing import ClassVar, Literal

from gptkit.interop.families.decoder import Decoder

__all__ = ["LlamaFamily"]


class LlamaFamily(Decoder):
    """Llama 1 to 3, SmolLM2, TinyLlama, Falcon 3: pre-norm, rotary, grouped queries, SwiGLU."""

    name: Literal["llama"] = "llama"
    model_type: ClassVar[str] = "llama"
    architecture: ClassVar[str] = "LlamaForCausalLM"
    rank: ClassVar[int] = 0
    feedforward_biases: ClassVar[bool] = True
