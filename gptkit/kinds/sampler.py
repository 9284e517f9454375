"""Kind `sampler`.

Shapes: B batch, V vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Protocol

from gptkit.core.component import Component

if TYPE_CHECKING:
    from torch import Tensor

    from gptkit.kinds.tokenizer import Tokenizer

__all__ = ["LogitsReader", "Sampler", "SamplerContext", "SamplerSequence", "SamplerSpec", "expanded"]


class LogitsReader(Protocol):
    """The model, as a sampler uses it for other texts than the generated ones. It has a key/value cache of its own."""

    def __call__(self, texts: Sequence[Sequence[int]]) -> Tensor:
        """Return the logits after a text for each row, (B, V) fp32.

        Texts that are those of the previous call with one more token each take one decode step, others a prefill.
        """

    def reorder(self, rows: Sequence[int]) -> None:
        """Replace row i by the previous row ``rows[i]``."""


@dataclass(frozen=True)
class SamplerContext:
    """Context that a sampler receives when it is built.

    Attributes:
        vocab_size: V.
        batch: B, the number of rows that are generated at once.
        tokenizer: the tokenizer, for samplers that depend on text, or None.
        streams: seeds of the sampler's own random numbers, one per row: ``random.Random(stream)``. They are derived from the
            seed of the generation, so that it can be repeated, and move with their rows; empty where nothing is generated.
        limits: maximum number of tokens to generate, one per row; empty if it is not known.
        reader: function that returns a new `LogitsReader` for the rows, for samplers that need other logits of the model;
            None without a model.
    """

    vocab_size: int
    batch: int = 1
    tokenizer: Tokenizer | None = None
    streams: tuple[str, ...] = ()
    limits: tuple[int, ...] = ()
    reader: Callable[[], LogitsReader] | None = None


class Sampler(ABC):
    """One sampler of a chain, for one generation. It may keep state for each row."""

    @abstractmethod
    def __call__(self, logits_BV: Tensor, history: Sequence[Sequence[int]]) -> Tensor:
        """Return changed logits, (B, V) fp32; -inf excludes a token. Rows are independent of each other.

        Args:
            logits_BV: the output of the previous sampler; must not be changed in place.
            history: the token ids of each row so far, including the prompt.
        """

    def reduced(self, logits_BV: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return what `__call__` returns without most of the excluded tokens, which makes the rest of a chain faster.

        Returns:
            Logits (B, K) and the ids of their tokens (B, K), ascending in each row; all tokens that `__call__` leaves are
            among them. None where that is not possible.
        """
        return None

    def chosen(self, tokens: Sequence[int], log_probabilities: Sequence[float]) -> None:
        """Called with the token sampled for each row, and its log-probability under the final distribution."""

    def reorder(self, rows: Sequence[int]) -> None:
        """Called when row i is replaced by the previous row ``rows[i]``: finished rows are removed from the batch.

        Only samplers with state for each row need to implement it. A row may be continued several times; its copies share
        no state that changes.
        """


class SamplerSequence(Sampler):
    """Samplers that are applied in order, as one.

    Args:
        specs: their specs.
        context: the context of each; random streams are made different.
    """

    def __init__(self, specs: Sequence[SamplerSpec], context: SamplerContext) -> None:
        self._samplers = [
            spec.build(replace(context, streams=tuple(f"{stream}/{index}" for stream in context.streams)))
            for index, spec in enumerate(specs)
        ]

    def __call__(self, logits_BV: Tensor, history: Sequence[Sequence[int]]) -> Tensor:
        for sampler in self._samplers:
            logits_BV = sampler(logits_BV, history)
        return logits_BV

    def chosen(self, tokens: Sequence[int], log_probabilities: Sequence[float]) -> None:
        for sampler in self._samplers:
            sampler.chosen(tokens, log_probabilities)

    def reorder(self, rows: Sequence[int]) -> None:
        for sampler in self._samplers:
            sampler.reorder(rows)


class SamplerSpec(Component):
    """Sampler: changes the distribution of the next token. The samplers of a chain are applied in the order of the spec.

    After the chain, a token is sampled from softmax(logits). A sampler never restores an excluded token (-inf), and keeps
    at least one of the others.

    Declared capabilities:
        deterministic: it keeps only the most likely token. The generator then selects that token without calling this
            sampler or those after it, and without sampling.
        anonymous: it depends on the logits of the tokens that are not excluded, and on nothing else about them: not on
            their ids, the text, or the number of excluded ones. It may then be called without excluded tokens.
    """

    kind: ClassVar[str] = "sampler"
    deterministic: ClassVar[bool] = False
    anonymous: ClassVar[bool] = False

    def expanded(self) -> tuple[SamplerSpec, ...]:
        """Return the samplers that this one stands for: itself, unless it is a preset of a chain.

        A preset returns others, and builds a `SamplerSequence` of them.
        """
        return (self,)

    @abstractmethod
    def build(self, context: SamplerContext) -> Sampler:
        """Return a sampler with initial state.

        Raises:
            GptkitError: the context lacks something that it requires (a tokenizer, an end token, an id).
        """


def expanded(specs: Sequence[SamplerSpec]) -> tuple[SamplerSpec, ...]:
    """Return a chain with the samplers of its presets in place of the presets."""
    return tuple(part for spec in specs for part in spec.expanded())
