"""Runtime module of head `distillation`.

Shapes: B batch, T tokens, E model width, V vocabulary; C tokens of a chunk.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from gptkit.core.errors import GptkitError
from gptkit.kinds.context import BuildContext
from gptkit.kinds.tokenizer import Tokenizer
from gptkit.nn.embedding import Embedding
from gptkit.nn.forward import Forward
from gptkit.nn.head import IGNORED, WrappedHead
from gptkit.nn.other_run import OtherRun, Outputs

if TYPE_CHECKING:
    from gptkit.components.head.distillation import DistillationHeadSpec

__all__ = ["DistillationHead"]

CHUNK_BYTES = 64 << 20
"""Approximate size in bytes of the student's logits that are held at one time."""


class DistillationHead(WrappedHead):
    """Runtime part of `DistillationHeadSpec`."""

    def __init__(self, spec: DistillationHeadSpec, context: BuildContext, embedding: Embedding) -> None:
        super().__init__(spec.head.build(context, embedding=embedding))
        self.temperature = spec.temperature
        self.loss_weights = {"distillation": spec.weight}
        self.teacher = OtherRun(Path(spec.teacher), "the teacher of the distillation (model.head.teacher)", context)

    def before_training(self, tokenizer: Tokenizer) -> None:
        self.teacher.check(tokenizer)

    def loss(self, x_BTE: Tensor, targets_BT: Tensor, forward: Forward) -> Tensor:
        loss = super().loss(x_BTE, targets_BT, forward)
        weight = self.loss_weights["distillation"] * self.temperature**2
        if self.training and weight > 0:
            forward.add_loss("distillation", weight * self.divergence(x_BTE, targets_BT, forward))
        return loss

    def divergence(self, x_BTE: Tensor, targets_BT: Tensor, forward: Forward) -> Tensor:
        """Return the mean of KL(p ‖ q) over the tokens with a target, a scalar in fp32 (fp64 if both models are in fp64).

        Raises:
            GptkitError: it is computed twice in one forward pass, since this head is inside one that predicts other tokens.
        """
        if "distillation" in forward.losses:
            raise GptkitError(
                "a distillation head is called several times in one forward pass, the teacher once",
                hint="Make it the outer head: head: {name: distillation, head: {name: multi-token, …}}.",
            )
        # The plan of a step has shapes only: it uses logits of the student in place of those of the teacher.
        taught = Outputs(self.head, x_BTE.detach(), forward) if x_BTE.is_meta else self.teacher.outputs(forward)
        counted_BT = targets_BT != IGNORED
        n_tokens = x_BTE.shape[1]
        whole = self.head.mixes_tokens or taught.head.mixes_tokens
        size = n_tokens if whole else max(1, CHUNK_BYTES // (4 * x_BTE.shape[0] * self.teacher.vocab_size))
        total: Tensor | None = None
        for begin in range(0, n_tokens, size):
            end = min(begin + size, n_tokens)
            part = checkpoint(
                self._summed, x_BTE[:, begin:end], counted_BT[:, begin:end], forward, taught, begin, end, use_reentrant=False
            )
            total = part if total is None else total + part
        assert total is not None
        return total / counted_BT.sum().clamp_min(1)

    def _summed(self, x_BCE: Tensor, counted_BC: Tensor, forward: Forward, taught: Outputs, begin: int, end: int) -> Tensor:
        """Return the sum of the divergences of the tokens `begin` to `end`."""
        logits_BCV = self.head(x_BCE, forward.span(begin, end))
        with torch.no_grad():
            taught_BCV = taught.logits(begin, end)
        dtype = torch.promote_types(torch.promote_types(logits_BCV.dtype, taught_BCV.dtype), torch.float32)
        log_q_BCV = F.log_softmax(logits_BCV.to(dtype) / self.temperature, dim=-1)
        log_p_BCV = F.log_softmax(taught_BCV.to(dtype) / self.temperature, dim=-1)
        divergence_BC = (log_p_BCV.exp() * (log_p_BCV - log_q_BCV)).sum(-1)
        return divergence_BC.masked_fill(~counted_BC, 0).sum()
