"""Head `distillation`.

Shapes: B batch, T tokens, E model width, V vocabulary; C tokens of a chunk.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import gptkit
from gptkit.core.component import component
from gptkit.core.registry import Registry
from gptkit.kinds.context import BuildContext
from gptkit.kinds.head import HeadSpec
from gptkit.kinds.tokenizer import Tokenizer
from gptkit.nn.embedding import Embedding
from gptkit.nn.forward import Forward
from gptkit.nn.head import IGNORED, Head

__all__ = ["DistillationHead", "DistillationSpec", "Teacher"]

CHUNK_BYTES = 64 << 20
"""Size of the student's logits that are held at one time, about."""


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
        context length; both are checked before the training starts. It is frozen and evaluating, and not a part of the
        model: neither its parameters nor its files are in checkpoints or exports. It is needed in training only; without
        it the model is loaded, evaluated and sampled as one with the inner head. The mean is over the tokens that the
        cross-entropy counts. Place `multi-token` prediction inside this head, not around it.
        In a training on several processes each holds the whole teacher. A head that does not mix tokens is computed in
        chunks of them, and again in the backward pass, so the logits of a batch are never held.
    """

    name: Literal["distillation"] = "distillation"
    teacher: str = Field(
        min_length=1,
        description="The teacher's run directory; a relative path counts from the directory where gptkit is started, and "
        "is recorded as an absolute one.",
    )
    head: HeadSpec = component("linear", description="The head that is trained, and alone computes logits.")
    temperature: float = Field(2.0, gt=0, description="τ: the higher, the more the less probable tokens count.")
    weight: float = Field(1.0, gt=0, description="Weight of the divergence beside the cross-entropy.")

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"teacher": "runs/teacher"},
        {"teacher": "runs/teacher", "temperature": 1.0, "weight": 0.5, "head": {"name": "linear", "tied": True}},
    )

    def resolved(self, context: BuildContext) -> Any:
        return self.replace(teacher=str(Path(self.teacher).expanduser().absolute()))

    def build(self, context: BuildContext, *, embedding: Embedding) -> DistillationHead:
        return DistillationHead(self, context, embedding)


class DistillationHead(Head):
    """Runtime of `distillation`."""

    def __init__(self, spec: DistillationSpec, context: BuildContext, embedding: Embedding) -> None:
        super().__init__()
        self.temperature = spec.temperature
        self.weight = spec.weight
        self.head = spec.head.build(context, embedding=embedding)
        self.teacher = Teacher(Path(spec.teacher), context)

    def before_training(self, tokenizer: Tokenizer) -> None:
        self.teacher.check(tokenizer)

    def decoding_modules(self) -> Iterator[nn.Module]:
        return self.head.decoding_modules()

    @property
    def mixes_tokens(self) -> bool:
        return self.head.mixes_tokens

    @property
    def tied_weights(self) -> Mapping[str, str]:
        return {f"head.{name}": owner for name, owner in self.head.tied_weights.items()}

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        logits_BTV: Tensor = self.head(x_BTE, forward)
        return logits_BTV

    def loss(self, x_BTE: Tensor, targets_BT: Tensor, forward: Forward) -> Tensor:
        loss = self.head.loss(x_BTE, targets_BT, forward)
        if self.training:
            forward.add_loss("distillation", self.weight * self.temperature**2 * self.divergence(x_BTE, targets_BT, forward))
        return loss

    def divergence(self, x_BTE: Tensor, targets_BT: Tensor, forward: Forward) -> Tensor:
        """The mean over counted tokens of KL(p ‖ q), a scalar in fp32 (fp64 where both models are in it).

        Raises:
            GptkitError: it is computed twice in one forward pass: this head is inside one that scores other tokens.
        """
        if "distillation" in forward.losses:
            raise gptkit.GptkitError(
                "a distillation head is called several times in one forward pass, for other tokens than the teacher scores",
                hint="Place it outside: head: {name: distillation, head: {name: multi-token, …}}.",
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
        """The sum of the divergences of the tokens `begin` to `end`."""
        logits_BCV = self.head(x_BCE, forward.span(begin, end))
        with torch.no_grad():
            taught_BCV = taught.logits(begin, end)
        dtype = torch.promote_types(torch.promote_types(logits_BCV.dtype, taught_BCV.dtype), torch.float32)
        log_q_BCV = F.log_softmax(logits_BCV.to(dtype) / self.temperature, dim=-1)
        log_p_BCV = F.log_softmax(taught_BCV.to(dtype) / self.temperature, dim=-1)
        divergence_BC = (log_p_BCV.exp() * (log_p_BCV - log_q_BCV)).sum(-1)
        return divergence_BC.masked_fill(~counted_BC, 0).sum()


class TeacherOutputs:
    """What a teacher computed for a batch, from which its logits are made chunk by chunk.

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
        """The logits (B, C, V) of the tokens `begin` to `end`."""
        logits_BCV: Tensor = self.head(self._x_BTE[:, begin:end], self._context.span(begin, end))
        return logits_BCV


class Teacher:
    """A frozen model that is loaded when it is first needed.

    Not a module, so its parameters are not among those of the model that holds it. Copies of that model share it.

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
            GptkitError: it cannot be loaded, or its vocabulary or context length does not suffice.
        """
        if self._run is None:
            self._run = self._load()
        return self._run

    def check(self, tokenizer: Tokenizer) -> None:
        """Check that the teacher reads the student's token ids as the same text.

        Raises:
            GptkitError: its tokenizer is another one.
        """
        other = self.run.tokenizer
        same = other.vocab_size == tokenizer.vocab_size and dict(other.special_tokens) == dict(tokenizer.special_tokens)
        if not same or any(other.token_bytes(token) != tokenizer.token_bytes(token) for token in range(other.vocab_size)):
            raise gptkit.GptkitError(
                f"the teacher {self.path} has another tokenizer than this model, so the same ids mean other text to it",
                hint="Copy the section tokenizer from the teacher's spec.yaml; one that is trained on a corpus needs the "
                "same corpus, too. Or choose another teacher.",
            )

    @torch.no_grad()
    def outputs(self, forward: Forward) -> TeacherOutputs:
        """What the teacher computes for the tokens of a forward pass, with its documents, padding and prefix."""
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
                f"the teacher {self.path} has {model.vocab_size:,} token ids, and this model {self.vocab_size:,}",
                hint="Choose a teacher with the same tokenizer, and the same model.vocab_size.",
            )
        if model.context_length < self._context_length:
            raise gptkit.GptkitError(
                f"the teacher {self.path} has a context length of {model.context_length:,}, "
                f"and this model one of {self._context_length:,}",
                hint=f"Set model.context_length to {model.context_length} at most, or choose another teacher.",
            )
        model.requires_grad_(False).eval()
        return run
