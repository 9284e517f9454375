"""Kind `drafter`.

Shapes: V vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

from gptkit.core.component import Component

if TYPE_CHECKING:
    from torch import Tensor

    from gptkit.kinds.tokenizer import Tokenizer

__all__ = ["MAX_DRAFT", "Drafter", "DrafterContext", "DrafterSpec", "TextReader"]

MAX_DRAFT = 15
"""Maximum number of tokens of a proposal. Caches of sliding windows can discard this many tokens."""


class TextReader(Protocol):
    """A model, or the prediction modules of one, as a drafter uses it. It has a key/value cache of its own."""

    def __call__(self, text: Sequence[int]) -> Tensor:
        """Return the logits after a text, (V,) fp32.

        Only the tokens after the longest common prefix with the previous text are processed.
        """

    def mark(self) -> None:
        """Make a return to the latest text cheap for models with a recurrent state, too."""


@dataclass(frozen=True)
class DrafterContext:
    """Context that a drafter receives when it is built.

    Attributes:
        vocab_size: V, the number of token ids that may be proposed.
        tokenizer: the tokenizer of the texts.
        open_run: function that loads the run in a directory, once, and returns a reader of its model for one text. It
            raises a `GptkitError` if the run has another tokenizer.
        open_predictions: function that returns a reader of the prediction modules in the model's head, to be called in
            `DrafterSpec.build`. In `Drafter.propose` the reader returns the logits after the history and its continuations.
            It raises a `GptkitError` if the head has no such modules (head `multi-token`).
    """

    vocab_size: int
    tokenizer: Tokenizer
    open_run: Callable[[str], TextReader]
    open_predictions: Callable[[], TextReader]


class Drafter(ABC):
    """Drafter of one text."""

    @abstractmethod
    def propose(self, history: Sequence[int], limit: int) -> Sequence[int]:
        """Return the token ids that are expected to follow, at most `limit`; an empty sequence without an expectation.

        Args:
            history: the token ids of the text so far, including the prompt; must not be changed. Each call has the history
                of the previous call and at least one more token, which need not be a proposed one.
            limit: maximum number of tokens, 1 to `MAX_DRAFT`.
        """

    def verified(self, n_proposed: int, n_accepted: int) -> None:
        """Called after the model has verified the latest proposal.

        Args:
            n_proposed: number of verified tokens, possibly fewer than were proposed.
            n_accepted: number of these that became a part of the text.
        """


class DrafterSpec(Component):
    """Drafter: proposes the next tokens of a text, which the model then verifies in one forward pass (speculative decoding).

    A proposal cannot change the text. The sampler chain draws each token from the model's logits as without a drafter; the
    drawn token is appended, and the draw at the next position is valid if it equals the proposed token. Only the speed
    depends on the drafter.

    Requirements:
        proposals hold valid ids (0 ≤ id < V), and no more than requested;
        equal texts get equal proposals, independent of other texts, so that timings and statistics can be repeated.
    """

    kind: ClassVar[str] = "drafter"
    commands: ClassVar[tuple[str, ...]] = ("gptkit generate RUN --speculate {name}",)

    @abstractmethod
    def build(self, context: DrafterContext) -> Drafter:
        """Return the drafter of one text. It is called for every text.

        Raises:
            GptkitError: the context lacks something that it requires (a run with the same tokenizer, prediction modules).
        """
