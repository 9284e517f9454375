"""Attentions to compressed blocks with one error each."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from gptkit.components.attention.compressed import CompressedSpec
from gptkit.components.attention.modules.compressed import CompressedAttention
from gptkit.components.attention.modules.compression import Blocks
from gptkit.nn.forward import Forward
from tests.mutants.attention import blind
from tests.mutants.mutant import ANYTHING, WithRuntime


class Wrong(WithRuntime, CompressedSpec):
    """Base of attentions to compressed blocks with the runtime class `runtime_class`."""

    n_heads: int | None = Field(2, description="Number of heads.")
    d_head: int = Field(8, description="Features of a head.")
    d_rotary: int = Field(4, description="Rotated features.")
    sliding_window: int = Field(3, description="Tokens of the window.")
    block_size: int | None = Field(2, description="Tokens of a block.")
    top_k: int | None = Field(None, description="All blocks.")
    runtime_class: ClassVar[type[CompressedAttention]]
    twin_class = CompressedSpec


class SeesUnfinishedBlocks(Wrong):
    """Attend to the block of the current token before it is full."""

    class Runtime(CompressedAttention):
        def _visible(self, blocks: Blocks, n_entries: int, forward: Forward) -> Tensor:
            visible_BTN = super()._visible(blocks, n_entries, forward)
            return visible_BTN | visible_BTN.roll(1, dims=2)

    name: Literal["sees-unfinished-blocks"] = "sees-unfinished-blocks"
    runtime_class = Runtime
    caught_by = "no-future-leak"
    also = ANYTHING


class CompressesPadding(Wrong):
    """Count the positions of blocks from the first padding."""

    class Runtime(CompressedAttention):
        def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
            return super().forward(x_BTE, blind(forward, left_padding_B=None))

    name: Literal["compresses-padding"] = "compresses-padding"
    runtime_class = Runtime
    caught_by = "padding-is-ignored"
    also = ANYTHING


class KeepsOtherEntries(Wrong):
    """Store the entries of single tokens in another order of features."""

    class Runtime(CompressedAttention):
        def _placed(self, entries_BND: Tensor, blocks: Blocks, forward: Forward) -> Tensor:
            entries_BND = super()._placed(entries_BND, blocks, forward)
            return entries_BND.roll(1, dims=-1) if forward.n_tokens == 1 else entries_BND

    name: Literal["keeps-other-entries"] = "keeps-other-entries"
    runtime_class = Runtime
    caught_by = "cached-equals-full"
    also = ANYTHING


class TakesTheLastKeys(Wrong):
    """Take the last keys in view for those of the call, also in a static cache, which has a place for each token."""

    class Runtime(CompressedAttention):
        def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
            return super().forward(x_BTE, blind(forward, offset=int(forward.offset)))

    name: Literal["takes-the-last-keys"] = "takes-the-last-keys"
    runtime_class = Runtime
    caught_by = "static-cache"
    also = ANYTHING
