"""Llama, and all that take its shape."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, ClassVar, Literal

from gptkit.interop.families._gguf import DECODER, read_decoder, write_decoder
from gptkit.interop.families.decoder import Decoder
from gptkit.interop.formats.gguf.architecture import Architecture
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["LlamaFamily"]


class LlamaFamily(Decoder):
    """Llama 1 to 3, SmolLM2, TinyLlama, Falcon 3: pre-norm, rotary, grouped queries, SwiGLU."""

    name: Literal["llama"] = "llama"
    model_type: ClassVar[str] = "llama"
    architecture: ClassVar[str] = "LlamaForCausalLM"
    rank: ClassVar[int] = 0
    feedforward_biases: ClassVar[bool] = True

    def gguf(self) -> Architecture:
        return Architecture("llama", "llama", DECODER, _read, write_decoder, interleaved=True)


def _read(keys: ExternalConfig, tensors: Collection[str]) -> dict[str, Any]:
    biased = "blk.0.attn_q.bias" in tensors
    return {**read_decoder(keys, tensors), "attention_bias": biased, "mlp_bias": "blk.0.ffn_up.bias" in tensors}
