"""Optimizer `ademamix`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from gptkit.components.optimizer.groups import decay_groups, trainable
from gptkit.components.optimizer.options import Beta, Cautious, Decay
from gptkit.kinds.optimizer import OptimizerSpec

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

__all__ = ["AdEMAMixSpec"]


class AdEMAMixSpec(OptimizerSpec):
    """AdEMAMix: AdamW with a second, slow average of the gradient.

    Formula:
        m₁ ← β₁·m₁ + (1 − β₁)·g
        m₂ ← β₃(t)·m₂ + (1 − β₃(t))·g
        v ← β₂·v + (1 − β₂)·g²
        u = (m₁ / (1 − β₁ᵗ) + α(t)·m₂) / (√(v / (1 − β₂ᵗ)) + ε)
        θ ← θ − η·λ·θ − η·u    with `cautious`, θ − η·λ·θ only in entries where u·θ ≥ 0
        α(t) = α·min(1, t / T_α)
        β₃(t) = min(β₃, exp(ln β₁·ln β₃ / ((1 − t / T_β)·ln β₃ + (t / T_β)·ln β₁)))
        with T_α = alpha_warmup_steps and T_β = beta3_warmup_steps

    Paper:
        https://arxiv.org/abs/2409.03137

    Notes:
        The half-life of m₂ rises linearly during the warmup. Without the two warmups a training may diverge. The paper sets
        both to the number of steps of the training; this is not the default, since a training may be resumed with more.
        t is the number of updates of a parameter.
    """

    formula: ClassVar[str] = r"""
        m_1 \leftarrow \beta_1 m_1 + (1 - \beta_1) g \qquad m_2 \leftarrow \beta_3(t)\, m_2 + (1 - \beta_3(t)) g
        v \leftarrow \beta_2 v + (1 - \beta_2) g^2
        u = \frac{m_1 / (1 - \beta_1^t) + \alpha(t)\, m_2}{\sqrt{v / (1 - \beta_2^t)} + \epsilon}
        \theta \leftarrow \theta - \eta \lambda \theta - \eta u
    """

    name: Literal["ademamix"] = "ademamix"
    elementwise: ClassVar[bool] = True
    betas: tuple[Beta, Beta, Beta] = Field(
        (0.9, 0.999, 0.9999),
        description="β₁, β₂ and β₃: decay rates of the fast average of the gradient, of the average of its square, and of "
        "the slow average.",
    )
    alpha: float = Field(5.0, ge=0, description="α: factor of the slow average.")
    alpha_warmup_steps: int = Field(0, ge=0, description="T_α: number of steps in which α rises from 0.")
    beta3_warmup_steps: int = Field(0, ge=0, description="T_β: number of steps in which β₃ rises from β₁.")
    eps: float = Field(1e-8, gt=0, description="ε, added to the denominator.")
    weight_decay: float = Field(0.1, ge=0, description="λ, relative to the learning rate.")
    decay: Decay = "matrices"
    cautious: Cautious = False

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {},
        {"alpha_warmup_steps": 1000, "beta3_warmup_steps": 1000},
        {"betas": (0.0, 0.99, 0.999), "beta3_warmup_steps": 7, "cautious": True, "decay": "all"},
    )

    def build(self, model: nn.Module) -> Optimizer:
        from gptkit.components.optimizer.modules.ademamix import AdEMAMix

        parameters = trainable(model, self.groups)
        return AdEMAMix(
            decay_groups(parameters, self.learning_rate, self.weight_decay, everywhere=self.decay == "all"),
            lr=self.learning_rate,
            betas=self.betas,
            alpha=self.alpha,
            alpha_warmup_steps=self.alpha_warmup_steps,
            beta3_warmup_steps=self.beta3_warmup_steps,
            eps=self.eps,
            cautious=self.cautious,
        )
