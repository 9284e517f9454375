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
    """Features that a layer's softmax attention requires of a backend, known before anything is computed.

    Attributes:
        bias: the position adds a term that depends on positions only, after the softcap.
        score_function: this term also exists as a score function for flex attention.
        content_term: the position or the attention adds a term that depends on queries or keys, before the softcap.
        added_term: the attention adds a term, after the softcap.
        value_term: the position adds a term to the values, from the attention weights.
        mixes_heads: scores or weights of several heads are mixed around the softmax.
        softcap: scores are capped.
        sinks: each head has an additional logit in the softmax (attention sinks).
        dropout: attention weights are dropped in training.
        pattern: a pattern other than an attention window restricts attention (chunks, for example).
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
        """Return the features of an attention with a relative position."""
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
    """Implementation of softmax attention: softmax(mask + bias + softcap(scale · q kᵀ + content term)) v.

    All backends compute the same result up to rounding; they differ in speed, memory, and supported features. The model's
    field `attention_backend` selects one, an entry of `layers` may select another. The backend of each layer is determined
    when the model is assembled.

    Requirements:
        the result equals that of `eager` for every layer whose features `limitation` accepts;
        `limitation` names every feature that the backend does not support; none is ignored.
    """

    kind: ClassVar[str] = "attention-backend"
    runtime: ClassVar[str] = "gptkit.nn.attention.backends.base:AttentionBackend"

    @abstractmethod
    def limitation(self, features: ScoreFeatures) -> str | None:
        """Return an unsupported feature of a layer as a noun phrase (``"a softcap"``); None if all are supported."""

    def choice(self, features: ScoreFeatures) -> tuple[AttentionBackendSpec, str]:
        """Return the backend for a layer with these features, and the reason as a clause; by default this one."""
        return self, "selected by the spec"

    @abstractmethod
    def build(self) -> AttentionBackend:
        """Return the object that computes attention. It has no parameters; several layers may share it."""
