"""Beam search: approximate search for the most likely continuations."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from gptkit.components.decoding.beam import BeamSpec
from gptkit.core.errors import GptkitError
from gptkit.inference.prompts import as_ids
from gptkit.inference.protocol import LanguageModel
from gptkit.inference.request import Request
from gptkit.inference.search import PromptSearch
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
    """Generate the most likely continuations of a prompt: the decoding `beam`, without samplers.

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
    (ids,) = as_ids([prompt], tokenizer, model.vocab_size)
    ends = ((tokenizer.end_id,) if tokenizer.end_id is not None else ()) if stop_ids is None else stop_ids
    request = Request(ids, max_new_tokens=max_new_tokens, stop_ids=frozenset(ends))
    spec = BeamSpec(width=width, length_penalty=length_penalty, early_stopping="likely")
    search = PromptSearch(model, tokenizer, request, spec)
    while not search.done:
        search.advance()
    beams = []
    for each in search.results():
        n_tokens = max(1, len(each.ids) + each.ended)
        log_probability = each.score * n_tokens**length_penalty
        beams.append(Beam(each.ids, tokenizer.decode(each.ids), log_probability, each.score, each.ended))
    return beams
