"""Engine `llama.cpp`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

import gptkit
from gptkit.kinds.engine import EngineContext, EngineSpec

if TYPE_CHECKING:
    from gptkit_llamacpp.engine import LlamaCpp

__all__ = ["LlamaCppEngineSpec"]


class LlamaCppEngineSpec(EngineSpec):
    """Compute with llama.cpp, on the CPU: models that GGUF can express, also quantized.

    Notes:
        The run is exported to a GGUF file in the user's cache directory, once for each set of weights and type. Samplers
        that llama.cpp does not have are refused.
    """

    name: Literal["llama.cpp"] = "llama.cpp"
    type: Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"] = Field(
        "f16", description="Element type of the weights' matrices; q types are quantized."
    )
    cache_type: Literal["f32", "f16"] = Field(
        "f16", description="Element type of the key/value cache; with f32, attention is computed in f32 too."
    )
    context: int | None = Field(
        None,
        ge=2,
        description="Maximum number of tokens of a text, which bounds the cache's memory; the model's by default.",
    )
    threads: int | None = Field(None, ge=1, description="Number of threads; as many as PyTorch uses by default.")
    cache_prompt: bool = Field(
        False, description="Reuse the keys and values of the previous text of a slot; may change the rounding of results."
    )
    directory: str | None = Field(
        None, description="Directory of the exported files; gptkit/llama.cpp in the user's cache directory by default."
    )
    keep: int = Field(4, ge=1, description="Number of exported files to keep; the least recently used are removed.")

    def build(self, context: EngineContext) -> LlamaCpp:
        from gptkit_llamacpp.engine import LlamaCpp
        from gptkit_llamacpp.file import exported

        file, context_length = exported(self, context)
        return LlamaCpp(self, file, context, context_length)


@gptkit.hookimpl
def gptkit_components() -> list[type[gptkit.Component]]:
    """Register the components of this distribution."""
    return [LlamaCppEngineSpec]
