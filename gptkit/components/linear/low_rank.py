"""`low-rank`: a dense projection with a trainable low-rank adapter (LoRA)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from gptkit.components.linear.dense import DenseSpec
from gptkit.core.errors import Problem
from gptkit.core.patterns import matches
from gptkit.core.suggestions import did_you_mean
from gptkit.kinds.context import BuildContext
from gptkit.kinds.linear import LinearSpec
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from torch import nn

__all__ = ["LowRankSpec"]


class LowRankSpec(LinearSpec):
    """Dense projection with a trainable low-rank adapter (LoRA), for fine-tuning with few parameters.

    Formula:
        y = W · x + b + alpha / rank · B · A · dropout(x)

    Shapes:
        (…, d_in) → (…, d_out); W: (d_out, d_in), b: (d_out,), A: (rank, d_in), B: (d_out, rank)

    Paper:
        https://arxiv.org/abs/2106.09685

    Notes:
        B is initialized to zeros, so the initial model equals the dense one. W and b keep the names of the dense projection,
        so `training.init_from` loads them from a dense model. Only the adapters are trained, unless `training.freeze` is
        set; an export merges them: W + alpha / rank · B · A.

        A packed projection (queries, keys and values in one matrix) has one adapter. The embedding, the head, routers and
        the stacked experts of a mixture have none.
    """

    formula: ClassVar[str] = r"y = W x + b + \frac{\alpha}{r} B A \operatorname{dropout}(x)"

    name: Literal["low-rank"] = "low-rank"
    rank: int = Field(8, ge=1, description="Rank of the adapter's product B · A.")
    alpha: float = Field(16.0, gt=0, description="The adapter's output is multiplied by alpha / rank.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout of the adapter's input.")
    projections: tuple[str, ...] = Field(
        ("*",),
        min_length=1,
        description="Which projections have an adapter: glob patterns over their names in the model, such as "
        "blocks.*.attention or *.qkv, in which a module's name selects all of its projections.",
    )

    stacks: ClassVar[bool] = True
    examples: ClassVar[tuple[Mapping[str, Any], ...]] = ({}, {"rank": 2, "alpha": 1, "dropout": 0.1})

    def build(self, context: BuildContext, *, d_in: int, d_out: int, bias: bool) -> nn.Linear:
        from gptkit.components.linear.modules.low_rank import LowRankLinear

        return LowRankLinear(self, d_in, d_out, bias=bias)

    def written(self, context: WritingContext) -> Written:
        from gptkit.components.linear.written.low_rank import low_rank

        return low_rank(self)

    def merged(self) -> LinearSpec:
        return DenseSpec()

    def name_problems(self, names: Sequence[str], stacked: Sequence[str]) -> Iterator[Problem]:
        for index, pattern in enumerate(self.projections):
            covered = next((name for name in stacked if matches(name, pattern)), None)
            if covered is not None:
                yield Problem(
                    ("projections", index),
                    f"{pattern!r} matches {covered}, but stacked experts cannot have adapters; "
                    "name other projections, such as blocks.*.attention",
                )
            elif not any(matches(name, pattern) for name in names):
                remedy = did_you_mean(pattern, list(names), "projections")
                yield Problem(("projections", index), f"{pattern!r} matches no projection of the model; {remedy}")
