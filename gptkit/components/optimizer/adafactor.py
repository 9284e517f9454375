"""Optimizer `adafactor`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from gptkit.components.optimizer.groups import decay_groups, trainable
from gptkit.components.optimizer.options import Beta, Cautious, Decay
from gptkit.kinds.optimizer import OptimizerSpec

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

__all__ = ["AdafactorSpec"]


class AdafactorSpec(OptimizerSpec):
    """Adafactor: Adam with a second moment of the rows and one of the columns of a matrix, and updates of bounded size.

    Formula:
        β̂ = 1 − t^(−p)    with p = decay_exponent
        R ← β̂·R + (1 − β̂)·mean over columns of (G² + ε₁);  C ← β̂·C + (1 − β̂)·mean over rows of (G² + ε₁)
        V = R·C / mean(R)    (vectors, or without `factored`: V ← β̂·V + (1 − β̂)·(G² + ε₁))
        U = G / √V;  Û = U / max(1, RMS(U) / d)
        Û ← max(ε₂, RMS(W))·Û    with `scale_parameter`
        M ← β₁·M + (1 − β₁)·Û    with beta1; else M = Û
        W ← W − η·λ·W − η·M    with `cautious`, W − η·λ·W only in entries where M·W ≥ 0

    Paper:
        https://arxiv.org/abs/1804.04235

    Notes:
        The state of a matrix is one number per row and column. The relative step size of the paper, min(0.01, 1 / √t), is
        the default learning rate with schedule `inverse-sqrt`, timescale 10000 and shift 0. Without `scale_parameter`,
        learning rates of AdamW are suitable. Stacked weights of experts are one matrix per expert. Differs from
        `torch.optim.Adafactor`, which has no such options and adds ε₁ elsewhere. Parameters that are sharded over
        processes are not supported.
    """

    formula: ClassVar[str] = r"""
        R \leftarrow \hat\beta R + (1 - \hat\beta) (G^2 + \epsilon_1) 1 / n \qquad
        C \leftarrow \hat\beta C + (1 - \hat\beta) 1^\top (G^2 + \epsilon_1) / m \qquad \hat\beta = 1 - t^{-p}
        U = G \Big/ \sqrt{\frac{R C}{\operatorname{mean}(R)}} \qquad \hat U = \frac{U}{\max(1, \operatorname{RMS}(U) / d)}
        W \leftarrow W - \eta \lambda W - \eta \max(\epsilon_2, \operatorname{RMS}(W))\, \hat U
    """

    name: Literal["adafactor"] = "adafactor"
    learning_rate: float = Field(
        1e-2, gt=0, description="The peak learning rate, relative to the size of parameters with `scale_parameter`."
    )
    decay_exponent: float = Field(0.8, gt=0, le=1, description="p: exponent of t in the decay rate of the second moments.")
    clip_threshold: float = Field(1.0, gt=0, description="d: largest root mean square of an update.")
    eps: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = Field(
        (1e-30, 1e-3), description="ε₁, added to squared gradients, and ε₂, the smallest size of a parameter."
    )
    beta1: Beta | None = Field(None, description="β₁: decay rate of the moving average of updates; null for none.")
    scale_parameter: bool = Field(True, description="Multiply updates by the root mean square of the parameter.")
    factored: bool = Field(True, description="Store the second moments of rows and columns, not of each entry.")
    weight_decay: float = Field(0.01, ge=0, description="λ, relative to the learning rate.")
    decay: Decay = "matrices"
    cautious: Cautious = False

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {},
        {"scale_parameter": False, "learning_rate": 1e-3, "beta1": 0.9},
        {"factored": False, "cautious": True, "decay": "all"},
    )

    def build(self, model: nn.Module) -> Optimizer:
        from gptkit.components.optimizer.modules.adafactor import Adafactor

        parameters = trainable(model, self.groups)
        return Adafactor(
            decay_groups(parameters, self.learning_rate, self.weight_decay, everywhere=self.decay == "all"),
            lr=self.learning_rate,
            decay_exponent=self.decay_exponent,
            clip_threshold=self.clip_threshold,
            eps=self.eps,
            beta1=self.beta1,
            scale_parameter=self.scale_parameter,
            factored=self.factored,
            cautious=self.cautious,
        )
