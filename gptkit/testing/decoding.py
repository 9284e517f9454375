"""Checks of decodings.

Shapes: R rows, T tokens, E width, V vocabulary.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gptkit.kinds.decoding import Continuation, DecodingContext, DecodingSpec
from gptkit.testing.check import Checks, expect
from gptkit.testing.subject import Subject

__all__ = ["checks"]

checks = Checks()

VOCAB, WIDTH, LONGEST = 11, 6, 8
STOP = 10
"""The stop token of the checks."""


@dataclass
class _Record:
    """What a search did.

    Attributes:
        results: its continuations.
        texts: every text that it formed, without the prompt.
        drawn: pairs of a text and the token that continued it.
    """

    results: list[Continuation]
    texts: set[tuple[int, ...]] = field(default_factory=set)
    drawn: list[tuple[tuple[int, ...], int]] = field(default_factory=list)


def _logits(text: Sequence[int]) -> Tensor:
    """Logits that depend on the whole text, a third of them excluded."""
    generator = torch.Generator().manual_seed(zlib.crc32(bytes(text)))
    logits_V = torch.randn(VOCAB, generator=generator) * 2
    logits_V[torch.rand(VOCAB, generator=generator) < 0.3] = -torch.inf
    logits_V[len(text) % STOP] = 1.0
    return logits_V


def _vector(text: Sequence[int]) -> Tensor:
    return torch.randn(WIDTH, generator=torch.Generator().manual_seed(zlib.crc32(b"h" + bytes(text))))


def _run(
    subject: Subject,
    logits: Callable[[Sequence[int]], Tensor] = _logits,
    *,
    stream: str = "0",
    longest: int = LONGEST,
    ends: Callable[[Sequence[int]], bool] = lambda text: False,
) -> _Record:
    spec: DecodingSpec = subject.spec
    search = spec.build(DecodingContext(VOCAB, longest, frozenset({STOP}), stream))
    prompt, record = [1, 2, 3], _Record([])
    histories = [list(prompt)]
    for index in range(longest + 3):
        first = len(prompt) if index == 0 else 1
        hidden_RTE = torch.stack(
            [torch.stack([_vector(text[: at + 1]) for at in range(len(text) - first, len(text))]) for text in histories]
        )
        logits_RV = torch.stack([logits(text) for text in histories])
        ended = [row for row, text in enumerate(histories) if index and ends(text[len(prompt) :])]
        step = search.step(logits_RV.clone(), ended, hidden_RTE if search.needs_hidden else None)
        expect(len(step.rows) == len(step.tokens), f"{len(step.rows)} rows, but {len(step.tokens)} tokens")
        expect(len(step.rows) <= spec.n_rows, f"{len(step.rows)} rows, but n_rows is {spec.n_rows}")
        wrong = [row for row in step.rows if not 0 <= row < len(histories)]
        expect(not wrong, f"a step continues row {wrong[:1]}, but there are {len(histories)} rows")
        gone = [row for row in step.rows if row in ended]
        expect(not gone, f"row {gone[:1]} is continued, although its text has ended")
        for row, token in zip(step.rows, step.tokens, strict=True):
            record.drawn.append((tuple(histories[row]), int(token)))
        histories = [[*histories[row], int(token)] for row, token in zip(step.rows, step.tokens, strict=True)]
        record.texts |= {tuple(text[len(prompt) :]) for text in histories}
        if not histories:
            record.results = search.results()
            return record
    expect(False, f"the search has not ended after {longest + 3} steps, with at most {longest} tokens")
    return record


@checks.add("returns-what-it-formed", "The host's cache holds the texts of the steps; a result must be one of them.")
def returns_what_it_formed(subject: Subject) -> None:
    record = _run(subject)
    expect(bool(record.results), "the search returns no continuation")
    # The last token of a text may end the search, so that no step returns it.
    formed = {(), *record.texts}
    strange = [each.ids for each in record.results if tuple(each.ids[:-1]) not in formed]
    expect(not strange, f"the continuation {strange[:1]} was formed by no step")


@checks.add("keeps-to-the-limits", "A text ends with a stop token, and with the maximum number of tokens.")
def keeps_to_the_limits(subject: Subject) -> None:
    for longest in (1, 3, LONGEST):
        record = _run(subject, longest=longest)
        long = [each.ids for each in record.results if len(each.ids) > longest]
        expect(not long, f"a continuation of {len(long[0]) if long else 0} tokens, but max_new_tokens is {longest}")
        stopped = [each.ids for each in record.results if STOP in each.ids]
        expect(not stopped, f"the continuation {stopped[:1]} contains the stop token {STOP}")
        beyond = [text for text, _ in record.drawn if STOP in text]
        expect(not beyond, "a text is continued after a stop token")
        open_ends = [each for each in record.results if not each.ended and len(each.ids) < longest]
        expect(not open_ends, "a continuation has neither ended nor the maximum number of tokens")


@checks.add("never-chooses-excluded-tokens", "Samplers exclude tokens that must not be generated (-∞).")
def never_chooses_excluded(subject: Subject) -> None:
    for stream in range(5):
        record = _run(subject, stream=str(stream))
        last = [((1, 2, 3, *each.ids[:-1]), each.ids[-1]) for each in record.results if each.ids]
        wrong = [token for text, token in [*record.drawn, *last] if _logits(text)[token] == -torch.inf]
        expect(not wrong, f"token {wrong[:1]} was chosen, although it is excluded")


@checks.add("finds-the-only-text", "If one token is left at every step, there is one continuation.")
def finds_the_only_text(subject: Subject) -> None:
    def only(text: Sequence[int]) -> Tensor:
        logits_V = torch.full((VOCAB,), -torch.inf)
        logits_V[(3, 7, 0, 7, STOP)[min(len(text) - 3, 4)]] = -4.0
        return logits_V

    best = _run(subject, only).results[0]
    expect(best.ids == [3, 7, 0, 7], f"the only continuation is [3, 7, 0, 7], and the search returns {best.ids}")
    expect(best.ended, "the continuation ended with a stop token, but is reported as cut off")


@checks.add("stops-at-stop-strings", "A row whose text reached a stop string has ended, and is a continuation.")
def stops_at_stop_strings(subject: Subject) -> None:
    def without_stop(text: Sequence[int]) -> Tensor:
        return _logits(text).index_fill(0, torch.tensor(STOP), -torch.inf)

    best = _run(subject, without_stop, ends=lambda text: len(text) == 4).results[0]
    expect(len(best.ids) == 4 and best.ended, f"every text ends after 4 tokens, and the search returns {len(best.ids)}")


@checks.add("ranks-its-results", "The first continuation is the one that is generated.")
def ranks_its_results(subject: Subject) -> None:
    scores = [each.score for each in _run(subject).results]
    expect(scores == sorted(scores, reverse=True), f"the scores are not in descending order: {scores}")


@checks.add("same-input-same-output", "Equal seeds must give equal texts.")
def same_input_same_output(subject: Subject) -> None:
    torch.manual_seed(1)
    once = _run(subject).results
    torch.manual_seed(2)
    expect(once == _run(subject).results, "a second search returns other continuations for the same input")


@checks.add("declares-what-it-draws", "A deterministic decoding does not depend on the seed.")
def declares_what_it_draws(subject: Subject) -> None:
    seeds = [_run(subject, stream=str(stream)).results for stream in range(6)]
    if type(subject.spec).deterministic:
        expect(all(each == seeds[0] for each in seeds), "it declares deterministic, but depends on the seed")


@checks.add("changes-nothing-in-place", "The host uses the logits again, so they must not be changed.")
def changes_nothing_in_place(subject: Subject) -> None:
    spec: DecodingSpec = subject.spec
    search = spec.build(DecodingContext(VOCAB, LONGEST, frozenset({STOP}), "0"))
    logits_1V = _logits([1, 2, 3])[None]
    before = logits_1V.clone()
    search.step(logits_1V, (), torch.randn(1, 3, WIDTH) if search.needs_hidden else None)
    expect(torch.equal(logits_1V, before), "the given logits were modified in place")
