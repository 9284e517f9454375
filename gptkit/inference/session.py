"""Generation in turns: a text that grows, with one key/value cache.

Shapes: B batch (1), T tokens, V vocabulary.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

from gptkit.core.errors import GptkitError, StateError
from gptkit.inference.chain import Chain
from gptkit.inference.compiled.decoding import decoding_model
from gptkit.inference.drafting import DrafterLike, Drafting, drafter_spec
from gptkit.inference.lookahead import LookAhead
from gptkit.inference.modes import evaluating
from gptkit.inference.predicting import CachedText
from gptkit.inference.prompts import as_ids, shared_length
from gptkit.inference.protocol import LanguageModel, TruncatableCache, VerifiableCache
from gptkit.inference.request import Overflow, Request, RequestState
from gptkit.inference.samplers import SamplerLike, sampler_chain
from gptkit.inference.second import SecondReading
from gptkit.kinds.sampler import SamplerContext
from gptkit.kinds.tokenizer import Tokenizer

__all__ = ["Session", "Turn"]


class Session:
    """Session of prompts that are continued in turn, each usually the previous one with its continuation and more text.

    The key/value cache is kept between calls: tokens that a prompt shares with the start of the cached text are not
    processed again. The continuations are those of `gptkit.generate`.

    Args:
        model: a `gptkit.model.GPT`, or a `LanguageModel` with a `TruncatableCache`.
        tokenizer: the tokenizer that the model was trained with.
        drafter: drafter of speculative decoding, as for `gptkit.generate`.
        compile: as for `gptkit.generate`.

    Raises:
        GptkitError: the model cannot undo rejected tokens of the drafter.

    Attributes:
        n_read: number of tokens that the model has processed in all calls.
    """

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: Tokenizer,
        drafter: DrafterLike | None = None,
        *,
        compile: bool = False,
    ) -> None:
        self._model = decoding_model(model, compile=compile)
        self._tokenizer = tokenizer
        self._cache: TruncatableCache | None = None
        self._cached: list[int] = []
        self._n_pending = 1
        self._drafting = None if drafter is None else Drafting(drafter_spec(drafter), model, tokenizer, compile=compile)
        self._keep_hidden = self._drafting is not None and self._drafting.needs_hidden
        self.limit = model.context_length
        self.n_read = 0

    def stream(
        self,
        prompt_ids: Sequence[int],
        *,
        sampler: SamplerLike = (),
        max_new_tokens: int = 200,
        stop: Sequence[str] = (),
        stop_ids: Collection[int] = (),
        seed: int = 0,
        turn: int = 0,
        overflow: Overflow = "slide",
    ) -> Turn:
        """Continue a prompt, and yield the text piece by piece.

        Args:
            prompt_ids: the token ids of the whole text so far.
            turn: number of the random stream under the seed, so that turns draw different numbers.
            sampler, max_new_tokens, stop, stop_ids, seed, overflow: as for `gptkit.generate`.

        Raises:
            GptkitError: the prompt is longer than the context, with overflow "stop", or has ids outside the vocabulary.
        """
        (ids,) = as_ids([list(prompt_ids)], self._tokenizer, self._model.vocab_size)
        if overflow == "stop" and len(ids) > self.limit:
            raise GptkitError(
                f"the text has {len(ids):,} tokens, and the model's context {self.limit:,}",
                hint="Shorten it, or choose --overflow slide (overflow='slide'), which discards its beginning.",
            )
        request = Request(
            ids,
            sampler=sampler_chain(sampler),
            max_new_tokens=max_new_tokens,
            stop=tuple(stop),
            stop_ids=frozenset(stop_ids),
            seed=seed,
            stream=turn,
            overflow=overflow,
        )
        ahead = None if self._drafting is None else LookAhead(self, self._drafting.start())
        return Turn(self, RequestState(request, self._tokenizer), self._chain(request), ahead)

    def _chain(self, request: Request) -> Chain:
        vocab_size = min(self._model.vocab_size, self._tokenizer.vocab_size)
        limits = (request.max_new_tokens,)
        reader = partial(SecondReading, self._model, vocab_size, room=request.max_new_tokens)
        context = SamplerContext(vocab_size, 1, self._tokenizer, limits=limits, reader=reader)
        return Chain(request.sampler, context, [f"{request.seed}/{request.stream}"])

    def read(self, ids: list[int], room: int) -> Tensor:
        """Process a text, truncated on the left to the context; return the logits after it, (1, V) fp32.

        Args:
            ids: the token ids.
            room: number of tokens that will be added.
        """
        ids = ids[-self.limit :]
        needed = min(self.limit, len(ids) + room)
        shared = shared_length(self._cached, ids[:-1])
        cache, self._cache = self._cache, None
        if cache is None or cache.capacity < needed or not _truncated(cache, shared):
            # Twice what is needed, so that a growing text is read again only a few times.
            cache, shared = self._new_cache(min(self.limit, 2 * needed)), 0
        logits_BV = self._forward(cache, ids[shared:])
        self._cache, self._cached, self._n_pending = cache, ids, 1
        return logits_BV

    def step(self, ids: list[int]) -> Tensor:
        """Read the last of `ids`, which follow what was read; in a full context the first half is discarded."""
        cache = self._cache
        if cache is None or self.full:
            keep = max(1, self.limit // 2)
            return self.read(ids[-keep:], keep)
        # A forward pass that is interrupted leaves a cache that cannot be used.
        self._cache = None
        new, self._n_pending = ids[-self._n_pending :], 1
        logits_BV = self._forward(cache, new)
        self._cache, self._cached = cache, [*self._cached, *new]
        return logits_BV

    def _new_cache(self, capacity: int) -> TruncatableCache:
        options: dict[str, Any] = {"keep_hidden": True} if self._keep_hidden else {}
        cache: TruncatableCache = self._model.new_cache(1, capacity=capacity, **options)
        return cache

    def cached_text(self, n_tokens: int) -> CachedText | None:
        """Return the cached part of a text with its vectors; None unless a drafter needs them.

        Args:
            n_tokens: number of tokens of the text, the pending ones included.
        """
        if self._cache is None or not self._keep_hidden:
            return None
        cache: Any = self._cache
        return CachedText(n_tokens - self._n_pending - len(self._cached), cache.hidden(0))

    def room_ahead(self, n_tokens: int) -> int:
        """Return how many tokens, at most `n_tokens`, `verify` can process after the next one."""
        if self._cache is None or self.full or self._n_pending > 1:
            return 0
        cache = self._verifiable(self._cache)
        return cache.steady(min(n_tokens + 1, cache.capacity - cache.length)) - 1

    def verify(self, token: int, proposal: Sequence[int]) -> Tensor:
        """Read a token and a proposal, which `discard` can undo; return the logits after each, (T, V) fp32."""
        assert self._cache is not None
        cache, self._cache = self._verifiable(self._cache), None
        cache.mark()
        new = [token, *proposal]
        logits_BTV = self._logits(cache, new, last_only=False)
        self._cache, self._cached = cache, [*self._cached, *new]
        return logits_BTV[0, -len(new) :]

    def discard(self, n_tokens: int, n_verified: int) -> None:
        """Discard the last tokens, after `verify`.

        Args:
            n_tokens: how many to discard.
            n_verified: number of tokens of the latest `verify`. A recurrent state discards all of these; the next step then
                reads the others again.
        """
        assert self._cache is not None
        cache = self._verifiable(self._cache)
        possible = cache.can_truncate(cache.length - n_tokens)
        n_discarded = n_tokens if possible else n_verified
        cache.truncate(cache.length - n_discarded)
        self._cached = self._cached[: len(self._cached) - n_discarded]
        self._n_pending = 1 + n_discarded - n_tokens

    @property
    def full(self) -> bool:
        """Whether the context has no room for another token."""
        return len(self._cached) + self._n_pending > self.limit

    @property
    def n_cached(self) -> int:
        """Number of tokens of the cached text: how much of the context (`limit`) is used."""
        return len(self._cached)

    @staticmethod
    def _verifiable(cache: TruncatableCache) -> VerifiableCache:
        return cast("VerifiableCache", cache)

    def _forward(self, cache: TruncatableCache, ids: list[int]) -> Tensor:
        return self._logits(cache, ids, last_only=True)[:, -1]

    def _logits(self, cache: TruncatableCache, ids: list[int], *, last_only: bool) -> Tensor:
        self.n_read += len(ids)
        with torch.inference_mode(), evaluating(self._model):
            ids_BT = torch.tensor([ids], device=self._model.device)
            logits_BTV: Tensor = self._model(ids_BT, cache=cache, last_only=last_only).logits
            return logits_BTV[..., : min(self._model.vocab_size, self._tokenizer.vocab_size)].float()


class Turn(Iterator[str]):
    """Iterator over the pieces of one continuation.

    Ctrl-C while the model computes ends the iteration, with `finish` "interrupted".

    Attributes:
        prefill_seconds: time to process the prompt and to sample the first token.
        decode_seconds: time to generate the others.
    """

    def __init__(self, session: Session, state: RequestState, chain: Chain, ahead: LookAhead | None = None) -> None:
        self.prefill_seconds = self.decode_seconds = 0.0
        self._session, self._state, self._chain, self._ahead = session, state, chain, ahead
        self._logits_BV: Tensor | None = None
        self._last = ""

    def __next__(self) -> str:
        while self._state.finish is None:
            try:
                piece = self._advance()
            except KeyboardInterrupt:
                piece = self._state.end("interrupted")
            if piece:
                return piece
        self._discard_ahead()
        if self._last:
            piece, self._last = self._last, ""
            return piece
        raise StopIteration

    def _advance(self) -> str:
        state, session = self._state, self._session
        if state.remaining <= 0:
            return state.end("length")
        begun = time.perf_counter()
        first = self._logits_BV is None
        if first:
            self._logits_BV = session.read(state.history, state.remaining)
        elif self._ahead is not None and (ready_BV := self._ahead.next(state.history)) is not None:
            self._logits_BV = ready_BV
        elif state.request.overflow == "stop" and session.full:
            return state.end("length")
        elif self._ahead is not None:
            self._logits_BV = self._ahead.step(state.history, state.remaining)
        else:
            self._logits_BV = session.step(state.history)
        with torch.inference_mode():
            assert self._logits_BV is not None
            token = int(self._chain.pick(self._logits_BV, [state.history]))
        seconds = time.perf_counter() - begun
        if first:
            self.prefill_seconds = seconds
        else:
            self.decode_seconds += seconds
        return state.append(token)

    def close(self) -> None:
        """End the text."""
        if self._state.finish is None:
            self._last = self._state.end("interrupted")
        self._discard_ahead()

    def _discard_ahead(self) -> None:
        if self._ahead is not None:
            self._ahead.end()

    @property
    def n_drafted(self) -> int:
        """Number of tokens that the drafter proposed and the model verified."""
        return 0 if self._ahead is None else self._ahead.n_drafted

    @property
    def n_accepted(self) -> int:
        """Number of these that became a part of the text."""
        return 0 if self._ahead is None else self._ahead.n_accepted

    @property
    def text(self) -> str:
        """The text so far."""
        return self._state.text.text

    @property
    def ids(self) -> list[int]:
        """The generated token ids."""
        return self._state.history[len(self._state.request.prompt_ids) :]

    @property
    def finish(self) -> str | None:
        """Finish reason, as in `Generated.finish`; None until the text has ended."""
        return self._state.finish


def _truncated(cache: TruncatableCache, length: int) -> bool:
    """Truncate a cache; return whether its layers can (a recurrent state cannot go back)."""
    if cache.length == length:
        return True
    try:
        cache.truncate(length)
    except StateError:
        return False
    return length > 0
