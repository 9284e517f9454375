"""Checks of components that combine tokens (attentions, positions, blocks, embeddings) in a GPT with several companions.

Shapes: B batch, T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gptkit.model.gpt import GPT
from gptkit.testing.check import Checks, differ, expect, same, skip
from gptkit.testing.states import by_length, last_logits
from gptkit.testing.subject import CONTEXT_LENGTH, VOCAB, Subject, stirred, token_ids

__all__ = ["checks"]

checks = Checks()

_LONG = 160


@checks.add("no-future-leak", "A model that attends to its targets has a low loss and generates nonsense.")
@torch.no_grad()
def no_future_leak(subject: Subject) -> None:
    ids = token_ids(1, 12)
    changed = _each_changed(ids)
    for named, model in subject.leak_models():
        differs = differ(model(changed).logits, model(ids).logits.expand(12, -1, -1)).any(-1)
        for at in range(1, 12):
            wrong = differs[at, :at]
            if wrong.any():
                seen = int(wrong.nonzero()[-1])
                expect(False, f"{named}, changing token {at} changed the output at token {seen}, which comes before it")


@checks.add("reaches-the-end", "The last token of the context must be processed like any other.")
@torch.no_grad()
def reaches_the_end(subject: Subject) -> None:
    ids = token_ids(1, CONTEXT_LENGTH)
    for named, model in subject.models():
        cache = model.new_cache(1)
        model(ids[:, :-1], cache=cache)
        for logits in (model(ids).logits, model(ids[:, -1:], cache=cache).logits):
            expect(logits.isfinite().all(), f"{named}, the last of {CONTEXT_LENGTH} tokens gives NaN or infinity")


@checks.add("rows-are-independent", "The output for a text must not depend on the other texts in its batch.")
@torch.no_grad()
def rows_are_independent(subject: Subject) -> None:
    ids = token_ids(3, 12)
    for named, model in subject.models():
        together = model(ids).logits
        for row in range(3):
            alone = model(ids[row : row + 1]).logits
            same(together[row : row + 1], alone, f"{named}, row {row} of three gives other logits than by itself")
        cache = model.new_cache(3)
        model(ids[:, :7], cache=cache)
        step = model(ids[:, 7:8], cache=cache).logits
        for row in range(3):
            own = model.new_cache(1)
            model(ids[row : row + 1, :7], cache=own)
            alone = model(ids[row : row + 1, 7:8], cache=own).logits
            same(step[row : row + 1], alone, f"{named}, row {row} of three cached ones gives other logits than by itself")


@checks.add("padding-is-ignored", "Prompts of uneven length share a batch with left padding, which must be masked.")
@torch.no_grad()
def padding_is_ignored(subject: Subject) -> None:
    padding, length = 4, 14
    ids = token_ids(2, length)
    alone = ids[1:, : length - padding]
    left_padding_B = torch.tensor([0, padding])
    for named, model in subject.leak_models():
        padded, beside = model(alone).logits, model(ids[:1]).logits
        for filler in (0, 3):
            batch = torch.cat((ids[:1], torch.cat((torch.full((1, padding), filler), alone), dim=1)))
            together = model(batch, left_padding_B=left_padding_B).logits
            same(together[1:, padding:], padded, f"{named}, a row with {padding} tokens of padding gives other logits")
            same(together[:1], beside, f"{named}, a row beside a padded one gives other logits")


@checks.add(
    "uneven-prompts-cached", "Prompts of uneven length are decoded in one batch; each must decode as it would alone."
)
@torch.no_grad()
def uneven_prompts_cached(subject: Subject) -> None:
    padding, prompt, length = 3, 8, 14
    ids = token_ids(2, length)
    batch = torch.cat((ids[:1], torch.cat((torch.zeros(1, padding, dtype=torch.long), ids[1:, : length - padding]), 1)))
    left_padding_B = torch.tensor([0, padding])
    for named, model in subject.models():
        cache = model.new_cache(2, left_padding_B=left_padding_B)
        model(batch[:, :prompt], cache=cache)
        starts = (0, padding)
        alone = [last_logits(model, batch[row, s:], range(prompt + 1 - s, length + 1 - s)) for row, s in enumerate(starts)]
        for at in range(prompt, length):
            step = model(batch[:, at : at + 1], cache=cache).logits[:, 0]
            for row, start in enumerate(starts):
                what = f"{named}, token {at} of a cached row with {start} tokens of padding gives other logits than alone"
                same(step[row], alone[row][at + 1 - start], what)


@checks.add("documents-keep-apart", "Packed training rows hold several documents; one must not see into another.")
@torch.no_grad()
def documents_keep_apart(subject: Subject) -> None:
    ids = token_ids(2, 20)
    documents = torch.tensor([[0] * 9 + [1] * 11, [4] * 4 + [2] * 10 + [7] * 6])
    spans = ((0, 0, 9), (0, 9, 20), (1, 0, 4), (1, 4, 14), (1, 14, 20))
    looked = False
    for named, model in subject.leak_models():
        if by_length(model):
            continue
        looked = True
        packed = model(ids, documents_BT=documents).logits
        for row, begin, end in spans:
            alone = model(ids[row : row + 1, begin:end]).logits
            what = f"{named}, a document at tokens {begin} to {end - 1} of a packed row gives other logits than alone"
            same(packed[row : row + 1, begin:end], alone, what)
    if not looked:
        skip("positions depend on the length of the row, which packed documents have in common")


@checks.add("long-texts", "An algorithm in chunks is exact within one; the texts of other checks are shorter than most.")
@torch.no_grad()
def long_texts(subject: Subject) -> None:
    model = stirred(subject.make(context_length=_LONG)).double().eval()
    if by_length(model):
        skip("scores of a pair of tokens depend on the length of the text")
    ids = token_ids(2, min(_LONG, model.context_length))
    length = ids.shape[1]
    if _part(model, ids[:, :24], (13,), (15, 1, 5, 1)) is not None:
        return  # reported by the checks of short texts
    pieces = (length - 60, 1, 50, 1, 8)
    wrong = _part(model, ids, (length // 3 + 1, length - 20, length - 1), pieces)
    expect(wrong is None, f"of {length} tokens, {wrong} give other logits than in a call with all")


def _part(model: GPT, ids: Tensor, cuts: Sequence[int], pieces: Sequence[int]) -> str | None:
    """Return which part of a text gives other logits than the whole: the first tokens, or a piece with a cache."""
    full = model(ids).logits
    for cut in cuts:
        if differ(model(ids[:, :cut]).logits, full[:, :cut]).any():
            return f"the first {cut}"
    cache, at = model.new_cache(len(ids)), 0
    for piece in pieces:
        step = model(ids[:, at : at + piece], cache=cache).logits
        at += piece
        if differ(step[:, -1], full[:, at - 1]).any():
            return f"those up to token {at - 1} with a cache"
    return None


def reach(model: GPT, length: int) -> list[tuple[int, int]]:
    """For each token, the first and the last token whose output changes with it."""
    ids = token_ids(1, length)
    differs = differ(model(_each_changed(ids)).logits, model(ids).logits.expand(length, -1, -1), 1e-9).any(-1)
    result = []
    for at in range(length):
        touched = differs[at].nonzero().flatten().tolist()
        result.append((touched[0], touched[-1]) if touched else (at, at))
    return result


def _each_changed(ids_1T: Tensor) -> Tensor:
    """Return a row for each token, (T, T), in which that token is another one."""
    length = ids_1T.shape[1]
    changed_TT = ids_1T.repeat(length, 1)
    changed_TT.diagonal().add_(1).remainder_(VOCAB)
    return changed_TT
