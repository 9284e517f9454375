"""Orthogonal matrices."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from gptkit.kinds.context import BuildContext
from gptkit.kinds.initializer import InitializerSpec

if TYPE_CHECKING:
    from torch import Generator, Size, Tensor

    from gptkit.nn.initial import Role

__all__ = ["OrthogonalSpec"]


class OrthogonalSpec(InitializerSpec):
    """Orthogonal matrices, which preserve the length of vectors.

    Formula:
        W·Wᵀ = gain² · 1 or Wᵀ·W = gain² · 1, whichever is smaller; outputs: divided by √(2 · n_layers)
        Tables of vectors: N(0, embedding_std²).

    Paper:
        https://arxiv.org/abs/1312.6120
    """

    formula: ClassVar[str] = r"""
        W W^\top = g^2 I \text{ or } W^\top W = g^2 I
        W_{\text{out}} \leftarrow W_{\text{out}} / \sqrt{2 n_{\text{layers}}}
    """

    name: Literal["orthogonal"] = "orthogonal"
    gain: float = Field(1.0, description="Factor of the orthogonal matrix.", gt=0)
    embedding_std: float = Field(0.02, description="Standard deviation of tables of vectors.", gt=0)
    scale_outputs: bool = Field(True, description="Divide projections that write to the residual stream by √(2 · n_layers).")

    def fill(self, role: Role, shape: Size, generator: Generator, context: BuildContext) -> Tensor:
        import torch

        if role == "embedding" or len(shape) < 2:
            return torch.empty(shape, device=generator.device).normal_(0, self.embedding_std, generator=generator)
        gain = self.gain
        if role == "output" and self.scale_outputs:
            gain /= math.sqrt(2 * context.n_layers)
        w = torch.empty(shape, device=generator.device)
        # A stack of matrices (one per expert) is filled matrix by matrix.
        for matrix in w.view(-1, *shape[-2:]):
            torch.nn.init.orthogonal_(matrix, gain, generator=generator)
        return w
