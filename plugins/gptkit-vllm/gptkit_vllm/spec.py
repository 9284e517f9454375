"""Engine `vllm`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

import gptkit
from gptkit.kinds.engine import EngineContext, EngineSpec

if TYPE_CHECKING:
    from gptkit_vllm.engine import Vllm

__all__ = ["VllmEngineSpec"]


class VllmEngineSpec(EngineSpec):
    """Compute with vLLM: models of a family, and compositions whose generated code vLLM's Transformers backend can run.

    Notes:
        The run is exported to a directory in the user's cache directory, once for each set of weights. Samplers that vLLM
        does not have, or applies in another order, are refused.
    """

    name: Literal["vllm"] = "vllm"
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = Field(
        "auto", description="Element type of weights and key/value cache; auto is vLLM's choice, with 16 bits for float32."
    )
    context: int | None = Field(
        None,
        ge=2,
        description="Maximum number of tokens of a text, which bounds the cache's memory; the model's by default.",
    )
    cache_gib: float | None = Field(
        None,
        gt=0,
        description="Size of the key/value cache in GiB; by default what `gpu_memory` leaves on a GPU, and 4 on a CPU.",
    )
    gpu_memory: float | None = Field(
        None, gt=0, le=1, description="Fraction of the GPU's memory that vLLM uses; vLLM's default if omitted."
    )
    tensor_parallel: int = Field(1, ge=1, description="Number of GPUs among which each layer is divided.")
    eager: bool = Field(False, description="Compute without compiling the model, which starts faster and decodes slower.")
    cache_prompt: bool = Field(
        False, description="Reuse the keys and values of earlier prompts with the same beginning; may change the rounding."
    )
    directory: str | None = Field(
        None, description="Directory of the exported models; gptkit/vllm in the user's cache directory by default."
    )
    keep: int = Field(4, ge=1, description="Number of exported models to keep; the least recently used are removed.")

    def build(self, context: EngineContext) -> Vllm:
        from gptkit_vllm.installation import load_vllm

        load_vllm()  # before the export, which would be of no use without it
        from gptkit_vllm.engine import Vllm
        from gptkit_vllm.export import exported

        return Vllm(self, exported(self, context), context)


@gptkit.hookimpl
def gptkit_components() -> list[type[gptkit.Component]]:
    """Register the components of this distribution."""
    return [VllmEngineSpec]
