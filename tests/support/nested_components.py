"""A head with a block, as a plugin defines it."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor

from gptkit.core.component import component
from gptkit.kinds.attention import AttentionSpec
from gptkit.kinds.block import BlockSpec
from gptkit.kinds.context import BuildContext
from gptkit.kinds.head import HeadSpec
from gptkit.nn.embedding import Embedding
from gptkit.nn.forward import Forward
from gptkit.nn.head import Head


class AttendingHeadSpec(HeadSpec):
    """One more block before the projection to the vocabulary."""

    name: Literal["attending"] = "attending"
    inner: HeadSpec = component("linear", description="Scores tokens.")
    block: BlockSpec = component("pre-norm", description="The block.")
    attention: AttentionSpec | None = None

    def build(self, context: BuildContext, *, embedding: Embedding) -> Head:
        return AttendingHead(self, context, embedding)


class AttendingHead(Head):
    def __init__(self, spec: AttendingHeadSpec, context: BuildContext, embedding: Embedding) -> None:
        super().__init__()
        self.block = spec.block.build(context)
        self.inner = spec.inner.build(context, embedding=embedding)

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        y: Tensor = self.inner(self.block(x_BTE, forward), forward)
        return y

    def loss(self, x_BTE: Tensor, targets_BT: Tensor, forward: Forward) -> Tensor:
        assert forward.documents_BT is None or forward.documents_BT.shape == targets_BT.shape
        loss = self.inner.loss(self.block(x_BTE, forward), targets_BT, forward)
        forward.add_loss("head_size", x_BTE.square().mean())
        return loss


PARTS: dict[str, Any] = {
    "d_model": 32,
    "n_layers": 2,
    "context_length": 24,
    "attention": {"name": "multi-head", "n_heads": 2},
    "initializer": {"name": "xavier"},
}
