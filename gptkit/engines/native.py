"""Engine `native`."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from gptkit.kinds.drafter import DrafterSpec
from gptkit.kinds.engine import EngineContext, EngineSpec

if TYPE_CHECKING:
    from gptkit.engines.scheduled import Scheduled

__all__ = ["NativeSpec"]


class NativeSpec(EngineSpec):
    """Compute with PyTorch: any composition, on any device, with continuous batching."""

    applies_precision: ClassVar[bool] = True
    traces: ClassVar[bool] = True

    name: Literal["native"] = "native"
    prefill_chunk: int | None = Field(
        512,
        ge=1,
        description="Maximum number of tokens of a prompt per forward pass, which bounds its memory; null for all.",
    )
    prefill_chunk_busy: int | None = Field(
        128,
        ge=1,
        description="Maximum number of prompt tokens per step while other requests are decoded: fewer delay these less, and "
        "the prompt longer; null for all.",
    )
    prefix_mib: int = Field(
        256,
        ge=0,
        description="Memory in MiB for the key/value caches of recent prompts, whose tokens are not computed again in "
        "prompts that begin with them; 0 for none.",
    )
    drafter: DrafterSpec | None = Field(
        None,
        description="Drafter of speculative decoding; null for none. Single requests become faster, many at once slower.",
    )
    compile: bool = Field(
        False,
        description="Decode with compiled steps, which are compiled in the background at their first use and kept in the "
        "user's cache directory.",
    )

    def build(self, context: EngineContext) -> Scheduled:
        from gptkit.engines.scheduled import Scheduled

        model = context.load_model()
        return Scheduled(
            model,
            context.tokenizer,
            max_batch=context.max_batch,
            prefill_chunk=self.prefill_chunk,
            prefill_chunk_busy=self.prefill_chunk_busy,
            prefix_bytes=self.prefix_mib * 2**20,
            drafter=self.drafter,
            compile=self.compile,
        )
