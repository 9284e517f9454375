"""Head `distillation`.

Shapes: B batch, T tokens, E model width, V vocabulary; C tokens of a chunk.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor
from torch.utils.checkpoint import checkpoint

import gptkit
from gptkit.core.component import component
from gptkit.core.registry import Registry
from gptkit.kinds.context import BuildContext
from gptkit.kinds.head import HeadSpec
from gptkit.kinds.tokenizer import Tokenizer
from gptkit.nn.embedding import Embedding
from gptkit.nn.forward import Forward
from gptkit.nn.head import IGNORED, Head, WrappedHead

__all__ = ["DistillationHead", "DistillationSpec", "Teacher"]

CHUNK_BYTES = 64 << 20
"""Approximate size in bytes of the student's logits that are held at one time."""


class DistillationSpec(HeadSpec):
    """Loss of another head plus the divergence from the predictions of a trained model, the teacher.

    Formula:
        loss = cross-entropy of the inner head + weight · τ² · mean_t KL(p_t ‖ q_t)
        p_t = softmax(logits of the teacher / τ), q_t = softmax(logits / τ), KL(p ‖ q) = Σ_v p_v · (ln p_v − ln q_v)
    Shapes:
        (B, T, d_model) -> (B, T, vocabulary)
    Paper:
        https://arxiv.org/abs/1503.02531
    Notes:
        The teacher is a run of gptkit (import an external model first) with the same tokenizer and at least the same
        context length; both are checked before the training starts. It is frozen, in evaluation mode, and not a part of
        the model: its parameters and files are not in checkpoints or exports. It is needed in training only; loading,
        evaluation and generation use the inner head and need no teacher. The mean is over the tokens that are included in
        the cross-entropy. Place `multi-token` prediction inside this head, not around it.
        In a training with several processes, each holds the whole teacher. A head that does not mix tokens is computed in
        chunks of tokens, and again in the backward pass, so that the logits of a whole batch are never held.
    """

    name: Literal["distillation"] = "distillation"
    teacher: str = Field(
        min_length=1,
        description="The teacher's run directory; a path relative to the working directory is recorded as an absolute one.",
    )
    head: HeadSpec = component("linear", description="The inner head, which is trained and computes the logits.")
    temperature: float = Field(2.0, gt=0, description="τ; a higher one increases the influence of improbable tokens.")
    weight: float = Field(1.0, gt=0, description="Weight of the divergence, relative to the cross-entropy.")

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"teacher": "runs/teacher"},
        {"teacher": "runs/teacher", "temperature": 1.0, "weight": 0.5, "head": {"name": "linear", "tied": True}},
    )

    def resolved(self, context: BuildContext) -> Any:
        return self.replace(teacher=str(Path(self.teacher).expanduser().absolute()))

    def build(self, context: BuildContext, *, embedding: Embedding) -> DistillationHead:
        return DistillationHead(self, context, embedding)


class DistillationHead(WrappedHead):
    """Runtime part of `DistillationSpec`."""

    def __init__(self, spec: DistillationSpec, context: BuildContext, embedding: Embedding) -> None:
        super().__init__(spec.head.build(context, embedding=embedding))
        self.temperature = spec.temperature
        self.weight = spec.weight
        self.teacher = Teacher(Path(spec.teacher), context)

    def before_training(self, tokenizer: Tokenizer) -> None:
        self.teacher.check(tokenizer)

    def loss(self, x_BTE: Tensor, targets_BT: Tensor, forward: Forward) -> Tensor:
        loss = super().loss(x_BTE, targets_BT, forward)
        if self.training:
            forward.add_loss("distillation", self.weight * self.temperature**2 * self.divergence(x_BTE, targets_BT, forward))
        return loss

    def divergence(self, x_BTE: Tensor, targets_BT: Tensor, forward: Forward) -> Tensor:
        """Return the mean of KL(p ‖ q) over the tokens with a target, a scalar in fp32 (fp64 if both models are in fp64).

        Raises:
            GptkitError: it is computed twice in one forward pass, since this head is inside one that predicts other tokens.
        """
        if "distillation" in forward.losses:
            raise gptkit.GptkitError(
                "a distillation head is called several times in one forward pass, the teacher once",
                hint="Make it the outer head: head: {name: distillation, head: {name: multi-token, …}}.",
            )
        taught = self.teacher.outputs(forward)
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

    def _summed(
        self, x_BCE: Tensor, counted_BC: Tensor, forward: Forward, taught: TeacherOutputs, begin: int, end: int
    ) -> Tensor:
        """Return the sum of the divergences of the tokens `begin` to `end`."""
        logits_BCV = self.head(x_BCE, forward.span(begin, end))
        with torch.no_grad():
            taught_BCV = taught.logits(begin, end)
        dtype = torch.promote_types(torch.promote_types(logits_BCV.dtype, taught_BCV.dtype), torch.float32)
        log_q_BCV = F.log_softmax(logits_BCV.to(dtype) / self.temperature, dim=-1)
        log_p_BCV = F.log_softmax(taught_BCV.to(dtype) / self.temperature, dim=-1)
        divergence_BC = (log_p_BCV.exp() * (log_p_BCV - log_q_BCV)).sum(-1)
        return divergence_BC.masked_fill(~counted_BC, 0).sum()


