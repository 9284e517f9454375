"""Random models compute the same logits in every way of calling them: components of all kinds beside one another."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from gptkit.core.errors import StateError
from gptkit.model.gpt import GPT
from gptkit.testing.states import by_length
from tests.support.random_models import CONTEXT, V, named, random_models, varied

TOLERANCE = 1e-7
"""Of the largest logit, in fp64."""


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.nightly) for seed in range(2, 24))])
def test_ways_of_calling_a_model_agree(seed: int) -> None:
    skipped = dict.fromkeys(CALLS, 0)
    n_models = 0
    for name, spec in random_models(seed):
        with named(name, spec):
            model = varied(GPT(spec, V, seed=1).double(), seed)
            ids_BT = torch.randint(V, (2, CONTEXT), generator=torch.Generator().manual_seed(seed))
            with torch.no_grad():
                full_BTV = logits(model, ids_BT)
            if not full_BTV.isfinite().all():  # activations are unbounded without norms
                continue
            n_models += 1
            for call, check in CALLS.items():
                if by_length(model) and check in WITH_CACHE:
                    continue
                try:
                    check(model, ids_BT, full_BTV)
                except StateError as error:
                    assert error.hint, call
                    skipped[call] += 1
    assert n_models > 40
    # A recurrent state cannot be truncated; nothing else is refused.
    assert {call for call, count in skipped.items() if count} <= {"truncated"}
    assert skipped["truncated"] < n_models / 2


def logits(model: GPT, ids_BT: Tensor, **options: object) -> Tensor:
    result = model(ids_BT, **options).logits
    assert result is not None
    return result


def assert_same(actual: Tensor, expected: Tensor, what: str) -> None:
    torch.testing.assert_close(
        actual, expected, rtol=0, atol=TOLERANCE * max(1.0, float(expected.abs().max())), msg=lambda text: f"{what}: {text}"
    )


def in_pieces(model: GPT, ids_BT: Tensor, pieces: tuple[int, ...], **options: object) -> Tensor:
    cache = model.new_cache(len(ids_BT), **options)  # type: ignore[arg-type]
    return torch.cat([logits(model, piece, cache=cache) for piece in ids_BT.split(list(pieces), dim=1)], dim=1)


def padded(ids_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Return the tokens with three tokens of padding in the first row, whose last three tokens are omitted."""
    shifted_T = torch.cat((torch.zeros(3, dtype=torch.long), ids_BT[0, : CONTEXT - 3]))
    return torch.stack((shifted_T, ids_BT[1])), torch.tensor([3, 0])


@torch.no_grad()
def check_decoding(model: GPT, ids_BT: Tensor, full_BTV: Tensor) -> None:
    assert_same(in_pieces(model, ids_BT, (1,) * CONTEXT), full_BTV, "token by token")
    assert_same(in_pieces(model, ids_BT, (4, 1, 1, 2)), full_BTV, "in pieces")


@torch.no_grad()
def check_static(model: GPT, ids_BT: Tensor, full_BTV: Tensor) -> None:
    assert_same(in_pieces(model, ids_BT, (4, 1, 1, 1, 1), static=True), full_BTV, "with a static cache")


@torch.no_grad()
def check_truncated(model: GPT, ids_BT: Tensor, full_BTV: Tensor) -> None:
    cache = model.new_cache(2)
    begin = logits(model, ids_BT[:, :4], cache=cache)
    logits(model, ids_BT[:, 4:6].flip(1), cache=cache)
    cache.truncate(4)
    rest = logits(model, ids_BT[:, 4:], cache=cache)
    assert_same(torch.cat((begin, rest), dim=1), full_BTV, "after tokens were discarded")


@torch.no_grad()
def check_padded(model: GPT, ids_BT: Tensor, full_BTV: Tensor) -> None:
    short_TV = logits(model, ids_BT[:1, : CONTEXT - 3])[0]
    tokens, left_padding_B = padded(ids_BT)
    for what, out in (
        ("padded", logits(model, tokens, left_padding_B=left_padding_B)),
        ("padded, in pieces", in_pieces(model, tokens, (4, 1, 1, 2), left_padding_B=left_padding_B)),
    ):
        assert_same(out[0, 3:], short_TV, what)
        assert_same(out[1], full_BTV[1], f"{what}, the other row")


@torch.no_grad()
def check_packed(model: GPT, ids_BT: Tensor, full_BTV: Tensor) -> None:
    documents_BT = torch.tensor([[0] * 3 + [1] * (CONTEXT - 3)] * 2)
    parts = [logits(model, part) for part in ids_BT.split([3, CONTEXT - 3], dim=1)]
    assert_same(logits(model, ids_BT, documents_BT=documents_BT), torch.cat(parts, dim=1), "documents in one row")


@torch.no_grad()
def check_parts(model: GPT, ids_BT: Tensor, full_BTV: Tensor) -> None:
    assert_same(logits(model, ids_BT, last_only=True)[:, -1], full_BTV[:, -1], "the last token only")
    x_BTE, context = model.hidden(ids_BT)
    assert_same(model.head(x_BTE, context), full_BTV, "vectors and head")
    assert_same(torch.cat([logits(model, row[None]) for row in ids_BT]), full_BTV, "row by row")
    others = torch.cat((ids_BT[:, :5], (ids_BT[:, 5:] + 1) % V), dim=1)
    assert_same(logits(model, others)[:, :5], full_BTV[:, :5], "before other tokens")


def check_recomputed(model: GPT, ids_BT: Tensor, full_BTV: Tensor) -> None:
    (loss, gradients), (again, recomputed) = steps(model, ids_BT)
    assert_same(again, loss, "the loss with recomputed blocks")
    for (name, _), expected, actual in zip(model.named_parameters(), gradients, recomputed, strict=True):
        assert (actual is None) == (expected is None), name
        if actual is not None and expected is not None:
            assert_same(actual, expected, f"the gradient of {name} with recomputed blocks")


def check_trained_in_bf16(model: GPT, ids_BT: Tensor, full_BTV: Tensor) -> None:
    """Runs through forward and backward with weights in fp32; rounding may change routes and choices of keys."""
    single = copy.deepcopy(model).float().train()
    with torch.autocast("cpu", torch.bfloat16):
        loss = single(ids_BT, ids_BT.roll(-1, 1)).loss
    assert loss is not None
    assert loss.dtype == torch.float32
    assert loss.isfinite() or float(full_BTV.abs().max()) > 1e3  # unbounded without norms
    loss.backward()


def steps(model: GPT, ids_BT: Tensor) -> Iterator[tuple[Tensor, list[Tensor | None]]]:
    """Yield the loss and the gradients of a training step, without and with recomputed blocks."""
    for mode in ("none", "blocks"):
        model.train().zero_grad()
        model.recompute = mode  # type: ignore[assignment]
        torch.manual_seed(0)
        loss = model(ids_BT, ids_BT.roll(-1, 1)).loss
        assert loss is not None
        loss.backward()
        yield loss.detach(), [None if parameter.grad is None else parameter.grad.clone() for parameter in model.parameters()]
    model.recompute = "none"
    model.eval().zero_grad()


Check = Callable[[GPT, Tensor, Tensor], None]
CALLS: dict[str, Check] = {
    "decoding": check_decoding,
    "static": check_static,
    "truncated": check_truncated,
    "padded": check_padded,
    "packed": check_packed,
    "parts": check_parts,
    "recomputed": check_recomputed,
    "trained in bf16": check_trained_in_bf16,
}
WITH_CACHE = (check_decoding, check_static, check_truncated, check_padded, check_packed)
