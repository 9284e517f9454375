"""Block without a residual stream, whose branches attend to the outputs of earlier layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from gptkit.core.errors import Problem
from gptkit.kinds.block import BlockSpec, Step
from gptkit.kinds.context import BuildContext
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from gptkit.nn.block import Block

__all__ = ["AttentionResidualsSpec"]


class AttentionResidualsSpec(BlockSpec):
    """Attention over the outputs of earlier layers in place of a residual stream (Attention Residuals, Inkling 2).

    Formula:
        sources v_0 = x, the input of the first such block, and v_i = dropout(branch_i(norm(h_i))), the outputs of the
        branches, attention and feed-forward in turn
        h_i = Σ_j a_j v_j over j < i,  a = softmax_j (score_scale · w_i · rms(v_j));  w_i is a vector of d_model numbers
        output of the last layer: such a mean of all sources; of other layers their sum, the residual stream
        With `group` g, the outputs of g consecutive layers are added up to one source.
        With `normalize_sources`, h_i = Σ_j a_j rms(v_j).
        With `kv_inputs`, attention computes queries (and gates) from norm(h_i), and keys and values from norms of their own
        of two further means of the same sources, each with its w; all three are x in the first such block.
        With `output_conv` W, a branch's output u becomes u_t + Σ_i c_i ⊙ u_{t−i}, i from 0 to W − 1; that divided by
        √(W + 1) with `output_conv_scaled`.

    Shapes:
        (B, T, d_model) → (B, T, d_model); a has one number for each source and token
        cache with `output_conv`: 2 · (output_conv − 1) · d_model values per row

    Paper:
        https://arxiv.org/abs/2603.15031

    Notes:
        The w are initially zeros, so that every source has the same weight. The first such block has none for its attention.
        The sources accompany the output (`Forward.carry`) under the key `("attention-residuals", group)`; after a block of
        another kind they start again from the block's input. Without `group`, time and memory per layer grow with the
        number of layers; the paper has about eight groups in a model. A training step of 8 layers of width 256 on one CPU
        thread takes 1.27 times as long as with `pre-norm`, with `group: 2` 1.11 times.
    """

    formula: ClassVar[str] = r"""
        a = \operatorname{softmax}_j\left(w_i \cdot \operatorname{rms}(v_j)\right) \qquad h_i = \sum_{j < i} a_j v_j
        v_i = \operatorname{branch}_i(\operatorname{norm}(h_i))
    """

    only_with: ClassVar[Mapping[str, str]] = {"output_conv_scaled": "output_conv"}
    name: Literal["attention-residuals"] = "attention-residuals"
    group: int | None = Field(
        None,
        ge=1,
        description="Number of consecutive layers whose outputs are added up to one source (the paper's blocks); by default "
        "every branch of a layer is a source (Inkling 2: 6).",
    )
    score_scale: float = Field(1.0, gt=0, description="Factor of the scores of sources (Inkling 2: 1/√d_model).")
    normalize_sources: bool = Field(
        False, description="Return the weighted mean of the sources divided by their root mean squares (Inkling 2)."
    )
    kv_inputs: bool = Field(
        False,
        description="Give keys and values inputs of their own: further means of the sources, each with a norm (Inkling 2, "
        "in layers without a window).",
    )
    eps: float = Field(1e-6, gt=0, description="Added to the mean square in rms.")
    output_conv: int | None = Field(
        None,
        ge=1,
        description="Width in tokens of a causal convolution of each feature of a branch's output, which is added to it "
        "(Canon layers, arXiv 2512.17351; Inkling 2: 4). None by default.",
    )
    output_conv_scaled: bool = Field(
        False, description="Divide that sum by the root of its number of terms, output_conv + 1 (Inkling 2)."
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="Share of each branch's output that is dropped in training.")

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {},
        {"group": 2},
        {"group": 2, "score_scale": 0.3, "normalize_sources": True, "output_conv": 3, "output_conv_scaled": True},
        {"group": 2, "kv_inputs": True},
    )

    @property
    def wiring(self) -> tuple[Step, ...]:
        over = "attention over all outputs so far"
        return tuple(Step((("norm", branch, over),), shortcut=False) for branch in ("attention", "feedforward"))

    def problems(self, context: BuildContext) -> Iterator[Problem]:
        attention = context.parts.attention
        if self.kv_inputs and not attention.takes_kv_inputs:
            yield Problem(
                ("kv_inputs",),
                f"attention {attention.name!r} as it is configured does not compute keys and values from own inputs; "
                "remove kv_inputs, or choose grouped-query without reuse_kv and tie_kv",
            )

    def build(self, context: BuildContext) -> Block:
        from gptkit.components.block.modules.attention_residuals import AttentionResiduals

        return AttentionResiduals(self, context)

    def written(self, context: WritingContext) -> Written:
        from gptkit.components.block.written.attention_residuals import attention_residuals

        return attention_residuals(self, context)
