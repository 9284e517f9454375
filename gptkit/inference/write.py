"""`generate` and `stream`: prompts in, text out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence

from gptkit.inference.engine import Event, Generation, Overflow
from gptkit.inference.protocol import LanguageModel
from gptkit.inference.result import Generated
from gptkit.kinds.sampler import SamplerSpec
from gptkit.kinds.tokenizer import Tokenizer

__all__ = ["TextStream", "generate", "stream"]


class TextStream(Iterator[str]):
    """The pieces of one text as they become certain; afterwards `result` has the whole.

    Ctrl-C while the model works ends the iteration, with `result.finish` "interrupted".
    """

    def __init__(self, generation: Generation) -> None:
        self._generation = generation
        self._waiting: list[str] = []

    def __next__(self) -> str:
        while not self._waiting:
            if self._generation.done:
                raise StopIteration
            try:
                events = self._generation.advance()
            except KeyboardInterrupt:
                events = self._generation.interrupt()
            self._waiting = [piece for _, piece in events]
        return self._waiting.pop(0)

    def close(self) -> None:
        """End the text here."""
        self._waiting += [piece for _, piece in self._generation.interrupt()]

    @property
    def result(self) -> Generated:
        """The text so far, and how it ended."""
        return self._generation.results()[0]


def generate(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompts: str | Sequence[str | Sequence[int]],
    *,
    sampler: Sequence[SamplerSpec] = (),
    max_new_tokens: int = 200,
    stop: str | Sequence[str] = (),
    stop_ids: Collection[int] | None = None,
    seed: int | None = None,
    overflow: Overflow = "slide",
    log_probabilities: bool = False,
    on_text: Callable[[int, str], None] | None = None,
) -> list[Generated]:
    """Continue prompts, all in one batch.

    Args:
        model: a `gptkit.model.GPT`, or anything that is a `LanguageModel`.
        tokenizer: the one that the model was trained with.
        prompts: texts, encoded as they stand (put the start token before them where the model wants it), or token ids.
            An empty one starts from the tokenizer's start token, or else from its end token, as after another text.
        sampler: the chain of samplers; an empty one draws from the model's own distribution.
        max_new_tokens: how many tokens to write for each prompt at most.
        stop: strings that end a text, wherever token borders fall; they are not part of it.
        stop_ids: tokens that end a text; the tokenizer's end token by default, none at all with ``()``.
        seed: makes the draws repeatable: the same seed, the same index of the prompt, the same text, whatever the
            other prompts are (within the arithmetic's rounding, which the size of a batch can change).
        overflow: what to do at the model's context length: drop the first half of the text and go on ("slide"), or
            end the text ("stop").
        log_probabilities: keep each token's log-probability.
        on_text: called with the prompt's index and every piece of text as it becomes certain.

    Returns:
        One result a prompt. After Ctrl-C what there is, with the finish "interrupted".

    Raises:
        GptkitError: a prompt is empty and the tokenizer has no token to start from; a prompt holds ids that the model
            does not know; a prompt is longer than the context, with overflow "stop"; the logits are not numbers.
    """
    generation = Generation(
        model,
        tokenizer,
        prompts,
        sampler=sampler,
        max_new_tokens=max_new_tokens,
        stop=stop,
        stop_ids=stop_ids,
        seed=seed,
        overflow=overflow,
        log_probabilities=log_probabilities,
    )
    events: list[Event] = []
    try:
        while not generation.done:
            events = generation.advance()
            _tell(on_text, events)
    except KeyboardInterrupt:
        _tell(on_text, generation.interrupt())
    return generation.results()


def stream(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompt: str | Sequence[int],
    *,
    sampler: Sequence[SamplerSpec] = (),
    max_new_tokens: int = 200,
    stop: str | Sequence[str] = (),
    stop_ids: Collection[int] | None = None,
    seed: int | None = None,
    overflow: Overflow = "slide",
    log_probabilities: bool = False,
) -> TextStream:
    """Continue one prompt, and give the text piece by piece. The arguments are those of `generate`."""
    return TextStream(
        Generation(
            model,
            tokenizer,
            [prompt],
            sampler=sampler,
            max_new_tokens=max_new_tokens,
            stop=stop,
            stop_ids=stop_ids,
            seed=seed,
            overflow=overflow,
            log_probabilities=log_probabilities,
        )
    )


def _tell(on_text: Callable[[int, str], None] | None, events: Sequence[Event]) -> None:
    if on_text is not None:
        for index, piece in events:
            on_text(index, piece)
