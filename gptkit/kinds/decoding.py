"""Kind `decoding`.

Shapes: R rows of a search, T tokens, E width, V vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from gptkit.core.component import Component

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Continuation", "DecodingContext", "DecodingSpec", "Search", "Step"]


@dataclass(frozen=True)
class DecodingContext:
    """Context that a decoding receives when it is built: one prompt and the limits of its continuation.

    Attributes:
        vocab_size: V.
        max_new_tokens: maximum number of tokens to generate, at least 1.
        stop_ids: tokens that end a continuation; they are not part of it.
        stream: seed of the search's random numbers: ``random.Random(stream)``.
    """

    vocab_size: int
    max_new_tokens: int
    stop_ids: frozenset[int] = frozenset()
    stream: str = ""


@dataclass(frozen=True)
class Step:
    """The rows after a step of a search. Without rows, the search has ended.

    Attributes:
        rows: for each new row, the previous row that it continues; a row may be continued several times, or not at all.
        tokens: the token that each new row adds.
    """

    rows: Sequence[int] = ()
    tokens: Sequence[int] = ()


@dataclass(frozen=True)
class Continuation:
    """One continuation that a search found.

    Attributes:
        ids: the generated tokens, without the token that ended it.
        score: the number by which the search ranks continuations; higher is better.
        ended: whether it ended by itself, and not because `max_new_tokens` was reached.
    """

    ids: list[int] = field(repr=False)
    score: float
    ended: bool


class Search(ABC):
    """Search for continuations of one prompt. The host holds a row of the model's cache for each text of the search.

    The first step receives one row, the prompt. Every step decides which rows are continued with which tokens; the host
    reorders its cache, computes the logits after the new tokens, and calls the next step.
    """

    needs_hidden: ClassVar[bool] = False
    """Whether `step` receives hidden states."""

    @abstractmethod
    def step(self, logits_RV: Tensor, ended: Collection[int] = (), hidden_RTE: Tensor | None = None) -> Step:
        """Continue the search by one token.

        Args:
            logits_RV: logits after the text of each row, as the samplers left them, fp32; -inf excludes a token.
            ended: rows whose text ended with its last token, by a stop string; they must not be continued.
            hidden_RTE: the vectors that the model's head receives, of the tokens since the previous step: those of the
                prompt at first, then one per row. Only with `needs_hidden`.

        Returns:
            The new rows; none if the search has ended.
        """

    @abstractmethod
    def results(self) -> list[Continuation]:
        """Return the continuations, best first, at least one; before the search has ended, the best so far."""


class DecodingSpec(Component):
    """Decoding: how continuations of a prompt are searched for in the distribution that the samplers leave.

    A decoding may follow several texts at once. It never continues a text with an excluded token, or beyond a stop token or
    `max_new_tokens`, and returns texts that its steps have formed. Equal seeds give equal results.

    Declared capabilities:
        samples: it draws one token at a time from the distribution, and follows one text. The generator then samples
            without a search, in one batch with other prompts.
        deterministic: it draws no random numbers.
    """

    kind: ClassVar[str] = "decoding"
    samples: ClassVar[bool] = False
    deterministic: ClassVar[bool] = False

    @property
    def n_rows(self) -> int:
        """Maximum number of rows of a search, each of which needs a row of the key/value cache."""
        return 1

    @abstractmethod
    def build(self, context: DecodingContext) -> Search:
        """Return the search for continuations of one prompt, in its initial state."""
