"""Block of GPT-2 and most later models: normalize, transform, add."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from gptkit.core.component import optional_component
from gptkit.core.errors import Problem
from gptkit.kinds.block import BlockSpec, Step
from gptkit.kinds.context import BuildContext
from gptkit.kinds.norm import NormSpec
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from gptkit.nn.block import Block

__all__ = ["PreNormSpec"]


class PreNormSpec(BlockSpec):
    """Normalize the input of each branch; the residual stream is not normalized.

    Formula:
        x ← x + residual_scale · dropout(attention(norm(x)))
        x ← x + residual_scale · dropout(feedforward(norm(x)))
        With `stream_norm` and `output_norm`, each with own weights for each branch:
        x ← stream_norm(x) + residual_scale · dropout(output_norm(branch(norm(x))))
        With `output_conv`, a branch's output u becomes u_t + Σ_i w_i ⊙ u_{t−i}, i from 0 to output_conv − 1, before its norm

    Shapes:
        (B, T, d_model) → (B, T, d_model); cache with `output_conv`: 2 · (output_conv − 1) · d_model values per row

    Paper:
        https://arxiv.org/abs/2002.04745

    Notes:
        `shortcut: false` removes the additions, for demonstration: training degrades. With shortcuts the gradient of the
        embedding is about as large at any depth. Without them, every block multiplies it by a factor that depends on
        width, norm and initialization: with the default initialization it nearly vanishes at d_model 64, and it grows with
        the number of layers for larger widths. The gradients of the blocks may not show this effect, because norms rescale
        small vectors. To measure it, call `model(ids, targets).loss.backward()` at two depths and compare
        `model.embedding.table.weight.grad.abs().mean()`.
    """

    formula: ClassVar[str] = r"""
        x \leftarrow x + \operatorname{attention}(\operatorname{norm}(x))
        x \leftarrow x + \operatorname{feedforward}(\operatorname{norm}(x))
    """

    name: Literal["pre-norm"] = "pre-norm"
    dropout: float = Field(0.0, description="Share of each branch's output that is dropped in training.", ge=0, lt=1)
    residual_scale: float = Field(1.0, description="Factor of each branch before it is added (Granite: 0.22).")
    shortcut: bool = Field(True, description="Add each branch to its input; without it the branch replaces the input.")
    attention_input_norm: bool = Field(
        True, description="Whether attention's input is normalized; false where the embedding is (ModernBERT's first block)."
    )
    feedforward_norm: NormSpec | None = optional_component(
        description="Norm of the feed-forward's input; the layer's by default (A.X K2: without gates before a dense one)."
    )
    output_conv: int | None = Field(
        None,
        ge=1,
        description="Width in tokens of a causal convolution of each feature of a branch's output, which is added to it "
        "(Canon layers, arXiv 2512.17351; Inkling: 4). None by default.",
    )
    output_norm: NormSpec | None = optional_component(
        description="Norm of each branch's output, with weights of its own; none by default (ZAYA1: affine)."
    )
    stream_norm: NormSpec | None = optional_component(
        description="Norm of the residual stream before each addition, with weights of its own; none by default (ZAYA1)."
    )

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {},
        {"feedforward_norm": "layer", "residual_scale": 0.5},
        {"output_norm": "rms", "stream_norm": "affine"},
        {"output_conv": 3},
    )

    @property
    def wiring(self) -> tuple[Step, ...]:
        steps = (("norm", "attention") if self.attention_input_norm else ("attention",), ("norm", "feedforward"))
        return tuple(Step((branch,), shortcut=self.shortcut, factor="residual_scale") for branch in steps)

    def problems(self, context: BuildContext) -> Iterator[Problem]:
        if self.stream_norm is not None and not self.shortcut:
            yield Problem(
                ("stream_norm",), "nothing is added to the stream without a shortcut; remove it, or set shortcut: true"
            )

    def build(self, context: BuildContext) -> Block:
        from gptkit.components.block.modules.pre_norm import PreNorm

        return PreNorm(self, context)

    def written(self, context: WritingContext) -> Written:
        from gptkit.components.block.written.forms import pre_norm

        return pre_norm(self, context)