class TeacherOutputs:
    """Hidden vectors of a teacher for a batch, from which its logits are computed chunk by chunk.

    Args:
        head: the teacher's head.
        x_BTE: the vectors that it receives.
        context: the context to call it with.
    """

    def __init__(self, head: Head, x_BTE: Tensor, context: Forward) -> None:
        self.head = head
        self._x_BTE = x_BTE
        self._context = context

    def logits(self, begin: int, end: int) -> Tensor:
        """Return the logits (B, C, V) of the tokens `begin` to `end`."""
        logits_BCV: Tensor = self.head(self._x_BTE[:, begin:end], self._context.span(begin, end))
        return logits_BCV


class Teacher:
    """A frozen model, loaded on first use.

    It is not a module, so that its parameters are not those of the student. Copies of the student share it.

    Args:
        path: the run directory.
        context: the student's build context.
    """

    def __init__(self, path: Path, context: BuildContext) -> None:
        self.path = path
        self.vocab_size = context.vocab_size
        self._context_length = context.context_length
        self._registry: Registry | None = context.registry
        self._run: gptkit.Run | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Teacher:
        return self

    @property
    def run(self) -> gptkit.Run:
        """The teacher's run.

        Raises:
            GptkitError: the run cannot be loaded, has another vocabulary size, or has a shorter context.
        """
        if self._run is None:
            self._run = self._load()
        return self._run

    def check(self, tokenizer: Tokenizer) -> None:
        """Check that every token id has the same text for the teacher as for the student.

        Raises:
            GptkitError: the tokenizers differ.
        """
        other = self.run.tokenizer
        same = other.vocab_size == tokenizer.vocab_size and dict(other.special_tokens) == dict(tokenizer.special_tokens)
        if not same or any(other.token_bytes(token) != tokenizer.token_bytes(token) for token in range(other.vocab_size)):
            raise gptkit.GptkitError(
                f"the teacher {self.path} has another tokenizer than this model, so its token ids do not match",
                hint="Copy the section tokenizer from the teacher's spec.yaml (a trained one requires the same corpus, "
                "too), or choose another teacher.",
            )

    @torch.no_grad()
    def outputs(self, forward: Forward) -> TeacherOutputs:
        """Return the teacher's outputs for the tokens of a forward pass, with the same documents, padding and prefix."""
        model = self.run.model
        if model.device != forward.device:
            model.to(forward.device)
        x_BTE, context = model.hidden(
            forward.ids_BT,
            left_padding_B=forward.left_padding_B,
            documents_BT=forward.documents_BT,
            prefix_B=forward.prefix_B,
        )
        return TeacherOutputs(model.head, x_BTE, context)

    def _load(self) -> gptkit.Run:
        try:
            run = gptkit.load(self.path, device="cpu", registry=self._registry)
        except gptkit.GptkitError as error:
            raise gptkit.GptkitError(
                f"the teacher of the distillation cannot be loaded: {error.message}",
                hint="Set model.head.teacher to the directory of a trained run (an external model is imported first)."
                + (f" {error.hint}" if error.hint else ""),
            ) from error
        model = run.model
        if model.vocab_size != self.vocab_size:
            raise gptkit.GptkitError(
                f"the teacher {self.path} has {model.vocab_size:,} token ids, but this model has {self.vocab_size:,}",
                hint="Choose a teacher with the same tokenizer, and the same model.vocab_size.",
            )
        if model.context_length < self._context_length:
            raise gptkit.GptkitError(
                f"the teacher {self.path} has a context length of {model.context_length:,}, "
                f"but this model has one of {self._context_length:,}",
                hint=f"Set model.context_length to at most {model.context_length}, or choose another teacher.",
            )
        model.requires_grad_(False).eval()
        return run
