"""Optimizer `soap`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from gptkit.components.optimizer.groups import can_fuse, decay_groups, trainable
from gptkit.components.optimizer.options import Beta
from gptkit.kinds.optimizer import OptimizerSpec

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

__all__ = ["SOAPSpec"]


class SOAPSpec(OptimizerSpec):
    """Adam in the eigenbasis of Shampoo's preconditioner for hidden matrices; AdamW for all other parameters.

    Formula:
        L ← β_s·L + (1 − β_s)·G·Gᵀ;  R ← β_s·R + (1 − β_s)·Gᵀ·G
        Q_L, Q_R: eigenvectors of L and R; in the first step exact, then in every `every`-th step one power iteration
            Q ← QR(L·Q), columns in the order of decreasing diag(Qᵀ·L·Q)
        M ← β₁·M + (1 − β₁)·G;  G′ = Q_Lᵀ·G·Q_R;  V ← β₂·V + (1 − β₂)·G′²
        N = Q_L·((Q_Lᵀ·M·Q_R / (1 − β₁ᵗ)) / (√(V / (1 − β₂ᵗ)) + ε))·Q_Rᵀ
        W ← W − η·λ·W − η·N

    Paper:
        https://arxiv.org/abs/2409.11321

    Notes:
        The bases are updated before the gradient is rotated, and the first step is like any other; the code of the paper
        updates them after a step, and only initializes in the first one. If eigenvectors change their order, the rows or
        columns of V do too. Stacked weights of experts are one matrix per expert. A side longer than `max_dimension` is not
        rotated. The state has, besides M and V, the matrices L, Q_L, R and Q_R of each parameter, in fp32. Parameters that
        are sharded over processes are not supported.
    """

    formula: ClassVar[str] = r"""
        L \leftarrow \beta_s L + (1 - \beta_s) G G^\top \qquad R \leftarrow \beta_s R + (1 - \beta_s) G^\top G
        G' = Q_L^\top G Q_R \qquad V \leftarrow \beta_2 V + (1 - \beta_2) G'^2
        N = Q_L \frac{Q_L^\top M Q_R / (1 - \beta_1^t)}{\sqrt{V / (1 - \beta_2^t)} + \epsilon} Q_R^\top
        W \leftarrow W - \eta \lambda W - \eta N
    """

    name: Literal["soap"] = "soap"
    learning_rate: float = Field(3e-3, gt=0, description="The peak learning rate.")
    betas: tuple[Beta, Beta] = Field((0.95, 0.95), description="β₁ and β₂, also of AdamW.")
    preconditioner_beta: Beta = Field(0.95, description="β_s: decay rate of L and R.")
    eps: float = Field(1e-8, gt=0, description="ε, added to the denominator.")
    every: int = Field(10, ge=1, description="Number of steps between two updates of the eigenvectors.")
    max_dimension: int = Field(10000, ge=1, description="Longest side of a matrix that has a preconditioner.")
    weight_decay: float = Field(0.01, ge=0, description="λ, relative to the learning rate; also for the matrices of AdamW.")

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = ({}, {"every": 1}, {"max_dimension": 8, "every": 3})

    def build(self, model: nn.Module) -> Optimizer:
        import torch

        from gptkit.components.optimizer.modules.joined import Joined
        from gptkit.components.optimizer.modules.soap import SOAP

        parameters = trainable(model, self.groups)
        hidden = [grouped for grouped in parameters if grouped.options.hidden and grouped.parameter.ndim in (2, 3)]
        chosen = {id(grouped) for grouped in hidden}
        rest = [grouped for grouped in parameters if id(grouped) not in chosen]
        parts: list[Optimizer] = []
        if hidden:
            soap = SOAP(
                decay_groups(hidden, self.learning_rate, self.weight_decay),
                lr=self.learning_rate,
                betas=self.betas,
                preconditioner_beta=self.preconditioner_beta,
                eps=self.eps,
                every=self.every,
                max_dimension=self.max_dimension,
            )
            parts.append(soap)
        if rest:
            adamw = torch.optim.AdamW(
                decay_groups(rest, self.learning_rate, self.weight_decay),
                lr=self.learning_rate,
                betas=self.betas,
                eps=self.eps,
                fused=True if can_fuse(rest) else None,
            )
            parts.append(adamw)
        return Joined(parts)
