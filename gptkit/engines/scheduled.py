"""Engine on the scheduler of `gptkit.inference`.

Shapes: B batch (1), T tokens, V vocabulary, K most likely tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gptkit.engines.engine import Engine, Progress, Score
from gptkit.inference.chain import Chain
from gptkit.inference.modes import evaluating
from gptkit.inference.protocol import LanguageModel
from gptkit.inference.request import Request, RequestState
from gptkit.inference.scheduler import Scheduler
from gptkit.inference.speculative import SpeculativeScheduler
from gptkit.kinds.drafter import DrafterSpec
from gptkit.kinds.sampler import SamplerContext
from gptkit.kinds.tokenizer import Tokenizer

__all__ = ["Scheduled"]

_CHUNK = 256
"""Number of tokens whose logits are held at once while a text is scored."""


class Scheduled(Engine):
    """Runtime part of `NativeSpec`: a `Scheduler`, and what each of its requests was already reported.

    Args:
        model: a `gptkit.model.gpt.GPT`, or another `LanguageModel`.
        tokenizer, max_batch, prefill_chunk, prefill_chunk_busy, prefix_bytes, compile: as for `Scheduler`.
        drafter: the drafter of speculative decoding (`SpeculativeScheduler`); None for none.
    """

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: Tokenizer,
        *,
        max_batch: int = 8,
        prefill_chunk: int | None = None,
        prefill_chunk_busy: int | None = 128,
        prefix_bytes: int = 0,
        drafter: DrafterSpec | None = None,
        compile: bool = False,
    ) -> None:
        super().__init__(tokenizer, context_length=model.context_length, vocab_size=model.vocab_size, max_batch=max_batch)
        self._model = model
        self._drafter = drafter
        self._options: dict[str, Any] = {
            "max_batch": max_batch,
            "prefill_chunk": prefill_chunk,
            "prefill_chunk_busy": prefill_chunk_busy,
            "prefix_bytes": prefix_bytes,
            "compile": compile,
        }
        self._scheduler = self._new_scheduler()
        self._reported: dict[RequestState, int] = {}

    def _new_scheduler(self) -> Scheduler:
        if self._drafter is None:
            return Scheduler(self._model, self.tokenizer, **self._options)
        return SpeculativeScheduler(self._model, self.tokenizer, self._drafter, **self._options)

    def check(self, request: Request) -> None:
        self.require_known(request.prompt_ids)
        # Samplers are built when a request starts, together with those of others; their errors must not be met there.
        Chain(request.sampler, SamplerContext(min(self.vocab_size, self.tokenizer.vocab_size), 1, self.tokenizer), ["check"])

    def submit(self, request: Request) -> RequestState:
        state = self._scheduler.submit(request)
        self._reported[state] = 0
        return state

    def cancel(self, state: RequestState) -> None:
        self._scheduler.cancel(state)
        self._reported.pop(state, None)

    def step(self) -> list[Progress]:
        pieces: dict[RequestState, str] = {}
        for state, piece in self._scheduler.step():
            pieces[state] = pieces.get(state, "") + piece
        if self._scheduler.idle and self._holds_rows:
            self._scheduler.step()  # frees the cache of the rows that ended
        progress = []
        for state, n_reported in list(self._reported.items()):
            n_generated = state.n_generated
            if n_generated == n_reported and state.finish is None and state not in pieces:
                continue
            self._reported[state] = n_generated
            if state.finish is not None:
                del self._reported[state]
            progress.append(_progress(state, n_reported, n_generated, pieces.get(state, "")))
        return progress

    @torch.inference_mode()
    def score(self, ids: Sequence[int], top: int = 0) -> list[Score]:
        scores: list[Score] = []
        ids_1T = torch.tensor([list(ids)], device=self._model.device)
        with evaluating(self._model):
            cache = self._model.new_cache(1, capacity=ids_1T.shape[1])
            for first in range(0, ids_1T.shape[1] - 1, _CHUNK):
                last = min(first + _CHUNK, ids_1T.shape[1] - 1)
                logits_TV: Tensor = self._model(ids_1T[:, first:last], cache=cache).logits[0]
                log_p_TV = logits_TV.float().log_softmax(dim=-1)
                own_T = log_p_TV.gather(-1, ids_1T[0, first + 1 : last + 1, None])[:, 0].tolist()
                best_TK = log_p_TV.topk(min(top, log_p_TV.shape[-1]), dim=-1)
                for own, values, tokens in zip(own_T, best_TK.values.tolist(), best_TK.indices.tolist(), strict=True):
                    scores.append(Score(own, tuple(zip(tokens, values, strict=True))))
        return scores

    def reset(self) -> None:
        self._scheduler = self._new_scheduler()
        self._reported = {}

    @property
    def idle(self) -> bool:
        # A request of no tokens ends when it is submitted, and is not reported yet.
        return self._scheduler.idle and not self._holds_rows and not self._reported

    @property
    def _holds_rows(self) -> bool:
        return bool(self._scheduler.running or self._scheduler.prefilling)

    @property
    def n_running(self) -> int:
        return sum(state.finish is None for state in (*self._scheduler.running, *self._scheduler.prefilling))

    @property
    def n_waiting(self) -> int:
        return len(self._scheduler.waiting)

    @property
    def n_drafted(self) -> int:
        return self._scheduler.n_drafted

    @property
    def n_accepted(self) -> int:
        return self._scheduler.n_accepted


def _progress(state: RequestState, first: int, last: int, text: str) -> Progress:
    n_prompt = len(state.request.prompt_ids)
    ids = tuple(state.history[n_prompt + first : n_prompt + last])
    scores: tuple[Score, ...] = ()
    if state.request.log_probabilities is not None:
        own, top = state.log_probabilities[first:last], state.top_log_probabilities[first:last]
        scores = tuple(Score(value, tuple(best)) for value, best in zip(own, top, strict=True))
    return Progress(state, ids, scores, text, state.finish, state.error)
