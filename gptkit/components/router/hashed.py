"""`hash` router."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from gptkit.components.router.scored import ScoredRouterSpec
from gptkit.core.errors import Problem
from gptkit.kinds.context import BuildContext
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from gptkit.nn.router import Router

__all__ = ["HashSpec"]


class HashSpec(ScoredRouterSpec):
    """Hash routing: the token's id determines its experts; only their weights are learned (hash layers, DeepSeek-V4).

    Formula:
        chosen: k experts by a hash of the token id and the layer, or the row of the id in a stored table with `table`
        s = f(W x [+ b]);  weight = scale · s, or scale · s / Σ chosen s with `renormalize`
        f: √softplus, sigmoid, or the softmax over all experts

    Shapes:
        x (N, d_model), ids (N) → experts (N, k), weights (N, k)
        with `table`: (vocab_size, k) numbers that are not trained

    Paper:
        https://arxiv.org/abs/2106.04426

    Notes:
        Equal tokens have the same experts in every text, so the choice needs no balancing and no gradient; its load is as
        uneven as the frequencies of the tokens. The paper has k = 1 and no weights. DeepSeek-V4 has such routers, with a
        table, in its first three layers.
    """

    formula: ClassVar[str] = r"""
        \text{chosen} = \operatorname{hash}(\text{id}) \qquad s = \sqrt{\ln(1 + e^{W x})}
        w = \text{scale} \cdot \frac{s}{\sum_{\text{chosen}} s}
    """

    name: Literal["hash"] = "hash"
    reads_ids: ClassVar[bool] = True
    score: Literal["sqrt-softplus", "sigmoid", "softmax"] = Field(
        "sqrt-softplus", description="Function of W x that gives the weights."
    )
    renormalize: bool = Field(True, description="Divide the weights by their sum, so that their sum is `scale`.")
    scale: float = Field(1.0, gt=0, description="Factor of the weights, applied last.")
    table: bool = Field(
        False,
        description="Look the experts up in a stored table, as imported models have; it begins with the values of the hash.",
    )

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {},
        {"k": 3, "table": True, "scale": 1.5, "z_loss": 0.001},
        {"k": 2, "score": "softmax", "renormalize": False, "bias": True},
        {"k": 1, "score": "sigmoid", "renormalize": False, "norm": "rms", "score_scale": 0.5},
    )

    def expert_problems(self, n_experts: int) -> Iterator[Problem]:
        yield from super().expert_problems(n_experts)
        if self.balance_loss:
            yield Problem(("balance_loss",), "the token ids determine the experts, so no loss changes the load; remove it")

    def build(self, context: BuildContext, *, n_experts: int) -> Router:
        from gptkit.components.router.modules.hashed import HashRouter

        return HashRouter(self, context, n_experts)

    def written(self, context: WritingContext, *, n_experts: int) -> Written:
        from gptkit.components.router.written.hashed import hashed

        return hashed(self, context, n_experts, self.score, table=self.table)
