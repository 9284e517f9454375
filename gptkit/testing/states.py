"""Checks of the states of cached decoding: equal to the full forward pass, reordered, truncated, marked, joined and copied.

Shapes: B batch, T tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from gptkit.core.errors import StateError
from gptkit.model.cache import Cache
from gptkit.model.gpt import GPT
from gptkit.testing.check import Checks, expect, same, skip
from gptkit.testing.subject import CONTEXT_LENGTH, Subject, token_ids

__all__ = ["by_length", "checks", "last_logits"]

checks = Checks()

PROMPT = 9


def by_length(model: GPT) -> bool:
    """Return whether scores of a pair of tokens change with the length of the text."""
    return any(layer.position.depends_on_length for layer in model.spec.layer_specs())


def last_logits(model: GPT, ids_T: Tensor, lengths: Iterable[int]) -> Mapping[int, Tensor]:
    """Return the logits (V,) of the last token of a text that is cut to each of some lengths, by length."""
    if by_length(model):
        return {length: model(ids_T[None, :length]).logits[0, -1] for length in lengths}
    wanted = list(lengths)
    full_TV = model(ids_T[None, : max(wanted)]).logits[0]
    return {length: full_TV[length - 1] for length in wanted}


@checks.add("cached-equals-full", "Text is generated with a cache, so a step with it must equal the full forward pass.")
@torch.no_grad()
def cached_equals_full(subject: Subject) -> None:
    for named, model in subject.models():
        # With a window more tokens than its buffer holds, so that it slides.
        pieces = (7, 1, 1, 4, *([1] * 5)) if "window" not in named else (7, 1, 4, *([1] * 18), 6, 1, 1, 1)
        ids = token_ids(2, sum(pieces))
        cache, full = model.new_cache(2), model(ids).logits
        at = 0
        for piece in pieces:
            step = model(ids[:, at : at + piece], cache=cache).logits
            at += piece
            expected = model(ids[:, :at]).logits if by_length(model) else full[:, :at]
            what = "the prompt" if at == piece else f"a piece of {piece} tokens" if piece > 1 else "a single token"
            same(step[:, -1], expected[:, -1], f"{named}, {what} up to token {at - 1} with a cache gives other logits")


@checks.add("static-cache", "Compiled decoding needs a cache of fixed shapes; its steps must equal the full forward pass.")
@torch.no_grad()
def static_cache(subject: Subject) -> None:
    for named, model in subject.models():
        if by_length(model):
            skip("its position depends on the length of the text, with which a static cache is refused")
        # With a window more tokens than a ring buffer holds, so that it wraps.
        pieces = (7, 1, 1, 4, 1, 1) if "window" not in named else (7, 1, 4, *([1] * 14), 9, 1, 1, 4, 1)
        # A capacity that is hardly more than a window has a place for each token instead.
        for sizes, capacity in ((pieces, None), ((8, 1), 9)):
            ids, padding_B = token_ids(2, sum(sizes)), torch.tensor([0, 2])
            full = model(ids, left_padding_B=padding_B).logits
            cache = model.new_cache(2, capacity, left_padding_B=padding_B, static=True)
            at = 0
            for size in sizes:
                step = model(ids[:, at : at + size], cache=cache).logits
                seen = full[:, at : at + size]
                at += size
                what = f"{named}, in the {size} tokens up to {at - 1} with a static cache it gives other logits"
                same(step[0], seen[0], what)
                # What padding computes is of no use.
                same(step[1, max(0, 2 - at + size) :], seen[1, max(0, 2 - at + size) :], what)


@checks.add("cache-reorders", "Beam search reorders and repeats the rows of a cache; each row must keep its own state.")
@torch.no_grad()
def cache_reorders(subject: Subject) -> None:
    ids, rows = token_ids(3, 12), [2, 0, 2, 1]
    for named, model in subject.models():
        cache = model.new_cache(3)
        model(ids[:, :PROMPT], cache=cache)
        cache.reorder(rows)
        _must_continue(model, cache, ids[rows, : PROMPT + 1], f"{named}, after the cache's rows became {rows}")


@checks.add("cache-truncates", "Speculative decoding discards tokens; a step after that must not depend on them.")
@torch.no_grad()
def cache_truncates(subject: Subject) -> None:
    ids, rejected = token_ids(2, 16), token_ids(2, 3, seed=9)
    other = token_ids(2, 16, seed=4)
    for named, model in subject.models():
        # To the prompt, into it, and to nothing; a state that cannot without `mark` may refuse.
        for length in (PROMPT, 5, 0):
            cache = model.new_cache(2)
            model(ids[:, :PROMPT], cache=cache)
            model(rejected, cache=cache)
            try:
                cache.truncate(length)
            except StateError:
                continue
            text = torch.cat((ids[:, :length], other[:, length : length + 4]), dim=1)
            _must_continue(model, cache, text, f"{named}, after {PROMPT + 3} cached tokens were truncated to {length}")


@checks.add("cache-marks", "A state may reject truncation, but it must be possible to return to a mark.")
@torch.no_grad()
def cache_marks(subject: Subject) -> None:
    ids, rejected, rows = token_ids(2, 20), token_ids(2, 3, seed=9), [1, 0]
    for named, model in subject.models():
        cache = model.new_cache(2)
        at = 0
        for n_new, n_rejected in ((PROMPT, 3), (0, 2), (2, 1), (4, 3)):
            if n_new:
                model(ids[:, at : at + n_new], cache=cache)
                at += n_new
                cache.mark()
            model(rejected[:, :n_rejected], cache=cache)
            where = f"{named}, marked after {at} tokens"
            _back(cache, at, where)
        model(rejected, cache=cache)
        cache.reorder(rows)
        _back(cache, at, where)
        text = ids[rows, : at + 2]
        _must_continue(model, cache, text, f"{where}, a cache that returned to its mark")


def _back(cache: Cache, length: int, where: str) -> None:
    held = cache.length
    try:
        cache.truncate(length)
    except StateError as error:
        expect(False, f"{where}, a cache of {held} tokens cannot be truncated to the mark: {error.message}")


@checks.add("cache-joins", "Continuous batching joins the caches of requests; each row must decode as it would alone.")
@torch.no_grad()
def cache_joins(subject: Subject) -> None:
    ids = token_ids(4, CONTEXT_LENGTH)
    for named, model in subject.models():
        # With a window also a side whose buffer has slid.
        prompts = [(9, 6), (6, 9), (7, 7)] + ([(31, 6), (6, 31)] if "window" in named else [])
        for first, second in prompts:
            _must_join(model, ids, (first, second), f"{named}, a cache of {first} tokens joined with one of {second}")


def _must_join(model: GPT, ids: Tensor, prompts: tuple[int, int], where: str) -> None:
    """Join two rows with two others, one of them padded, then decode, with a row less in the end."""
    padding = 2
    left_padding_B = torch.tensor([0, padding])
    lengths = [prompts[0], prompts[0], prompts[1], prompts[1] - padding]
    texts = [row[:length] for row, length in zip(ids, lengths, strict=True)]
    one = model.new_cache(2, capacity=prompts[0] + 1)
    model(torch.stack(texts[:2]), cache=one)
    other = model.new_cache(2, capacity=prompts[1] + 3, left_padding_B=left_padding_B)
    padded = torch.cat((torch.zeros(padding, dtype=torch.long), texts[3]))
    model(torch.stack((texts[2], padded)), cache=other)
    one.join(other, capacity=CONTEXT_LENGTH)
    rows = [0, 1, 2, 3]
    alone = [
        last_logits(model, row, [length + n_new for n_new in (1, 2, 5, 6)]) for row, length in zip(ids, lengths, strict=True)
    ]
    for n_new in (1, 1, 3, 1):
        if n_new == 3:
            rows = [0, 2, 3]
            one.reorder(rows)
        new = torch.stack([ids[row, lengths[row] : lengths[row] + n_new] for row in rows])
        step = model(new, cache=one).logits[:, -1]
        for row, logits in zip(rows, step, strict=True):
            lengths[row] += n_new
            expected = alone[row][lengths[row]]
            same(logits, expected, f"{where}, row {row} gives other logits than alone at token {lengths[row] - 1}")


@checks.add("cache-extracts", "Prefix reuse copies one row of a cache; the copy must decode as its row, and change nothing.")
@torch.no_grad()
def cache_extracts(subject: Subject) -> None:
    ids, padding = token_ids(2, CONTEXT_LENGTH), 2
    padded = torch.cat((torch.zeros(1, padding, dtype=torch.long), ids[1:, : PROMPT - padding]), dim=1)
    for named, model in subject.models():
        cache = model.new_cache(2, capacity=CONTEXT_LENGTH, left_padding_B=torch.tensor([0, padding]))
        model(torch.cat((ids[:1, :PROMPT], padded)), cache=cache)
        for row, length in enumerate((PROMPT, PROMPT - padding)):
            try:
                copy = cache.extract(row, CONTEXT_LENGTH)
            except StateError:  # prompts are then computed as a whole
                break
            expect(copy.length == length, f"{named}, the copy of row {row} holds {copy.length} tokens, not {length}")
            # With a window more tokens than its buffer holds, so that it slides.
            end = CONTEXT_LENGTH if "window" in named else length + 6
            _must_continue(model, copy, ids[row : row + 1, :end], f"{named}, the copy of row {row}")
        new = torch.stack((ids[0, PROMPT : PROMPT + 1], ids[1, PROMPT - padding : PROMPT - padding + 1]))
        for row, logits in enumerate(model(new, cache=cache).logits[:, -1]):
            alone = model(ids[row : row + 1, : PROMPT + 1 - padding * row]).logits[0, -1]
            same(logits, alone, f"{named}, row {row} of the cache gives other logits after it was copied")


def _must_continue(model: GPT, cache: Cache, ids_BT: Tensor, where: str) -> None:
    """The cache holds a prefix of these texts; each further token must give the logits of the full forward pass."""
    full = model(ids_BT).logits
    for at in range(cache.length, ids_BT.shape[1]):
        step = model(ids_BT[:, at : at + 1], cache=cache).logits[:, -1]
        expected = model(ids_BT[:, : at + 1]).logits if by_length(model) else full[:, : at + 1]
        same(step, expected[:, -1], f"{where}, token {at} gives other logits than the full forward pass")
