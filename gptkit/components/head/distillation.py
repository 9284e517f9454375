"""Distillation: a loss against the predictions of a trained model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from gptkit.core.component import component
from gptkit.core.errors import Problem
from gptkit.core.walk import components
from gptkit.kinds.context import BuildContext
from gptkit.kinds.embedding import EmbeddingSpec
from gptkit.kinds.head import HeadSpec
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from gptkit.nn.embedding import Embedding
    from gptkit.nn.head import Head

__all__ = ["DistillationHeadSpec"]


class DistillationHeadSpec(HeadSpec):
    """Loss of another head plus the divergence from the predictions of a trained model, the teacher.

    Formula:
        loss = cross-entropy of the inner head + weight · τ² · mean_t KL(p_t ‖ q_t)
        p_t = softmax(logits of the teacher / τ), q_t = softmax(logits / τ), KL(p ‖ q) = Σ_v p_v · (ln p_v − ln q_v)

    Shapes:
        (B, T, d_model) → (B, T, vocabulary)

    Paper:
        https://arxiv.org/abs/1503.02531

    Notes:
        The teacher is a run of gptkit (import an external model first) with the same tokenizer and at least the same
        context length; both are checked before the training starts. It is frozen, in evaluation mode, and not a part of
        the model: its parameters are not trained, and not in checkpoints or exports. It is needed in training only; loading,
        evaluation and generation use the inner head and need no teacher. The mean is over the tokens that are included in
        the cross-entropy. Place `multi-token` prediction inside this head, not around it.
        In a training with several processes, each holds the whole teacher; `gptkit plan` counts its memory and its forward
        pass. A head that does not mix tokens is computed in chunks of tokens, and again in the backward pass, so that the
        logits of a whole batch are never held.
    """

    formula: ClassVar[str] = r"""
        \text{loss} = \text{loss}_{\text{inner}} + \lambda \tau^2 \overline{\operatorname{KL}(p_t \| q_t)}
        p = \operatorname{softmax}(z_{\text{teacher}} / \tau) \qquad q = \operatorname{softmax}(z / \tau)
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

    def problems(self, context: BuildContext) -> Iterator[Problem]:
        if any(isinstance(part, DistillationHeadSpec) for _, part in components(self.head)):
            yield Problem(("head",), "a distillation within another one has a second teacher; choose another head")

    def resolved(self, context: BuildContext) -> Any:
        return self.replace(teacher=str(Path(self.teacher).expanduser().absolute()))

    def build(self, context: BuildContext, *, embedding: Embedding) -> Head:
        from gptkit.components.head.modules.distillation import DistillationHead

        return DistillationHead(self, context, embedding)

    def written(self, context: WritingContext, *, embedding: EmbeddingSpec) -> Written:
        from gptkit.components.head.written.wrapped import wrapped

        return wrapped(self.head, context, embedding, fields=("teacher", "head", "temperature", "weight"))
