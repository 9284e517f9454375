"""Checks of drafters.

Shapes: V vocabulary.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from gptkit.core.registry import Registry
from gptkit.kinds.drafter import MAX_DRAFT, Drafter, DrafterContext
from gptkit.kinds.tokenizer import Tokenizer, TokenizerSpec
from gptkit.testing.check import Checks, expect
from gptkit.testing.subject import Subject

__all__ = ["checks"]

checks = Checks()


@cache
def _tokenizer(registry: Registry) -> Tokenizer:
    spec = registry.component("tokenizer", "byte").model_validate({"name": "byte"}, context={"registry": registry})
    assert isinstance(spec, TokenizerSpec)
    return spec.fit(iter(()))


class _Reader:
    """A draft model whose most likely token follows from the last one."""

    def __init__(self, vocab_size: int) -> None:
        self._vocab_size = vocab_size

    def __call__(self, text: Sequence[int]) -> Tensor:
        logits_V = torch.zeros(self._vocab_size)
        logits_V[(3 * text[-1] + 1) % self._vocab_size] = 20.0
        return logits_V

    def mark(self) -> None:
        """Nothing to do without a cache."""


def _build(subject: Subject) -> Drafter:
    tokenizer = _tokenizer(subject.registry)
    reader = _Reader(tokenizer.vocab_size)
    drafter: Drafter = subject.spec.build(DrafterContext(tokenizer.vocab_size, tokenizer, lambda _: reader, lambda: reader))
    return drafter


class _Text:
    """A text that repeats itself, extended as a generation does: some proposed tokens are accepted, then one is drawn.

    Args:
        seed: seed of the text, of the accepted numbers and of the drawn tokens.
    """

    def __init__(self, drafter: Drafter, vocab_size: int, seed: int) -> None:
        self._random = random.Random(seed)
        self._drafter = drafter
        self._ids = self._random.sample(range(vocab_size), 5)
        self.history = [self._random.choice(self._ids) for _ in range(1 + seed % 3 * 20)]

    def step(self, limit: int) -> list[int]:
        """Return a proposal, after which the text grows."""
        proposal = list(self._drafter.propose(self.history, limit))
        n_accepted = self._random.choice([0, len(proposal), self._random.randint(0, len(proposal))])
        self.history = [*self.history, *proposal[:n_accepted], self._random.choice(self._ids)]
        if proposal:
            self._drafter.verified(len(proposal), n_accepted)
        return proposal


@checks.add("proposes-tokens", "Proposals with ids outside the vocabulary, or of too many tokens, are refused.")
def proposes_tokens(subject: Subject) -> None:
    size = _tokenizer(subject.registry).vocab_size
    for seed in range(6):
        text = _Text(_build(subject), size, seed)
        for step in range(40):
            limit = (1, 4, MAX_DRAFT)[step % 3]
            proposal = text.step(limit)
            expect(len(proposal) <= limit, f"{len(proposal)} tokens were proposed, at most {limit} were requested")
            wrong = next((token for token in proposal if not isinstance(token, int) or not 0 <= token < size), None)
            expect(wrong is None, f"{wrong!r} was proposed, which is not a token id: the vocabulary has {size} tokens")


@checks.add("changes-nothing-in-place", "The history is the generated text, which the drafter must not change.")
def changes_nothing_in_place(subject: Subject) -> None:
    drafter = _build(subject)
    for n_tokens in (1, 3, 24, 60):
        history = [index % 4 for index in range(n_tokens)]
        drafter.propose(history, 8)
        expect(history == [index % 4 for index in range(n_tokens)], "the given history was modified in place")


@checks.add("same-input-same-output", "Timings and statistics can be repeated only if equal texts get equal proposals.")
def same_input_same_output(subject: Subject) -> None:
    size = _tokenizer(subject.registry).vocab_size
    first, second = (_Text(_build(subject), size, 4) for _ in range(2))
    for step in range(40):
        expect(first.step(8) == second.step(8), f"at step {step}, a second drafter makes another proposal for the same text")


@checks.add("texts-are-independent", "Each text has its own drafter; texts that are generated together must not affect it.")
def texts_are_independent(subject: Subject) -> None:
    size = _tokenizer(subject.registry).vocab_size
    alone = _Text(_build(subject), size, 5)
    expected = [alone.step(8) for _ in range(40)]
    one, other = _Text(_build(subject), size, 5), _Text(_build(subject), size, 2)
    for step in range(40):
        expect(one.step(8) == expected[step], f"at step {step}, the proposal depends on another text")
        other.step(8)
