"""Host of decodings that search: rows of a batch that are reordered, instead of one row per text.

Shapes: R rows of a search, T tokens, E width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from gptkit.core.errors import GptkitError
from gptkit.inference.batch import Batch
from gptkit.inference.modes import evaluating
from gptkit.inference.protocol import LanguageModel
from gptkit.inference.request import Request
from gptkit.inference.second import SecondReading
from gptkit.inference.text import RowText
from gptkit.kinds.decoding import Continuation, DecodingContext, DecodingSpec, Search
from gptkit.kinds.sampler import SamplerContext, SamplerSequence, SamplerSpec, expanded
from gptkit.kinds.tokenizer import Tokenizer

__all__ = ["PromptSearch"]


class PromptSearch:
    """Search for continuations of one prompt.

    Args:
        model: the model.
        tokenizer: the tokenizer that the model was trained with.
        request: the prompt, the samplers and the limits.
        decoding: the decoding.

    Raises:
        GptkitError: the decoding needs hidden states, and the model does not provide them; the prompt is longer than the
            context, with overflow "stop".

    Attributes:
        request: the request.
        done: whether the search has ended.
    """

    def __init__(self, model: LanguageModel, tokenizer: Tokenizer, request: Request, decoding: DecodingSpec) -> None:
        self._model, self._tokenizer, self.request = model, tokenizer, request
        limit, n_prompt = model.context_length, len(request.prompt_ids)
        if request.overflow == "stop" and n_prompt > limit:
            raise GptkitError(
                f"the prompt has {n_prompt} tokens, the model's context {limit}",
                hint='Shorten it, or choose overflow="slide", which uses its last part.',
            )
        # With overflow "stop", a text may exceed the context by the token that is not processed any more.
        room = limit - n_prompt + 1 if request.overflow == "stop" else request.max_new_tokens
        self.limit = min(request.max_new_tokens, room)
        self._vocab_size = min(model.vocab_size, tokenizer.vocab_size)
        stream = f"{request.seed}/{request.stream}"
        self._search: Search = decoding.build(
            DecodingContext(self._vocab_size, max(1, self.limit), request.stop_ids, stream)
        )
        self._hidden = _HiddenStates(model, decoding.name) if self._search.needs_hidden else None
        self._sampler = SamplerSequence(_until_deterministic(request.sampler), self._context(stream))
        self._batch = Batch(model, [list(request.prompt_ids)], self.limit)
        self._tokens: list[int] | None = None
        self.done = self.limit < 1

    def advance(self) -> None:
        """Continue the search by one token.

        Raises:
            GptkitError: the logits contain NaN, or every token is excluded.
        """
        with torch.inference_mode(), evaluating(self._model):
            logits_RV, hidden_RTE = self._logits()
            logits_RV = self._sampler(logits_RV[:, : self._vocab_size], self._batch.histories)
            if logits_RV.isnan().any() or not (logits_RV.amax(dim=-1) > -torch.inf).all():
                raise GptkitError(
                    "the next token cannot be chosen: the logits contain NaN or no finite value",
                    hint="The weights may be damaged, training may have diverged, or a sampler excludes every token.",
                )
            step = self._search.step(logits_RV, self._ended(), hidden_RTE)
            rows, self._tokens = list(step.rows), list(step.tokens)
            self.done = not rows
            if self.done:
                return
            self._sampler.reorder(rows)
            log_p_RV = logits_RV.log_softmax(dim=-1)[rows]
            chosen_R1 = torch.tensor(self._tokens, device=log_p_RV.device)[:, None]
            self._sampler.chosen(self._tokens, log_p_RV.gather(-1, chosen_R1)[:, 0].tolist())
            histories = [[*self._batch.histories[row], token] for row, token in zip(rows, self._tokens, strict=True)]
            if rows != list(range(len(self._batch.histories))):
                self._batch.reorder(rows)
            self._batch.histories = histories

    def results(self) -> list[Continuation]:
        """Return the continuations, best first; one without tokens if none may be generated."""
        return self._search.results() if self.limit >= 1 else [Continuation([], 0.0, ended=False)]

    def _context(self, stream: str) -> SamplerContext:
        reader = partial(SecondReading, self._model, self._vocab_size, room=self.limit)
        return SamplerContext(self._vocab_size, 1, self._tokenizer, (stream,), limits=(self.limit,), reader=reader)

    def _logits(self) -> tuple[Tensor, Tensor | None]:
        tokens, batch = self._tokens, self._batch
        if self._hidden is None:
            return (batch.read() if tokens is None else self._step(tokens)), None
        with self._hidden.recording() as recorded:
            logits_RV = batch.read() if tokens is None else self._step(tokens)
        if tokens is None:
            return logits_RV, self._hidden.of_prompt(self.request.prompt_ids)
        return logits_RV, recorded[-1][:, -1:]

    def _step(self, tokens: Sequence[int]) -> Tensor:
        return self._batch.step(torch.tensor(tokens, device=self._model.device))

    def _ended(self) -> Collection[int]:
        """Return the rows whose text contains a stop string."""
        if not self.request.stop:
            return ()
        n_prompt = len(self.request.prompt_ids)
        return [row for row, ids in enumerate(self._batch.histories) if self._stopped(ids[n_prompt:])]

    def _stopped(self, ids: Sequence[int]) -> bool:
        text = RowText(self._tokenizer, self.request.prompt_ids, self.request.stop)
        for token in ids:
            text.push(token)
        return text.stopped


class _HiddenStates:
    """The vectors that the head of a `gptkit.model.gpt.GPT` receives."""

    def __init__(self, model: Any, decoding: str) -> None:
        if not isinstance(getattr(model, "head", None), nn.Module) or not callable(getattr(model, "hidden", None)):
            raise GptkitError(
                f"decoding {decoding!r} needs the model's hidden states, which {type(model).__name__} does not provide",
                hint="Use a gptkit model, or another decoding.",
            )
        self._model = model

    @contextmanager
    def recording(self) -> Iterator[list[Tensor]]:
        """Record the vectors of each call of the head, (R, T, E), within the context."""
        recorded: list[Tensor] = []

        def record(module: nn.Module, arguments: tuple[Any, ...]) -> None:
            recorded.append(arguments[0])

        handle = self._model.head.register_forward_pre_hook(record)
        try:
            yield recorded
        finally:
            handle.remove()

    def of_prompt(self, ids: Sequence[int]) -> Tensor:
        """Return the vectors of a prompt, truncated on the left to the context, (1, T, E)."""
        ids_1T = torch.tensor([list(ids[-self._model.context_length :])], device=self._model.device)
        hidden_1TE: Tensor = self._model.hidden(ids_1T)[0]
        return hidden_1TE


def _until_deterministic(specs: Sequence[SamplerSpec]) -> list[SamplerSpec]:
    """Return the samplers up to and including the first deterministic one, with presets expanded."""
    result: list[SamplerSpec] = []
    for spec in expanded(specs):
        result.append(spec)
        if spec.deterministic:
            break
    return result
