"""`generate` and `stream`: continuation of prompts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Protocol

from gptkit.core.errors import GptkitError
from gptkit.inference.decodings import DecodingLike, decoding_spec
from gptkit.inference.drafting import DrafterLike, drafter_spec
from gptkit.inference.protocol import LanguageModel
from gptkit.inference.request import Overflow
from gptkit.inference.requests import new_requests
from gptkit.inference.result import Generated, Timings
from gptkit.inference.samplers import SamplerLike
from gptkit.inference.scheduler import Scheduler
from gptkit.inference.searching import SearchGeneration
from gptkit.inference.speculative import SpeculativeScheduler
from gptkit.kinds.tokenizer import Tokenizer

__all__ = ["Event", "Generation", "TextGeneration", "TextStream", "finished", "generate", "stream"]

Event = tuple[int, str]
"""An index of a prompt and a piece of its text that later tokens cannot change."""


class TextGeneration(Protocol):
    """Texts that are generated step by step: a `Generation`, or that of another engine."""

    @property
    def done(self) -> bool:
        """Whether every text has ended."""

    def advance(self) -> list[Event]:
        """Continue every unfinished text; return the new pieces of text."""

    def interrupt(self) -> list[Event]:
        """End every unfinished text; return the text that was held back."""

    def results(self) -> list[Generated]:
        """Return the texts in the order of the prompts. Unfinished ones have the finish reason "interrupted"."""


class Generation:
    """Batch of prompts that are continued together, one token each per `advance` (several with a drafter).

    Use `generate` or `stream` unless code must run between two tokens, and `gptkit.inference.Scheduler` if requests arrive
    while others run. The arguments are those of `generate`.
    """

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: Tokenizer,
        prompts: str | Sequence[str | Sequence[int]],
        *,
        sampler: SamplerLike = (),
        decoding: DecodingLike = "sample",
        max_new_tokens: int = 200,
        stop: str | Sequence[str] = (),
        stop_ids: Collection[int] | None = None,
        seed: int | None = None,
        overflow: Overflow = "slide",
        log_probabilities: bool = False,
        top_log_probabilities: int = 0,
        trace: bool | int = False,
        drafter: DrafterLike | None = None,
        compile: bool = False,
    ) -> None:
        self._context_length = model.context_length
        requests = new_requests(
            tokenizer,
            model.vocab_size,
            prompts,
            sampler=sampler,
            max_new_tokens=max_new_tokens,
            stop=stop,
            stop_ids=stop_ids,
            seed=seed,
            overflow=overflow,
            log_probabilities=log_probabilities,
            top_log_probabilities=top_log_probabilities,
            trace=trace,
        )
        self._search: SearchGeneration | None = None
        if decoding != "sample" and not (spec := decoding_spec(decoding)).samples:
            if drafter is not None:
                hint = "Use one of the two."
                raise GptkitError(f"decoding {spec.name!r} does not sample, so a drafter cannot be used with it", hint=hint)
            self._search = SearchGeneration(model, tokenizer, requests, spec)
            requests = []
        max_batch = max(1, len(requests))
        self.scheduler = (
            Scheduler(model, tokenizer, max_batch=max_batch, compile=compile)
            if drafter is None
            else SpeculativeScheduler(model, tokenizer, drafter_spec(drafter), max_batch=max_batch, compile=compile)
        )
        self._states = []
        for index, request in enumerate(requests):
            try:
                self._states.append(self.scheduler.submit(request))
            except GptkitError as error:
                raise GptkitError(f"prompt {index}: {error.message}", hint=error.hint) from None

    @property
    def done(self) -> bool:
        """Whether every text has ended."""
        if self._search is not None:
            return self._search.done
        return all(state.finish is not None for state in self._states)

    def advance(self) -> list[Event]:
        """Generate one token, or several with a drafter, of every unfinished text; return the new pieces of text.

        Decodings that search continue one prompt after another, and return each text at its end.

        Raises:
            GptkitError: the next token of a text cannot be sampled.
        """
        if self._search is not None:
            return self._search.advance()
        if self.done:
            return []
        events = [(state.request.stream, piece) for state, piece in self.scheduler.step()]
        for state in self._states:
            if state.error is not None:
                raise state.error
        return events

    def interrupt(self) -> list[Event]:
        """End every unfinished text; return the text that was held back."""
        if self._search is not None:
            return self._search.interrupt()
        pieces = [(index, self.scheduler.cancel(state)) for index, state in enumerate(self._states)]
        return [(index, piece) for index, piece in pieces if piece]

    def results(self) -> list[Generated]:
        """Return the texts in the order of the prompts. Unfinished ones have the finish reason "interrupted"."""
        if self._search is not None:
            return self._search.results()
        started = [state for state in self._states if self.scheduler.prefill_seconds and state.request.max_new_tokens]
        timings = Timings(
            prompt_tokens=sum(min(len(state.request.prompt_ids), self._context_length) for state in started),
            prefill_seconds=self.scheduler.prefill_seconds,
            decoded_tokens=sum(max(0, state.n_generated - 1) for state in self._states),
            decode_seconds=self.scheduler.decode_seconds,
            drafted_tokens=self.scheduler.n_drafted,
            accepted_tokens=self.scheduler.n_accepted,
        )
        return [state.result(timings) for state in self._states]


class TextStream(Iterator[str]):
    """Iterator over the pieces of one text; `result` holds the whole text.

    Ctrl-C during a computation of the model ends the iteration; `result.finish` is then "interrupted".
    """

    def __init__(self, generation: TextGeneration) -> None:
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
        """End the text."""
        self._waiting += [piece for _, piece in self._generation.interrupt()]

    @property
    def result(self) -> Generated:
        """The text so far and its finish reason."""
        return self._generation.results()[0]


def generate(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompts: str | Sequence[str | Sequence[int]],
    *,
    sampler: SamplerLike = (),
    decoding: DecodingLike = "sample",
    max_new_tokens: int = 200,
    stop: str | Sequence[str] = (),
    stop_ids: Collection[int] | None = None,
    seed: int | None = None,
    overflow: Overflow = "slide",
    log_probabilities: bool = False,
    top_log_probabilities: int = 0,
    trace: bool | int = False,
    drafter: DrafterLike | None = None,
    compile: bool = False,
    on_text: Callable[[int, str], None] | None = None,
) -> list[Generated]:
    """Continue prompts in one batch.

    Args:
        model: a `gptkit.model.GPT`, or another `LanguageModel`.
        tokenizer: the tokenizer that the model was trained with.
        prompts: texts, encoded without start and end tokens (write the start token if the model expects it), or token ids.
            An empty one is replaced by the tokenizer's start token, or else by its end token.
        sampler: a sampler or a chain of samplers, each a spec, a name, or fields such as
            ``{"name": "top-p", "p": 0.9}``; an empty chain samples from the model's distribution.
        decoding: how continuations are searched for in the distribution that the samplers leave: a spec, a name such as
            ``"beam"``, or fields. All but ``"sample"`` return each text at its end, with `Generated.alternatives`.
        max_new_tokens: maximum number of tokens to generate for each prompt.
        stop: strings that end a text, independent of token boundaries; they are not part of the text.
        stop_ids: tokens that end a text; the tokenizer's end token by default, none with ``()``.
        seed: random seed: equal seeds and indices of the prompt give equal texts, independent of the other prompts (up to
            rounding, which the batch size can change).
        overflow: behavior at the model's context length: discard the first half of the text and continue ("slide"), or end
            the text ("stop").
        log_probabilities: return the log-probability of each token.
        top_log_probabilities: return the log-probabilities of so many most likely tokens in the place of each token, too.
        trace: record why each token was drawn (`Generated.trace`): what each sampler left of the most likely tokens; a
            number of them, or True for 8.
        drafter: speculative decoding: a spec, a name such as ``"ngram"``, or fields. It proposes tokens, which the model
            verifies together; texts stay those of the seed (up to rounding). Most effective for a single prompt.
        on_text: called with the prompt's index and every new piece of text.

        compile: decode with a compiled step: one that is on disk, else it is compiled in another process while the tokens
            are computed eagerly, and kept in the user's cache directory (about a minute, once per architecture). Only the
            rounding differs.

    Returns:
        One result per prompt. After Ctrl-C, the texts so far with the finish reason "interrupted".

    Raises:
        GptkitError: a prompt is empty and the tokenizer has no start or end token; a prompt has ids outside the
            model's vocabulary; a prompt is longer than the context, with overflow "stop"; the logits are not finite;
            the model cannot undo rejected tokens of the drafter, or the drafter fails.
    """
    generation = Generation(
        model,
        tokenizer,
        prompts,
        sampler=sampler,
        decoding=decoding,
        max_new_tokens=max_new_tokens,
        stop=stop,
        stop_ids=stop_ids,
        seed=seed,
        overflow=overflow,
        log_probabilities=log_probabilities,
        top_log_probabilities=top_log_probabilities,
        trace=trace,
        drafter=drafter,
        compile=compile,
    )
    return finished(generation, on_text)


def finished(generation: TextGeneration, on_text: Callable[[int, str], None] | None = None) -> list[Generated]:
    """Continue all texts to their end, or until Ctrl-C; return them.

    Args:
        generation: the texts.
        on_text: called with the prompt's index and every new piece of text.
    """
    try:
        while not generation.done:
            _report(on_text, generation.advance())
    except KeyboardInterrupt:
        _report(on_text, generation.interrupt())
    return generation.results()


def stream(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompt: str | Sequence[int],
    *,
    sampler: SamplerLike = (),
    decoding: DecodingLike = "sample",
    max_new_tokens: int = 200,
    stop: str | Sequence[str] = (),
    stop_ids: Collection[int] | None = None,
    seed: int | None = None,
    overflow: Overflow = "slide",
    log_probabilities: bool = False,
    top_log_probabilities: int = 0,
    trace: bool | int = False,
    drafter: DrafterLike | None = None,
    compile: bool = False,
) -> TextStream:
    """Continue one prompt, and yield its text in pieces. The arguments are those of `generate`."""
    return TextStream(
        Generation(
            model,
            tokenizer,
            [prompt],
            sampler=sampler,
            decoding=decoding,
            max_new_tokens=max_new_tokens,
            stop=stop,
            stop_ids=stop_ids,
            seed=seed,
            overflow=overflow,
            log_probabilities=log_probabilities,
            top_log_probabilities=top_log_probabilities,
            trace=trace,
            drafter=drafter,
            compile=compile,
        )
    )


def _report(on_text: Callable[[int, str], None] | None, events: Sequence[Event]) -> None:
    if on_text is not None:
        for index, piece in events:
            on_text(index, piece)
