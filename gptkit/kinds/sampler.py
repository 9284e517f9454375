"""Kind `sampler`.

Shapes: B batch, V vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from gptkit.core.component import Component

if TYPE_CHECKING:
    from torch import Tensor

    from gptkit.kinds.tokenizer import Tokenizer

__all__ = ["Sampler", "SamplerContext", "SamplerSpec"]


@dataclass(frozen=True)
class SamplerContext:
    """Context that a sampler receives when it is built.

    Attributes:
        vocab_size: V.
        batch: B, the number of rows that are written at once.
        tokenizer: for samplers that look at text; None where there is none.
    """

    vocab_size: int
    batch: int = 1
    tokenizer: Tokenizer | None = None


class Sampler(ABC):
    """One link of the chain, for one generation. May keep state for each row."""

    @abstractmethod
    def __call__(self, logits_BV: Tensor, history: Sequence[Sequence[int]]) -> Tensor:
        """Changed logits, (B, V) fp32; -inf rules a token out. Rows are independent of each other.

        Args:
            logits_BV: as the previous link left them; not to be changed in place.
            history: for each row the token ids so far, prompt included.
        """

    def chosen(self, tokens: Sequence[int], log_probabilities: Sequence[float]) -> None:
        """Called with the token drawn for each row, and its log-probability under the final distribution."""

    def reorder(self, rows: Sequence[int]) -> None:
        """Called when row i is replaced by the previous row ``rows[i]``: finished rows leave the batch.

        Only a sampler with state for each row has something to do here.
        """


class SamplerSpec(Component):
    """Shapes the distribution of the next token. A chain of samplers is applied in the order written.

    After the chain a token is drawn from softmax(logits). A sampler never restores a token that is excluded
    (-inf) and leaves at least one of those that are not.

    Declared capabilities:
        deterministic: it leaves one token, the most likely one. The generator then takes that token without calling
            this link or those after it, and without drawing.
    """

    kind: ClassVar[str] = "sampler"
    deterministic: ClassVar[bool] = False

    @abstractmethod
    def build(self, context: SamplerContext) -> Sampler:
        """The link, with fresh state.

        Raises:
            GptkitError: it needs what the context lacks (a tokenizer, an end token, an id of the vocabulary).
        """
