"""Optimizer `muon`."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata
from typing import TYPE_CHECKING, Annotated, Any, Literal

from packaging.version import Version
from pydantic import Field

from gptkit.components.optimizer.groups import can_fuse, decay_groups, trainable
from gptkit.core.errors import Problem
from gptkit.kinds.optimizer import OptimizerSpec

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

__all__ = ["MuonSpec"]

Beta = Annotated[float, Field(ge=0, lt=1)]

_SCALING = {"rms": "match_rms_adamw", "spectral": "original"}


class MuonSpec(OptimizerSpec):
    """Momentum with orthogonalized updates for hidden matrices; AdamW for all other parameters.

    Formula:
        B ← μ·B + g
        O = NewtonSchulz(g + μ·B) ≈ U·Vᵀ    where U·Σ·Vᵀ is the singular value decomposition
        W ← W − η·λ·W
        W ← W − η·s·O    with s = 0.2·√max(rows, columns) (rms) or √max(1, rows / columns) (spectral)

    Paper:
        https://kellerjordan.github.io/posts/muon/

    Notes:
        Embeddings, heads, position tables and tensors that are not two-dimensional are optimized by AdamW, with a separate
        learning rate; stacked weights of experts are one matrix per expert, a packed query-key-value matrix is one. With
        the `rms` scale, learning rates of AdamW are suitable for Muon too (https://arxiv.org/abs/2502.16982).
    """

    name: Literal["muon"] = "muon"
    momentum: float = Field(0.95, ge=0, lt=1, description="μ: the momentum.")
    nesterov: bool = Field(True, description="Use Nesterov momentum.")
    iterations: int = Field(5, ge=1, le=50, description="Newton-Schulz iterations.")
    scale: Literal["rms", "spectral"] = Field(
        "rms", description="s: updates of the size of AdamW's, or with a spectral norm that depends on the matrix's shape."
    )
    weight_decay: float = Field(0.1, ge=0, description="λ, relative to the learning rate; also for the matrices of AdamW.")
    adamw_learning_rate: float | None = Field(
        None, gt=0, description="The peak learning rate of AdamW's parameters; `learning_rate` by default."
    )
    adamw_betas: tuple[Beta, Beta] = Field((0.9, 0.95), description="AdamW's β₁ and β₂.")

    def problems(self, context: Any) -> Iterator[Problem]:
        installed = metadata.version("torch")
        if Version(installed) < Version("2.9"):
            yield Problem((), f"requires torch 2.9 or newer, but {installed} is installed; run: pip install 'torch>=2.9'")

    def build(self, model: nn.Module) -> Optimizer:
        import torch

        from gptkit.components.optimizer.modules.joined import Joined
        from gptkit.components.optimizer.modules.stacked_muon import StackedMuon

        parameters = trainable(model)
        hidden = [grouped for grouped in parameters if grouped.options.hidden and grouped.parameter.ndim == 2]
        stacks = [grouped for grouped in parameters if grouped.options.hidden and grouped.parameter.ndim == 3]
        chosen = {id(grouped) for grouped in (*hidden, *stacks)}
        rest = [grouped for grouped in parameters if id(grouped) not in chosen]
        parts: list[Optimizer] = []
        if hidden:
            muon = torch.optim.Muon(
                decay_groups(hidden, self.learning_rate, self.weight_decay),
                lr=self.learning_rate,
                weight_decay=self.weight_decay,
                momentum=self.momentum,
                nesterov=self.nesterov,
                ns_steps=self.iterations,
                adjust_lr_fn=_SCALING[self.scale],
            )
            parts.append(muon)
        if stacks:
            stacked = StackedMuon(
                decay_groups(stacks, self.learning_rate, self.weight_decay),
                lr=self.learning_rate,
                weight_decay=self.weight_decay,
                momentum=self.momentum,
                nesterov=self.nesterov,
                ns_steps=self.iterations,
                match_rms=self.scale == "rms",
            )
            parts.append(stacked)
        if rest:
            adamw = torch.optim.AdamW(
                decay_groups(rest, self.adamw_learning_rate or self.learning_rate, self.weight_decay),
                lr=self.adamw_learning_rate or self.learning_rate,
                betas=self.adamw_betas,
                fused=True if can_fuse(rest) else None,
            )
            parts.append(adamw)
        return Joined(parts)
