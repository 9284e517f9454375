"""Embedding `bigram` and block `looped` against their formulas; trainings that learn."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import gptkit
from gptkit.nn.forward import Forward

V = 31
SPEC = {"d_model": 16, "n_layers": 2, "context_length": 32, "attention": {"name": "multi-head", "n_heads": 2}}


def make(**parts: Any) -> gptkit.GPT:
    model = gptkit.GPT({**SPEC, **parts}, V).double().eval()
    with torch.no_grad():
        generator = torch.Generator().manual_seed(1)
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model


def ids(rows: int = 2, length: int = 9) -> Tensor:
    return torch.randint(V, (rows, length), generator=torch.Generator().manual_seed(0))


def naive(model: gptkit.GPT, tokens: list[int], rows: int) -> Tensor:
    """The vectors of one document."""
    module: Any = model.embedding
    vectors = []
    for t, token in enumerate(tokens):
        pair = (36313 * token ^ 27191 * tokens[t - 1]) % (rows - 1) if t else rows - 1
        vectors.append(module.table_VE[token] + module.table.weight[pair])
    return torch.stack(vectors)


@torch.no_grad()
@pytest.mark.parametrize("rows", [None, 7])
def test_bigram_equals_its_formula(rows: int | None) -> None:
    model = make(embedding={"name": "bigram", "rows": rows})
    n_rows, (first, second) = rows or 5 * V, ids().tolist()
    wanted = torch.stack((naive(model, first, n_rows), naive(model, second, n_rows)))
    torch.testing.assert_close(model.embedding(ids(), Forward(ids())), wanted)
    documents = torch.tensor([[0] * 4 + [1] * 5, [3] + [0] * 8])
    packed = model.embedding(ids(), Forward(ids(), documents_BT=documents))
    torch.testing.assert_close(packed[0], torch.cat((naive(model, first[:4], n_rows), naive(model, first[4:], n_rows))))
    padded = model.embedding(ids(), Forward(ids(), left_padding_B=torch.tensor([0, 3])))
    torch.testing.assert_close(padded[1, 3:], naive(model, second[3:], n_rows))


@torch.no_grad()
@pytest.mark.parametrize("parts", [{"embedding": "bigram"}, {"block": {"name": "looped", "times": 3, "share": "all"}}])
@pytest.mark.parametrize("static", [False, True])
def test_pieces_equal_one_call(parts: dict[str, Any], static: bool) -> None:
    model = make(**parts)
    full, cache = model(ids()).logits, model.new_cache(2, static=static)
    pieces = [model(piece, cache=cache).logits for piece in ids().split([4, 1, 1, 3], dim=1)]
    torch.testing.assert_close(torch.cat(pieces, 1), full)


@torch.no_grad()
def test_looped_equals_repeated_layers() -> None:
    looped = make(block={"name": "looped", "times": 3})
    plain = gptkit.GPT({**SPEC, "n_layers": 6}, V).double().eval()
    source = looped.state_dict()
    weights = {name: value for name, value in source.items() if not name.startswith("blocks.")}
    for name in plain.state_dict():
        if name.startswith("blocks."):
            _, index, rest = name.split(".", 2)
            weights[name] = source[f"blocks.{int(index) // 3}.block.{rest}"]
    plain.load_state_dict(weights)
    torch.testing.assert_close(looped(ids()).logits, plain(ids()).logits)


def test_shared_loop_has_the_parameters_of_one_block() -> None:
    one = sum(p.numel() for p in gptkit.GPT({**SPEC, "n_layers": 1}, V).parameters())
    shared = gptkit.GPT({**SPEC, "n_layers": 4, "block": {"name": "looped", "share": "all"}}, V)
    assert sum(p.numel() for p in shared.parameters()) == one


@pytest.mark.parametrize(
    ("parts", "adds"), [({"embedding": {"name": "bigram", "rows": 500}}, True), ({"block": {"name": "looped"}}, False)]
)
def test_training_learns_what_follows(parts: dict[str, Any], adds: bool) -> None:
    """The next token is the sum of the last two, modulo 8, or the one before the last."""
    model = gptkit.GPT({**SPEC, **parts}, 8, seed=0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    generator = torch.Generator().manual_seed(0)
    losses = []
    for _ in range(120):
        tokens = torch.randint(8, (32, 9), generator=generator)
        for t in range(2, 9):
            tokens[:, t] = (tokens[:, t - 1] * adds + tokens[:, t - 2]) % 8
        loss = model(tokens[:, :-1], tokens[:, 1:]).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert losses[0] > 1.9
    assert min(losses[-10:]) < 0.7  # the first of eight predictions is a guess, log 8
