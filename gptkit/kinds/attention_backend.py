"""Kind `attention-backend`."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from gptkit.core.component import Component
from gptkit.kinds.position import PositionSpec

if TYPE_CHECKING:
    from gptkit.nn.attention.backends.base import AttentionBackend

__all__ = ["AttentionBackendSpec", "ScoreFeatures"]


@dataclass(frozen=True)
class ScoreFeatures:
    """What the softmax attention of a layer asks of a backend; known before anything is computed.

    Attributes:
        bias: the position adds a term that depends on positions only, after the softcap.
        score_function: this term also exists as a score function, as flex attention takes it.
        content_term: the position or the attention adds a term that depends on queries or keys, before the softcap.
        added_term: the attention adds a term of its own, after the softcap.
        value_term: the position adds a term to the values, from the attention weights.
        mixes_heads: scores or weights of several heads are mixed around the softmax.
        softcap: scores are capped.
        sinks: each head has a logit that takes its share of the softmax.
        dropout: attention weights are dropped in training.
        pattern: a pattern other than a window restricts which tokens may be attended (chunks, say).
    """

    bias: bool = False
    score_function: bool = False
    content_term: bool = False
    added_term: bool = False
    value_term: bool = False
    mixes_heads: bool = False
    softcap: bool = False
    sinks: bool = False
    dropout: bool = False
    pattern: bool = False

    @classmethod
    def of(
        cls,
        position: PositionSpec,
        *,
        content_term: bool = False,
        added_term: bool = False,
        mixes_heads: bool = False,
        softcap: bool = False,
        sinks: bool = False,
        dropout: bool = False,
        pattern: bool = False,
    ) -> ScoreFeatures:
        """The features of an attention with a relative position."""
        return cls(
            bias="bias" in position.uses,
            score_function=position.score_function,
            content_term=content_term or "content_bias" in position.uses,
            added_term=added_term,
            value_term="value_bias" in position.uses,
            mixes_heads=mixes_heads,
            softcap=softcap,
            sinks=sinks,
            dropout=dropout,
            pattern=pattern,
        )


class AttentionBackendSpec(Component):
    """Computes the softmax attention of a layer: softmax(mask + bias + softcap(scale · q kᵀ + content term)) v.

    All backends give the same result up to rounding; they differ in speed, memory, and in what they can express. The model's
    field `attention_backend` selects one, which is settled for each layer when the model is assembled.

    What must hold:
        the result equals that of `eager` for every layer whose features `limitation` accepts;
        a feature that the backend cannot compute is named by `limitation`, never ignored.
    """

    kind: ClassVar[str] = "attention-backend"
    runtime: ClassVar[str] = "gptkit.nn.attention.backends.base:AttentionBackend"

    @abstractmethod
    def limitation(self, features: ScoreFeatures) -> str | None:
        """What of a layer's features the backend cannot compute, as a noun phrase (``"a softcap"``); None for nothing."""

    def choice(self, features: ScoreFeatures) -> tuple[AttentionBackendSpec, str]:
        """The backend that computes a layer with these features, and why, as a clause; by default this one."""
        return self, "selected by the spec"

    @abstractmethod
    def build(self) -> AttentionBackend:
        """The object that computes attention. It has no parameters; one may serve all layers."""
