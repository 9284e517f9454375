"""Beam search: the most likely texts, as far as a search of bounded width finds them.

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
    """One text that was found.

    Attributes:
        ids: its tokens, without the one that ended it.
        text: what they say.
        log_probability: of the whole, in nats, the token that ended it included.
        score: the log-probability divided by (number of tokens) ** length_penalty: what beams are ranked by.
        ended: whether a stop token came; otherwise `max_new_tokens` was reached.
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
    """Continue a prompt with its most likely texts.

    Each step keeps the `width` likeliest of all continuations by one token. The search ends when `width` texts have
    ended and the best of the others, as it stands, scores no better than the worst of them.

    Args:
        model: the model.
        tokenizer: the one that it was trained with.
        prompt: a text or token ids, as in `generate`.
        width: how many texts are followed; 1 is greedy.
        max_new_tokens: how long a text can get.
        length_penalty: 0 ranks by probability, which favours short texts; above 1 favours long ones.
        stop_ids: tokens that end a text; the tokenizer's end token by default.

    Returns:
        Up to `width` texts, best first.

    Raises:
        GptkitError: as `generate`, or a width below 1.
    """
    if width < 1:
        raise GptkitError(f"a beam search of width {width} follows nothing", hint="Give a width of 1 or more.")
    if max_new_tokens < 0:
        raise GptkitError(f"max_new_tokens is {max_new_tokens}", hint="Give how many tokens to write, 0 or more.")
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
        """Log-probability of each text that is followed, best first."""
        self.found: list[Beam] = []
        self.chosen_W: Tensor | None = None

    @property
    def settled(self) -> bool:
        if not self.live:
            return True
        if len(self.found) < self.width:
            return False
        written = len(self.batch.histories[0]) - self.n_prompt
        best: float = self.live[0] / max(1, written) ** self.length_penalty
        return best <= self.found[-1].score

    def step(self, *, last: bool) -> None:
        batch, chosen_W = self.batch, self.chosen_W
        logits_WV = batch.read() if chosen_W is None else batch.step(chosen_W)
        log_p_WV = logits_WV[:, : self.vocab_size].log_softmax(dim=-1)
        total_WV = log_p_WV + torch.tensor(self.live, device=log_p_WV.device)[:, None]
        # So many that `width` remain although each beam may end in every possible way.
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
        if self.found:
            return self.found
        return [Beam([], "", 0.0, 0.0, ended=False)]  # nothing was to be written

    def _keep(self, history: list[int], score: float, *, ended: bool) -> None:
        ids = history[self.n_prompt :]
        n_tokens = len(ids) + ended
        ranked = score / n_tokens**self.length_penalty
        self.found.append(Beam(ids, self.tokenizer.decode(ids), score, ranked, ended))
        self.found.sort(key=lambda beam: -beam.score)
        del self.found[self.width :]
