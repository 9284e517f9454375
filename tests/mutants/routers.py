"""Routers by token ids and by √softplus, with one error each."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from gptkit.components.router.hashed import HashSpec
from gptkit.components.router.modules.hashed import HashRouter
from gptkit.components.router.modules.scored import ScoredRouter
from gptkit.components.router.modules.sqrt_softplus import SqrtSoftplus
from gptkit.components.router.sigmoid import SigmoidSpec
from gptkit.components.router.sqrt_softplus import SqrtSoftplusSpec
from gptkit.kinds.written import WritingContext, Written
from gptkit.nn.forward import Forward
from tests.mutants.mutant import ANYTHING, Mutant, WithRuntime


class WrongHash(WithRuntime, HashSpec):
    """Base of routers by token ids with the runtime class `runtime_class`."""

    z_loss: float = Field(0.01, description="Not zero, so that there is a loss.")
    runtime_class: ClassVar[type[HashRouter]]
    twin_class = HashSpec


class HashesThePlace(WrongHash):
    """Choose by the place in the batch in place of the token."""

    class Runtime(HashRouter):
        def _experts(self, ids_N: Tensor) -> Tensor:
            return super()._experts(torch.arange(ids_N.shape[0], device=ids_N.device))

    name: Literal["hashes-the-place"] = "hashes-the-place"
    runtime_class = Runtime
    caught_by = "routes-token-by-token"
    also = ANYTHING


class SameExpertTwice(WrongHash):
    """Give every choice of a token to the same expert."""

    class Runtime(HashRouter):
        def _experts(self, ids_N: Tensor) -> Tensor:
            experts_NK = super()._experts(ids_N)
            return experts_NK[:, :1].expand_as(experts_NK).clone()

    name: Literal["same-expert-twice"] = "same-expert-twice"
    runtime_class = Runtime
    caught_by = "chooses-experts"
    also = ANYTHING


def with_padding(base: type[ScoredRouter]) -> type[ScoredRouter]:
    """Return a router that includes padding in its losses."""

    class Runtime(base):  # type: ignore[misc, valid-type]
        def forward(self, x_NE: Tensor, forward: Forward, valid_N: Tensor | None = None) -> tuple[Tensor, Tensor]:
            result: tuple[Tensor, Tensor] = super().forward(x_NE, forward, None)
            return result

    return Runtime


class HashCountsPadding(WrongHash):
    """Include padding in the loss."""

    name: Literal["hash-counts-padding"] = "hash-counts-padding"
    runtime_class = with_padding(HashRouter)  # type: ignore[assignment]
    caught_by = "padding-does-not-count"
    also = ("losses-exclude-padding",)


class WrongSqrtSoftplus(WithRuntime, SqrtSoftplusSpec):
    """Base of routers by √softplus with the runtime class `runtime_class`."""

    balance_loss: float = Field(0.01, description="Not zero, so that there is a loss.")
    runtime_class: ClassVar[type[SqrtSoftplus]]
    twin_class = SqrtSoftplusSpec


class ScoresOfTheBatch(WrongSqrtSoftplus):
    """Subtract the mean score over all tokens, which balances the experts."""

    class Runtime(SqrtSoftplus):
        def choose(self, logits_NX: Tensor, forward: Forward) -> tuple[Tensor, Tensor]:
            return super().choose(logits_NX - logits_NX.mean(0, keepdim=True), forward)

    name: Literal["scores-of-the-batch"] = "scores-of-the-batch"
    runtime_class = Runtime
    caught_by = "routes-token-by-token"
    also = ANYTHING


class ChoosesOneExpertTwice(WrongSqrtSoftplus):
    """Send every token to its best expert twice."""

    class Runtime(SqrtSoftplus):
        def best(self, scores_NX: Tensor) -> Tensor:
            experts_NK = super().best(scores_NX)
            return experts_NK[:, :1].expand_as(experts_NK).clone()

    name: Literal["chooses-one-expert-twice"] = "chooses-one-expert-twice"
    runtime_class = Runtime
    caught_by = "chooses-experts"
    also = ANYTHING


class CentersInPlace(WrongSqrtSoftplus):
    """Subtract the mean of the features of each token in place."""

    class Runtime(SqrtSoftplus):
        def forward(self, x_NE: Tensor, forward: Forward, valid_N: Tensor | None = None) -> tuple[Tensor, Tensor]:
            if not x_NE.requires_grad:
                x_NE -= x_NE.mean(-1, keepdim=True)
            return super().forward(x_NE, forward, valid_N)

    name: Literal["centers-in-place"] = "centers-in-place"
    runtime_class = Runtime
    caught_by = "leaves-input-alone"
    also = ANYTHING


class BalancesPadding(WrongSqrtSoftplus):
    """Include padding in the balance loss."""

    name: Literal["balances-padding"] = "balances-padding"
    runtime_class = with_padding(SqrtSoftplus)  # type: ignore[assignment]
    caught_by = "padding-does-not-count"
    also = ("losses-exclude-padding",)


class WritesWeightsOfTheChosen(Mutant, SigmoidSpec):
    """Write weights that are divided by the sum of those of the chosen experts, without those that every token has."""

    name: Literal["writes-weights-of-the-chosen"] = "writes-weights-of-the-chosen"  # type: ignore[assignment]
    k: int = Field(2, description="Number of experts per token.")
    always: int = Field(1, description="Number of experts that every token has.")
    caught_by = "written-equals-built"

    def written(self, context: WritingContext, *, n_experts: int) -> Written:
        right = super().written(context, n_experts=n_experts)
        return replace(right, text=right.text.replace("weights_NK.sum(", "weights_NK[:, :$EXPERTS_PER_TOKEN].sum("))
