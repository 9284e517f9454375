"""Modules whose losses or evaluation have one error each, which ordinary inputs do not show."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from gptkit.components.feedforward.mlp import MLPSpec
from gptkit.components.feedforward.modules.mlp import MLP
from gptkit.components.head.linear import LinearHeadSpec
from gptkit.components.head.modules.linear import LinearHead
from gptkit.nn.forward import Forward
from tests.mutants.mutant import ANYTHING, WithRuntime


class WrongLoss(WithRuntime, LinearHeadSpec):
    """Base of the heads below."""

    twin_class = LinearHeadSpec


class DividesByNothing(WrongLoss):
    """Return NaN for a batch without targets."""

    class Runtime(LinearHead):
        def loss(self, x_BTE: Tensor, targets_BT: Tensor, forward: Forward) -> Tensor:
            n = (targets_BT != -100).sum()
            return super().loss(x_BTE, targets_BT, forward) * n / n

    name: Literal["divides-by-nothing"] = "divides-by-nothing"
    runtime_class = Runtime
    caught_by = "no-targets"


class LogarithmOfSoftmax(WrongLoss):
    """Return the logarithm of a softmax, which is infinite where the softmax is 0."""

    class Runtime(LinearHead):
        def loss(self, x_BTE: Tensor, targets_BT: Tensor, forward: Forward) -> Tensor:
            kept_BT = targets_BT != -100
            p_BTV = self(x_BTE, forward).softmax(-1).to(torch.promote_types(x_BTE.dtype, torch.float32))
            chosen_BT = p_BTV.gather(-1, targets_BT.clamp_min(0)[..., None])[..., 0]
            return -(chosen_BT.log() * kept_BT).sum() / kept_BT.sum().clamp_min(1)

    name: Literal["logarithm-of-softmax"] = "logarithm-of-softmax"
    runtime_class = Runtime
    caught_by = "loss-of-large-logits"


class LossAsNumber(WrongLoss):
    """Return the loss as a number."""

    class Runtime(LinearHead):
        def loss(self, x_BTE: Tensor, targets_BT: Tensor, forward: Forward) -> Tensor:
            return super().loss(x_BTE, targets_BT, forward).item()  # type: ignore[return-value]

    name: Literal["loss-as-number"] = "loss-as-number"
    runtime_class = Runtime
    caught_by = "output-shape"


class LossOfEachRow(WrongLoss):
    """Return a loss of each row, in training only."""

    class Runtime(LinearHead):
        def loss(self, x_BTE: Tensor, targets_BT: Tensor, forward: Forward) -> Tensor:
            loss = super().loss(x_BTE, targets_BT, forward)
            return loss.expand(len(x_BTE)) if self.training else loss

    name: Literal["loss-of-each-row"] = "loss-of-each-row"
    runtime_class = Runtime
    caught_by = "output-shape"


class LossInItsInputsType(WrongLoss):
    """Return the loss in bf16."""

    class Runtime(LinearHead):
        def loss(self, x_BTE: Tensor, targets_BT: Tensor, forward: Forward) -> Tensor:
            return super().loss(x_BTE, targets_BT, forward).to(x_BTE.dtype)

    name: Literal["loss-in-its-inputs-type"] = "loss-in-its-inputs-type"
    runtime_class = Runtime
    caught_by = "loss-in-fp32"


class PenalizesIgnoredTokens(WrongLoss):
    """Add an auxiliary loss of all tokens, without their targets."""

    class Runtime(LinearHead):
        def loss(self, x_BTE: Tensor, targets_BT: Tensor, forward: Forward) -> Tensor:
            if self.training:
                forward.add_loss("size", self(x_BTE, forward).logsumexp(-1).square().mean())
            return super().loss(x_BTE, targets_BT, forward)

    name: Literal["penalizes-ignored-tokens"] = "penalizes-ignored-tokens"
    runtime_class = Runtime
    caught_by = "losses-ignore-tokens"
    also = ("losses-exclude-padding",)


class PenalizesPaddingToo(WithRuntime, MLPSpec):
    """Add the mean size of all outputs as an auxiliary loss, also of those of padding."""

    class Runtime(MLP):
        def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
            y_BTE = super().forward(x_BTE, forward)
            if self.training:
                forward.add_loss("size", y_BTE.square().mean())
            return y_BTE

    name: Literal["penalizes-padding-too"] = "penalizes-padding-too"
    twin_class = MLPSpec
    runtime_class = Runtime
    caught_by = "losses-exclude-padding"


class PenaltyOfNothing(WithRuntime, MLPSpec):
    """Add the mean size of the outputs that count, which is NaN where none does."""

    class Runtime(MLP):
        def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
            y_BTE = super().forward(x_BTE, forward)
            if self.training:
                counted_BT = forward.counted_BT
                forward.add_loss("size", (y_BTE if counted_BT is None else y_BTE[counted_BT]).square().mean())
            return y_BTE

    name: Literal["penalty-of-nothing"] = "penalty-of-nothing"
    twin_class = MLPSpec
    runtime_class = Runtime
    caught_by = "losses-exclude-padding"


class DrawsInEvaluation(WithRuntime, MLPSpec):
    """Draw random numbers in evaluation, without using them."""

    class Runtime(MLP):
        def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
            torch.rand(1)
            return super().forward(x_BTE, forward)

    name: Literal["draws-in-evaluation"] = "draws-in-evaluation"
    twin_class = MLPSpec
    runtime_class = Runtime
    caught_by = "eval-is-deterministic"


class RareNoise(WithRuntime, MLPSpec):
    """Add noise in about half of all calls, also in evaluation."""

    class Runtime(MLP):
        def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
            y_BTE = super().forward(x_BTE, forward)
            return y_BTE + torch.randn_like(y_BTE) if torch.rand(()) < 0.5 else y_BTE

    name: Literal["rare-noise"] = "rare-noise"
    twin_class = MLPSpec
    runtime_class = Runtime
    caught_by = "eval-is-deterministic"
    also = ANYTHING
