"""Trace of a generation: for each token, what each sampler of the chain left, and what was drawn.

Shapes: B rows of a batch, R rows that are traced, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from gptkit.kinds.sampler import SamplerSpec
from gptkit.kinds.tokenizer import Tokenizer
from gptkit.pages.tokens import text_of

__all__ = ["CANDIDATES", "Candidate", "RowTracer", "SamplerStep", "TokenTrace"]

CANDIDATES = 8
"""Number of the most likely tokens that a trace keeps by default."""


@dataclass(frozen=True)
class Candidate:
    """A token that might have been drawn.

    Attributes:
        id: its id.
        text: its text.
        probability: its probability under the model, before the samplers.
    """

    id: int
    text: str
    probability: float


@dataclass(frozen=True)
class SamplerStep:
    """What one sampler did to the distribution of one token.

    Attributes:
        name: name of the sampler.
        fields: its fields, as in a spec file.
        n_before: number of tokens that it received, those not excluded by samplers before it.
        n_after: number of tokens that it left.
        removed: probability, before it, of the tokens that it excluded.
        before: probability of each candidate before it; None where excluded.
        after: probability of each candidate after it; None where excluded.
    """

    name: str
    fields: Mapping[str, Any]
    n_before: int
    n_after: int
    removed: float
    before: tuple[float | None, ...]
    after: tuple[float | None, ...]


@dataclass(frozen=True)
class TokenTrace:
    """Why one token was drawn.

    Attributes:
        id: the token. The last one of a text may be the token that ended it, which is not a part of the text.
        text: its text.
        probability: its probability under the model, before the samplers.
        drawn_with: its probability under the distribution that it was drawn from.
        rank: number of tokens that the model held more likely.
        entropy: entropy of the model's distribution, in bits.
        n_left: number of tokens that it was drawn from.
        candidates: the most likely tokens under the model and after the chain, and the drawn one; by the model's
            probability.
        steps: the samplers that were applied, in their order.
    """

    id: int
    text: str
    probability: float
    drawn_with: float
    rank: int
    entropy: float
    n_left: int
    candidates: tuple[Candidate, ...] = field(repr=False)
    steps: tuple[SamplerStep, ...] = field(repr=False)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "id": self.id,
            "text": self.text,
            "probability": _short(self.probability),
            "drawn_with": _short(self.drawn_with),
            "rank": self.rank,
            "entropy": _short(self.entropy),
            "n_left": self.n_left,
            "candidates": [
                {"id": each.id, "text": each.text, "probability": _short(each.probability)} for each in self.candidates
            ],
            "steps": [
                {
                    "name": step.name,
                    "fields": dict(step.fields),
                    "n_before": step.n_before,
                    "n_after": step.n_after,
                    "removed": _short(step.removed),
                    "before": [None if p is None else _short(p) for p in step.before],
                    "after": [None if p is None else _short(p) for p in step.after],
                }
                for step in self.steps
            ],
        }


class RowTracer:
    """Records one `gptkit.inference.chain.Chain.pick` for some rows of its batch: a `ChainTrace`.

    Args:
        logits_BV: the logits that the chain receives.
        counts: the rows to trace, each with the number of candidates to keep.
        tokenizer: the tokenizer, for the texts.
    """

    def __init__(self, logits_BV: Tensor, counts: Mapping[int, int], tokenizer: Tokenizer) -> None:
        self._rows = list(counts)
        self._counts = counts
        self._tokenizer = tokenizer
        self._model_RV = logits_BV[self._rows].float().log_softmax(dim=-1)
        self._steps: list[tuple[SamplerSpec, Tensor]] = []
        self.tokens: dict[int, TokenTrace] = {}
        """The trace of each row, after the draw."""

    def sampler(self, index: int, spec: SamplerSpec, before_BV: Tensor, after_BV: Tensor) -> None:
        """Record the distribution that a sampler left."""
        self._steps.append((spec, after_BV[self._rows].float().log_softmax(dim=-1)))

    def drawn(self, tokens_B: Tensor, p_B: Tensor) -> None:
        """Record the tokens that were drawn."""
        tokens, drawn_with = tokens_B.tolist(), p_B.tolist()
        for at, row in enumerate(self._rows):
            after = [(spec, log_p_RV[at]) for spec, log_p_RV in self._steps]
            self.tokens[row] = self._trace(self._model_RV[at], after, tokens[row], drawn_with[row], self._counts[row])

    def _trace(
        self, model_V: Tensor, after: Sequence[tuple[SamplerSpec, Tensor]], token: int, drawn_with: float, count: int
    ) -> TokenTrace:
        final_V = after[-1][1] if after else model_V
        count = min(count, model_V.shape[-1])
        left = [each for each in final_V.topk(count).indices.tolist() if final_V[each] > -math.inf]
        likely = dict.fromkeys([*model_V.topk(count).indices.tolist(), *left, token])
        ids = torch.tensor(list(likely), device=model_V.device)
        ids = ids[model_V[ids].argsort(descending=True, stable=True)]
        p_V = model_V.exp()
        steps, before_V = [], model_V
        for spec, after_V in after:
            steps.append(_step(spec, before_V, after_V, ids))
            before_V = after_V
        return TokenTrace(
            id=token,
            text=text_of(self._tokenizer, token),
            probability=float(p_V[token]),
            drawn_with=drawn_with,
            rank=int((model_V > model_V[token]).sum()),
            entropy=max(0.0, float(-torch.where(p_V > 0, p_V * model_V, 0.0).sum()) / math.log(2)),
            n_left=int((final_V > -math.inf).sum()),
            candidates=tuple(
                Candidate(each, text_of(self._tokenizer, each), p)
                for each, p in zip(ids.tolist(), p_V[ids].tolist(), strict=True)
            ),
            steps=tuple(steps),
        )


def _step(spec: SamplerSpec, before_V: Tensor, after_V: Tensor, ids: Tensor) -> SamplerStep:
    excluded_V = (after_V == -math.inf) & (before_V > -math.inf)
    return SamplerStep(
        name=spec.name,
        fields={key: value for key, value in spec.model_dump(mode="json").items() if key != "name"},
        n_before=int((before_V > -math.inf).sum()),
        n_after=int((after_V > -math.inf).sum()),
        removed=float(before_V[excluded_V].exp().sum()),
        before=_probabilities(before_V[ids]),
        after=_probabilities(after_V[ids]),
    )


def _probabilities(log_p: Tensor) -> tuple[float | None, ...]:
    return tuple(None if value == -math.inf else math.exp(value) for value in log_p.tolist())


def _short(value: float) -> float:
    return float(f"{value:.6g}")
