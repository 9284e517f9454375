"""Writes texts: the loop around model, samplers and tokenizer.

Shapes: B batch (texts still in the cache), V vocabulary.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Collection, Sequence
from typing import Literal

import torch
from torch import Tensor

from gptkit.core.errors import GptkitError
from gptkit.inference.chain import Chain
from gptkit.inference.modes import evaluating
from gptkit.inference.prompts import as_ids
from gptkit.inference.protocol import LanguageModel
from gptkit.inference.result import Finish, Generated, Timings
from gptkit.inference.text import RowText
from gptkit.inference.window import Window
from gptkit.kinds.sampler import SamplerContext, SamplerSpec
from gptkit.kinds.tokenizer import Tokenizer

__all__ = ["Event", "Generation", "Overflow"]

Overflow = Literal["slide", "stop"]
Event = tuple[int, str]
"""A piece of text, and the index of the prompt that it belongs to."""


class _Row:
    """One text: `history` is the prompt and what was written."""

    def __init__(self, index: int, prompt_ids: list[int], text: RowText) -> None:
        self.index = index
        self.n_prompt = len(prompt_ids)
        self.history = list(prompt_ids)
        self.log_probabilities: list[float] = []
        self.text = text
        self.finish: Finish | None = None


class Generation:
    """A batch of texts being written, a token of each at every `advance`. Use `generate` or `stream` unless you need
    to be asked between two tokens. The arguments are those of `generate`.
    """

    def __init__(
        self,
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
    ) -> None:
        stop = (stop,) if isinstance(stop, str) else tuple(stop)
        if "" in stop:
            raise GptkitError("a stop string is empty, so no text could be written", hint="Leave it out.")
        if max_new_tokens < 0:
            raise GptkitError(f"max_new_tokens is {max_new_tokens}", hint="Give how many tokens to write, 0 or more.")
        self.seed = secrets.randbits(32) if seed is None else seed
        self._model = model
        self._max_new_tokens = max_new_tokens
        self._overflow = overflow
        self._end_id = tokenizer.end_id
        ends = ((tokenizer.end_id,) if tokenizer.end_id is not None else ()) if stop_ids is None else stop_ids
        self._stop_ids = frozenset(ends)
        self._keep_log_probabilities = log_probabilities
        # A vocabulary is often padded to a round size; what the tokenizer does not know is never written.
        self._vocab_size = min(model.vocab_size, tokenizer.vocab_size)

        ids = as_ids(prompts, tokenizer, model.vocab_size)
        if overflow == "stop":
            self._refuse_long(ids)
        self._rows = [_Row(i, prompt, RowText(tokenizer, prompt, stop)) for i, prompt in enumerate(ids)]
        self._batch = list(self._rows)
        """The rows that the cache holds, those that are finished but not yet dropped among them."""
        self._window = Window(model, [row.history for row in self._rows], max_new_tokens)
        self._chain = Chain(sampler, SamplerContext(self._vocab_size, len(ids), tokenizer), self.seed)
        self._chosen_B: Tensor | None = None
        self._seconds = [0.0, 0.0]
        if max_new_tokens == 0:
            for row in self._rows:
                self._finish(row, "length")

    @property
    def done(self) -> bool:
        """Whether every text has ended."""
        return all(row.finish is not None for row in self._rows)

    def advance(self) -> list[Event]:
        """Write one token of every text that has not ended; what became certain of the texts."""
        if self.done:
            return []
        began = time.perf_counter()
        phase = 0 if self._chosen_B is None else 1
        events: list[Event] = []
        with torch.inference_mode(), evaluating(self._model):
            if phase == 1:
                events += self._make_room()
            if not self.done:
                events += self._write()
        self._seconds[phase] += time.perf_counter() - began
        return events

    def interrupt(self) -> list[Event]:
        """End every text that has not ended; what had been held back of them."""
        events = []
        for row in self._rows:
            if row.finish is None:
                events += self._finish(row, "interrupted")
        return events

    def results(self) -> list[Generated]:
        """The texts, in the order of the prompts. Those not yet ended count as interrupted."""
        written = [len(row.history) - row.n_prompt for row in self._rows]
        read = sum(min(row.n_prompt, self._model.context_length) for row in self._rows) if self._chosen_B is not None else 0
        timings = Timings(read, self._seconds[0], sum(max(0, n - 1) for n in written), self._seconds[1])
        return [
            Generated(
                prompt_ids=row.history[: row.n_prompt],
                ids=row.history[row.n_prompt :],
                text=row.text.text,
                finish=row.finish or "interrupted",
                seed=self.seed,
                log_probabilities=row.log_probabilities if self._keep_log_probabilities else None,
                timings=timings,
            )
            for row in self._rows
        ]

    def _write(self) -> list[Event]:
        window, chosen_B = self._window, self._chosen_B
        logits_BV = (window.read() if chosen_B is None else window.step(chosen_B))[:, : self._vocab_size]
        self._chosen_B = self._chain.pick(logits_BV, window.histories).to(logits_BV.device)
        tokens: list[int] = self._chosen_B.tolist()
        scores = [0.0] * len(tokens)
        if self._keep_log_probabilities:
            scores = logits_BV.log_softmax(dim=-1).gather(-1, self._chosen_B[:, None])[:, 0].tolist()
        events: list[Event] = []
        for row, token, score in zip(self._batch, tokens, scores, strict=True):
            if row.finish is None:
                events += self._append(row, token, score)
        return events

    def _append(self, row: _Row, token: int, score: float) -> list[Event]:
        if token in self._stop_ids:
            return self._finish(row, "end" if token == self._end_id else "stop")
        row.history.append(token)
        row.log_probabilities.append(score)
        piece = row.text.push(token)
        events = [(row.index, piece)] if piece else []
        if row.text.stopped:
            events += self._finish(row, "stop")
        elif len(row.history) - row.n_prompt >= self._max_new_tokens:
            events += self._finish(row, "length")
        return events

    def _finish(self, row: _Row, reason: Finish) -> list[Event]:
        piece = row.text.finish()
        # A stop string can be completed by what the decoder had held back.
        row.finish = "stop" if row.text.stopped else reason
        return [(row.index, piece)] if piece else []

    def _make_room(self) -> list[Event]:
        """Before the chosen tokens are read: end texts that may not slide, drop rows that have ended."""
        events: list[Event] = []
        if self._overflow == "stop" and self._window.full:
            for place, row in enumerate(self._batch):
                if row.finish is None and self._window.overflows(place):
                    events += self._finish(row, "length")
        live = [place for place, row in enumerate(self._batch) if row.finish is None]
        n_ended = len(self._batch) - len(live)
        # Dropping copies the cache of the others once; keeping reads a dead row's cache at every step.
        if live and n_ended and (self._window.full or 4 * n_ended >= len(self._batch)):
            assert self._chosen_B is not None
            self._batch = [self._batch[place] for place in live]
            self._window.reorder(live)
            self._chain.reorder(live)
            self._chosen_B = self._chosen_B[live]
        return events

    def _refuse_long(self, ids: Sequence[Sequence[int]]) -> None:
        limit = self._model.context_length
        for index, prompt in enumerate(ids):
            if len(prompt) > limit:
                raise GptkitError(
                    f"prompt {index} has {len(prompt)} tokens, the model's context {limit}",
                    hint='Shorten it, or choose overflow="slide", which reads the last part of it.',
                )
