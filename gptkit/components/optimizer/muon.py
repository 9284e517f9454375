"""Optimizer `muon`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from packaging.version import Version
from pydantic import Field

from gptkit.components.optimizer.groups import can_fuse, decay_groups, trainable
from gptkit.components.optimizer.options import Beta
from gptkit.core.errors import Problem
from gptkit.kinds.optimizer import OptimizerSpec

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

__all__ = ["MuonSpec"]

_SCALING = {"rms": "match_rms_adamw", "spectral": "original"}


class MuonSpec(OptimizerSpec):
    """Momentum with orthogonalized updates for hidden matrices; AdamW for all other parameters.

    Formula:
        B ← μ·B + g
        O = NewtonSchulz(g + μ·B) ≈ U·Vᵀ    where U·Σ·Vᵀ is the singular value decomposition
        W ← W − η·λ·W
        W ← W − η·s·O    with s = 0.2·√max(rows, columns) (rms) or √max(1, rows / columns) (spectral)
        neuron_beta (NorMuon): v ← β₂·v + (1 − β₂)·mean of O² over columns;  Ô = O / (√v + ε), each row by its v;
            W ← W − η·0.2·√(rows·columns)·Ô / ‖Ô‖ (rms) or W − η·s·‖O‖·Ô / ‖Ô‖ (spectral)
        cautious: W ← W − η·λ·W only in entries where O·W ≥ 0

    Paper:
        https://kellerjordan.github.io/posts/muon/, https://arxiv.org/abs/2510.05491 (NorMuon),
        https://arxiv.org/abs/2505.16932 (Polar Express), https://arxiv.org/abs/2510.12402 (cautious weight decay)

    Notes:
        Embeddings, heads, position tables and tensors that are not two-dimensional are optimized by AdamW, with a separate
        learning rate; stacked weights of experts are one matrix per expert, a packed query-key-value matrix is one. With
        the `rms` scale, learning rates of AdamW are suitable for Muon too (https://arxiv.org/abs/2502.16982).
        The iterations run in bf16. In fp32, singular values from 0.01 to 1 end between 0.68 and 1.21 with `newton-schulz`,
        whatever the number of iterations; with `polar-express` between 0.87 and 1.13 after 5, and within 1e-5 of 1 after 8
        (within 0.01 in bf16).
    """

    formula: ClassVar[str] = r"""
        B \leftarrow \mu B + G \qquad O = \operatorname{NewtonSchulz}(G + \mu B) \approx U V^\top
        W \leftarrow W - \eta \lambda W - \eta s O
        s = 0.2 \sqrt{\max(n_{\text{rows}}, n_{\text{columns}})}
    """

    name: Literal["muon"] = "muon"
    momentum: float = Field(0.95, ge=0, lt=1, description="μ: the momentum.")
    nesterov: bool = Field(True, description="Use Nesterov momentum.")
    iterations: int = Field(5, ge=1, le=50, description="Newton-Schulz iterations.")
    coefficients: Literal["newton-schulz", "polar-express"] = Field(
        "newton-schulz",
        description="Coefficients of the iterations: the same in each, or those of Polar Express, which converge to 1.",
    )
    neuron_beta: Beta | None = Field(
        None,
        description="β₂ of the second moment of each neuron (row) of the update, by which NorMuon divides it (0.95 in the "
        "paper); null for no such normalization.",
    )
    scale: Literal["rms", "spectral"] = Field(
        "rms", description="s: updates of the size of AdamW's, or with a spectral norm that depends on the matrix's shape."
    )
    weight_decay: float = Field(0.1, ge=0, description="λ, relative to the learning rate; also for the matrices of AdamW.")
    cautious: bool = Field(
        False, description="Apply weight decay only to entries that the update moves towards zero; AdamW's matrices too."
    )
    adamw_learning_rate: float | None = Field(
        None, gt=0, description="The peak learning rate of AdamW's parameters; `learning_rate` by default."
    )
    adamw_betas: tuple[Beta, Beta] = Field((0.9, 0.95), description="AdamW's β₁ and β₂.")

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {},
        {"coefficients": "polar-express", "iterations": 8, "neuron_beta": 0.95, "cautious": True},
    )

    def problems(self, context: Any) -> Iterator[Problem]:
        installed = metadata.version("torch")
        if Version(installed) < Version("2.9"):
            yield Problem((), f"requires torch 2.9 or newer, but {installed} is installed; run: pip install 'torch>=2.9'")

    def build(self, model: nn.Module) -> Optimizer:
        import torch

        from gptkit.components.optimizer.modules.cautious_adamw import CautiousAdamW
        from gptkit.components.optimizer.modules.joined import Joined
        from gptkit.components.optimizer.modules.muon import Muon

        parameters = trainable(model, self.groups)
        hidden = [grouped for grouped in parameters if grouped.options.hidden and grouped.parameter.ndim == 2]
        stacks = [grouped for grouped in parameters if grouped.options.hidden and grouped.parameter.ndim == 3]
        chosen = {id(grouped) for grouped in (*hidden, *stacks)}
        rest = [grouped for grouped in parameters if id(grouped) not in chosen]
        plain = self.coefficients == "newton-schulz" and self.neuron_beta is None and not self.cautious
        parts: list[Optimizer] = []
        if hidden and plain:
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
        own = stacks if plain else hidden + stacks
        if own:
            general = Muon(
                decay_groups(own, self.learning_rate, self.weight_decay),
                lr=self.learning_rate,
                momentum=self.momentum,
                nesterov=self.nesterov,
                ns_steps=self.iterations,
                match_rms=self.scale == "rms",
                polar_express=self.coefficients == "polar-express",
                neuron_beta=self.neuron_beta,
                cautious=self.cautious,
            )
            parts.append(general)
        if rest:
            adamw = (CautiousAdamW if self.cautious else torch.optim.AdamW)(
                decay_groups(rest, self.adamw_learning_rate or self.learning_rate, self.weight_decay),
                lr=self.adamw_learning_rate or self.learning_rate,
                betas=self.adamw_betas,
                fused=True if can_fuse(rest) else None,
            )
            parts.append(adamw)
        return Joined(parts)
