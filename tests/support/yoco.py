"""YOCO (https://arxiv.org/abs/2405.05254): a decoder-decoder model, as a plugin defines it.

The first half of the layers attends within a window. The last of these layers computes the keys and values that all layers
of the second half attend to, so that these have no cache, and in prefill compute the last token only.

Shapes: B batch, H query heads, T tokens, D head size, E model width.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, cast

from torch import Tensor

from gptkit.components.block.modules.pre_norm import PreNorm
from gptkit.components.block.pre_norm import PreNormSpec
from gptkit.kinds.attention import AttentionSpec
from gptkit.kinds.context import BuildContext
from gptkit.kinds.position import HeadShape
from gptkit.nn.attention.base import Attention
from gptkit.nn.attention.softmax import SoftmaxAttention
from gptkit.nn.cache.allocation import Allocation
from gptkit.nn.cache.state import LayerState, Stateful, TokenState
from gptkit.nn.cache.view import KeyOffset
from gptkit.nn.forward import Forward
from gptkit.nn.position import build_position

__all__ = ["D_HEAD", "N_HEADS", "CrossSpec", "MemorySpec"]

N_HEADS, D_HEAD = 2, 8
KEY = ("yoco",)


class MemorySpec(PreNormSpec):
    """Last block of the self-decoder: a pre-norm block that then computes keys and values of one head."""

    name: Literal["yoco-memory"] = "yoco-memory"  # type: ignore[assignment]
    skips: bool = True

    def build(self, context: BuildContext) -> Memory:
        return Memory(self, context)


class Memory(PreNorm, Stateful):
    publishes = (KEY,)

    def __init__(self, spec: MemorySpec, context: BuildContext) -> None:
        super().__init__(spec, context)
        self.skips = spec.skips
        self.position = build_position(context, HeadShape(1, 1, D_HEAD))
        self.memory_norm = context.parts.norm.build(context, dim=context.d_model)
        self.memory = context.linear(context.d_model, 2 * D_HEAD, bias=False)

    def new_state(self, allocation: Allocation) -> LayerState:
        return allocation.tokens((1, D_HEAD), (1, D_HEAD))

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        x_BTE = super().forward(x_BTE, forward)
        k_B1TD, v_B1TD = self.memory(self.memory_norm(x_BTE))[:, None].chunk(2, dim=-1)
        _, k_B1TD = self.position.rotate(k_B1TD, k_B1TD, self.position.prepare(forward.positions))
        offset: KeyOffset = forward.offset
        state = cast("TokenState | None", forward.state(self))
        if state is not None:
            offset, (k_B1TD, v_B1TD) = state.append(k_B1TD, v_B1TD)
        forward.publish(self, KEY, (offset, k_B1TD, v_B1TD))
        return x_BTE[:, -1:] if self.skips and forward.last_only else x_BTE


class CrossSpec(AttentionSpec):
    """Attention of the cross-decoder: queries of its own, to the keys and values of the memory."""

    name: Literal["yoco-cross"] = "yoco-cross"
    accepts: ClassVar[frozenset[str]] = frozenset({"rotate"})

    def build(self, context: BuildContext) -> Attention:
        return Cross(context)


class Cross(SoftmaxAttention):
    reads = (KEY,)

    def __init__(self, context: BuildContext) -> None:
        super().__init__(context, HeadShape(N_HEADS, 1, D_HEAD), scale=D_HEAD**-0.5)
        self.queries = context.linear(context.d_model, N_HEADS * D_HEAD, bias=False)
        self.output = context.linear(N_HEADS * D_HEAD, context.d_model, bias=False)

    def new_state(self, allocation: Allocation) -> LayerState | None:
        return None

    def state_bytes_per_token(self, dtype: Any) -> float:
        return 0.0

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        q_BHTD = self.queries(x_BTE).unflatten(-1, (N_HEADS, D_HEAD)).transpose(1, 2)
        q_BHTD, _ = self.rotate(q_BHTD, q_BHTD, forward)
        offset, k_B1SD, v_B1SD = forward.read(self, KEY)
        out_BHTD = self.score(q_BHTD, k_B1SD, v_B1SD, forward, offset)
        return self.output(out_BHTD.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]
