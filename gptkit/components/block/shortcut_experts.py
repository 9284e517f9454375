"""Block of two layers with experts beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from gptkit.core.component import component
from gptkit.kinds.block import BlockSpec, Step
from gptkit.kinds.context import BuildContext
from gptkit.kinds.feedforward import FeedForwardSpec
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from gptkit.nn.block import Block

__all__ = ["ShortcutExpertsSpec"]


class ShortcutExpertsSpec(BlockSpec):
    """Two attentions, each with a feed-forward, and experts that run beside the second half (ScMoE).

    Formula:
        x ← x + attention_1(norm(x)),  h = norm(x),  x ← x + feedforward_1(h)
        x ← x + attention_2(norm(x)),  x ← x + feedforward_2(norm(x)) + experts(h)

    Shapes:
        (B, T, d_model) → (B, T, d_model); cache: twice that of the attention

    Paper:
        https://arxiv.org/abs/2404.05019

    Notes:
        LongCat-Flash (https://arxiv.org/abs/2509.01322). The experts do not depend on the second attention, nor this one on
        them, so their communication between devices can overlap with it. The layer's attention and feed-forward occur twice,
        with weights of their own.
    """

    formula: ClassVar[str] = r"""
        x \leftarrow x + \operatorname{attention}_1(\operatorname{norm}(x)) \qquad h = \operatorname{norm}(x)
        x \leftarrow x + \operatorname{feedforward}_1(h)
        x \leftarrow x + \operatorname{attention}_2(\operatorname{norm}(x))
        x \leftarrow x + \operatorname{feedforward}_2(\operatorname{norm}(x)) + \operatorname{experts}(h)
    """

    name: Literal["shortcut-experts"] = "shortcut-experts"
    experts: FeedForwardSpec = component("experts", description="What is added at the end, computed from h.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Share of each branch's output that is dropped in training.")

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"experts": {"name": "experts", "n_experts": 3, "expert": {"name": "gated", "d_hidden": 12}, "identity_experts": 2}},
    )

    @property
    def wiring(self) -> tuple[Step, ...]:
        attention, feedforward = ("norm", "attention"), ("norm", "feedforward")
        steps = (attention,), (feedforward,), (attention,), (feedforward, ("experts of the first norm's output",))
        return tuple(Step(branches) for branches in steps)

    def build(self, context: BuildContext) -> Block:
        from gptkit.components.block.modules.shortcut_experts import ShortcutExperts

        return ShortcutExperts(self, context)

    def written(self, context: WritingContext) -> Written:
        from gptkit.components.block.written.shortcut_experts import shortcut_experts

        return shortcut_experts(self, context)
