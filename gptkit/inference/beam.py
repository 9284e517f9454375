"""Beam search: approximate search for the most likely continuations.

Shapes: W beams, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gptkit.core.errors import GptkitError
from gptkit.inference.batch import Batch
from gptkit.inference.modes import evaluating
from gptkit.inference.prompts import as_ids
from gptkit.inference.protocol import LanguageModel
from gptkit.kinds.tokenizer import Tokenizer

__all__ = ["Beam", "beam_search"]


@dataclass(frozen=True)
class Beam:
    """One continuation.

    Attributes:
        ids: the generated tokens, without the stop token.
        text: the decoded tokens.
        log_probability: log-probability of the continuation in nats, including the stop token.
        score: log-probability / (number of tokens) ** length_penalty, by which beams are ranked.
        ended: whether a stop token was generated; otherwise `max_new_tokens` was reached.
    """

    ids: list[int] = field(repr=False)
    text: str
    log_probability: float
    score: float
    ended: bool


def beam_search(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompt: str | Sequence[int],
    *,
    width: int = 4,
    max_new_tokens: int = 200,
    length_penalty: float = 1.0,
    stop_ids: Collection[int] | None = None,
) -> list[Beam]:
    """Generate the most likely continuations of a prompt.

    Each step keeps the `width` most likely of all one-token extensions. The search ends when `width` continuations have
    ended and the best unfinished one currently scores no better than the worst of them.

    Args:
        model: the model.
        tokenizer: the model's tokenizer.
        prompt: a string or token ids, as in `generate`.
        width: number of beams; 1 is greedy search.
        max_new_tokens: maximum number of generated tokens.
        length_penalty: 0 ranks by probability, which favors short texts; above 1 favors long ones.
        stop_ids: tokens that end a continuation; the tokenizer's end token by default.

    Returns:
        Up to `width` continuations, best first.

    Raises:
        GptkitError: as `generate`, or a width below 1.
    """
    if width < 1:
        raise GptkitError(f"the beam width is {width}", hint="Use a width of 1 or more.")
    if max_new_tokens < 0:
        raise GptkitError(f"max_new_tokens is {max_new_tokens}", hint="Use 0 or more.")
    ids = as_ids([prompt], tokenizer, model.vocab_size)[0]
    ends = ((tokenizer.end_id,) if tokenizer.end_id is not None else ()) if stop_ids is None else stop_ids
    search = _Search(model, tokenizer, ids, width, length_penalty, frozenset(ends))
    with torch.inference_mode(), evaluating(model):
        for step in range(max_new_tokens):
            if search.settled:
                break
            search.step(last=step == max_new_tokens - 1)
    return search.best()


class _Search:
    def __init__(
        self,
        model: LanguageModel,
        tokenizer: Tokenizer,
        prompt_ids: list[int],
        width: int,
        length_penalty: float,
        ends: frozenset[int],
    ) -> None:
        self.tokenizer, self.width, self.length_penalty, self.ends = tokenizer, width, length_penalty, ends
        self.vocab_size = min(model.vocab_size, tokenizer.vocab_size)
        self.n_prompt = len(prompt_ids)
        self.batch = Batch(model, [list(prompt_ids)], model.context_length)
        self.live = [0.0]
        """Log-probability of each beam, best first."""
        self.finished: list[Beam] = []
        self.chosen_W: Tensor | None = None

    @property
    def settled(self) -> bool:
        if not self.live:
            return True
        if len(self.finished) < self.width:
            return False
        n_generated = len(self.batch.histories[0]) - self.n_prompt
        best: float = self.live[0] / max(1, n_generated) ** self.length_penalty
        return best <= self.finished[-1].score

    def step(self, *, last: bool) -> None:
        batch, chosen_W = self.batch, self.chosen_W
        logits_WV = batch.read() if chosen_W is None else batch.step(chosen_W)
        log_p_WV = logits_WV[:, : self.vocab_size].log_softmax(dim=-1)
        total_WV = log_p_WV + torch.tensor(self.live, device=log_p_WV.device)[:, None]
        # Enough candidates that `width` remain even if every beam ends with every stop token.
        n_candidates = min(total_WV.numel(), self.width * (1 + len(self.ends)))
        best = total_WV.flatten().topk(n_candidates)
        rows: list[int] = []
        chosen: list[int] = []
        live: list[float] = []
        for rank, (score, place) in enumerate(zip(best.values.tolist(), best.indices.tolist(), strict=True)):
            row, token = divmod(place, self.vocab_size)
            if token in self.ends:
                if rank < self.width:
                    self._keep(batch.histories[row], score, ended=True)
            elif len(rows) < self.width:
                rows.append(row)
                chosen.append(token)
                live.append(score)
        histories = [[*batch.histories[row], token] for row, token in zip(rows, chosen, strict=True)]
        if last:
            for history, score in zip(histories, live, strict=True):
                self._keep(history, score, ended=False)
            live = []
        self.live = live
        self.chosen_W = torch.tensor(chosen, device=logits_WV.device)
        if live:
            batch.reorder(rows)
            batch.histories = histories

    def best(self) -> list[Beam]:
        if self.finished:
            return self.finished
        return [Beam([], "", 0.0, 0.0, ended=False)]  # max_new_tokens is 0

    def _keep(self, history: list[int], score: float, *, ended: bool) -> None:
        ids = history[self.n_prompt :]
        n_tokens = len(ids) + ended
        ranked = score / n_tokens**self.length_penalty
        self.finished.append(Beam(ids, self.tokenizer.decode(ids), score, ranked, ended))
        self.finished.sort(key=lambda beam: -beam.score)
        del self.finished[self.width :]
