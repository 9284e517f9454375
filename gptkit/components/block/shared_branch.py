"""Block with a branch whose weights several layers share."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from gptkit.core.component import component
from gptkit.core.errors import Problem
from gptkit.core.walk import components
from gptkit.kinds.attention import AttentionSpec
from gptkit.kinds.block import BlockSpec, Step
from gptkit.kinds.context import BuildContext
from gptkit.kinds.feedforward import FeedForwardSpec
from gptkit.kinds.position import PositionSpec
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from gptkit.nn.block import Block

__all__ = ["SharedBranchSpec"]


class SharedBranchSpec(BlockSpec):
    """A branch of attention and feed-forward, with weights that several layers share, before the layer's attention (Zamba).

    Formula:
        h = feedforward(norm(attention_s(norm([x, e])) )), with the weights of the group, and adapters of the layer
        x ← x + dropout(attention(norm(x + W h)))
        e is the output of the model's embedding; without `embedding`, [x, e] is x
        With a rank, the adapter adds B A v to the projection of the branch's input v: of queries, keys and values each, and
        of the feed-forward's first projection

    Shapes:
        (B, T, d_model) → (B, T, d_model); attention_s: (B, T, 2 · d_model) → (B, T, d_model); W (d_model, d_model)
        A (rank, features of v), B (features of the projection, rank)
        cache: that of the layer's attention, and that of attention_s for every layer

    Paper:
        https://arxiv.org/abs/2411.15242

    Notes:
        Layers share the branch if they have the same `group`, and otherwise equal fields (ranks and dropout excepted), norm
        and kind of linear projections. The norm, W, the adapters and the attention of the layer are its own. Zamba
        (https://arxiv.org/abs/2405.16712) has one group without adapters, larger Zamba2 models have two groups in turn.
        The layer's position is that of its attention. B is initialized with zeros, so that the branch initially computes
        the same in all layers of a group. The layer's feed-forward is not used.
    """

    formula: ClassVar[str] = r"""
        h = \operatorname{feedforward}_s(\operatorname{norm}_s(\operatorname{attention}_s(\operatorname{norm}_s([x\ e]))))
        x \leftarrow x + \operatorname{attention}(\operatorname{norm}(x + W h))
    """

    name: Literal["shared-branch"] = "shared-branch"
    group: int = Field(0, ge=0, description="Layers with the same number share the branch's weights.")
    embedding: bool = Field(True, description="Concatenate the output of the model's embedding to the branch's input.")
    attention: AttentionSpec = component("multi-head", description="Attention of the branch.")
    position: PositionSpec = component("rotary", description="Relative position of the branch's attention.")
    feedforward: FeedForwardSpec = component("gated", description="Feed-forward of the branch.")
    attention_rank: int | None = Field(
        None, ge=1, description="Rank of the layer's adapters of queries, keys and values; none by default."
    )
    feedforward_rank: int | None = Field(
        None, ge=1, description="Rank of the layer's adapter of the feed-forward's first projection; none by default."
    )
    dropout: float = Field(0.0, description="Share of what the layer adds that is dropped in training.", ge=0, lt=1)

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {},
        {"attention": {"name": "multi-head", "n_heads": 2}, "attention_rank": 3, "feedforward_rank": 5},
        {"embedding": False, "group": 1, "feedforward": {"name": "mlp", "d_hidden": 20}, "feedforward_rank": 2},
    )

    @property
    def wiring(self) -> tuple[Step, ...]:
        return (Step((("sum with the shared branch", "norm", "attention"),)),)

    def inner_context(self, field: str, context: Any) -> Any:
        if context.layer is None:
            return context
        layer = dataclasses.replace(
            context.layer, position=self.position, attention=self.attention, feedforward=self.feedforward
        )
        if field == "attention" and self.embedding:
            return context.replace(layer=layer, d_model=2 * context.d_model, d_output=context.d_model)
        return context.replace(layer=layer)

    def share_key(self, context: BuildContext) -> tuple[Hashable, ...]:
        """Return what the layers that share a branch have in common; begins with the component's name."""
        parts = context.parts
        own = (self.group, self.embedding, self.attention, self.position, self.feedforward)
        ranks = (self.attention_rank is not None, self.feedforward_rank is not None)
        return ("shared-branch", *own, *ranks, parts.norm, parts.linear, parts.attention_backend)

    def problems(self, context: BuildContext) -> Iterator[Problem]:
        if context.parts.index >= context.n_layers:
            yield Problem((), "is not for the blocks of a head, which come after the layers; choose another block there")
        if self.embedding and not self.attention.sets_output_width:
            yield Problem(
                ("attention",),
                f"attention {self.attention.name!r} cannot read 2 · d_model features and return d_model; choose multi-head "
                "or grouped-query, or set embedding: false",
            )
        if "embed" in self.position.uses or self.position.depends_on_length:
            why = "is added to the embeddings" if "embed" in self.position.uses else "depends on the length of the text"
            yield Problem(("position",), f"position {self.position.name!r} {why}; choose another one for the branch")
        for field in ("attention", "feedforward"):
            part: AttentionSpec | FeedForwardSpec = getattr(self, field)
            if getattr(self, f"{field}_rank") is not None and not part.takes_addition:
                yield Problem(
                    (f"{field}_rank",), f"{field} {part.name!r} has no adapters; remove the rank, or choose another {field}"
                )
        for path, inner in components(self.attention):
            if getattr(inner, "reuse_kv", False):
                yield Problem(("attention", *path, "reuse_kv"), "the branch has its own keys and values; remove it")
            if getattr(inner, "indexer", None) is not None:
                yield Problem(
                    ("attention", *path),
                    f"{inner.name} publishes its choice of keys once, and the branch is computed in several layers; choose "
                    "another attention",
                )

    def build(self, context: BuildContext) -> Block:
        from gptkit.components.block.modules.shared_branch import SharedBranch

        return SharedBranch(self, context)

    def written(self, context: WritingContext) -> Written:
        from gptkit.components.block.written.shared_branch import shared_branch

        return shared_branch(self, context)
