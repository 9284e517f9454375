"""Heads whose loss has one error each, which ordinary targets do not show."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from gptkit.components.head.linear import LinearHeadSpec
from gptkit.components.head.modules.linear import LinearHead
from gptkit.nn.forward import Forward
from tests.mutants.mutant import WithRuntime


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
