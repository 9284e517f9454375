"""Embedding `smear` against its formula, and its decoding state."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import gptkit
from gptkit.nn.forward import Forward

V = 31
SPEC = {"d_model": 16, "n_layers": 2, "context_length": 32, "attention": {"name": "multi-head", "n_heads": 2}}


def make(**fields: Any) -> gptkit.GPT:
    model = gptkit.GPT({**SPEC, "embedding": {"name": "smear", "factor": 0.7, **fields}}, V).double().eval()
    with torch.no_grad():
        generator = torch.Generator().manual_seed(1)
        for parameter in (model.embedding.table_VE, model.embedding.gate.weight):
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model


def naive(model: gptkit.GPT, ids: list[int]) -> torch.Tensor:
    """The vectors of one document."""
    module: Any = model.embedding
    table, weight = module.table_VE, module.gate.weight[0]
    vectors = []
    for t, token in enumerate(ids):
        x = table[token]
        if t > 0:
            x = x + module.factor[0] / (1 + torch.exp(-(weight @ x[: len(weight)]))) * table[ids[t - 1]]
        vectors.append(x)
    return torch.stack(vectors)


@torch.no_grad()
@pytest.mark.parametrize("gate_features", [3, 12, 100])
def test_vectors_equal_their_formula(gate_features: int) -> None:
    model = make(gate_features=gate_features)
    ids = torch.randint(V, (2, 9), generator=torch.Generator().manual_seed(0))
    rows = ids.tolist()
    assert model.embedding.gate.weight.shape == (1, min(gate_features, 16))
    torch.testing.assert_close(model.embedding(ids, Forward(ids)), torch.stack([naive(model, row) for row in rows]))

    documents = torch.tensor([[0] * 4 + [1] * 5, [3] + [0] * 8])
    packed = model.embedding(ids, Forward(ids, documents_BT=documents))
    torch.testing.assert_close(packed[0], torch.cat((naive(model, rows[0][:4]), naive(model, rows[0][4:]))))
    torch.testing.assert_close(packed[1], torch.cat((naive(model, rows[1][:1]), naive(model, rows[1][1:]))))

    padded = model.embedding(ids, Forward(ids, left_padding_B=torch.tensor([0, 3])))
    torch.testing.assert_close(padded[0], naive(model, rows[0]))
    torch.testing.assert_close(padded[1, 3:], naive(model, rows[1][3:]))


@torch.no_grad()
def test_default_equals_the_inner_embedding() -> None:
    model = gptkit.GPT({**SPEC, "embedding": {"name": "smear", "embedding": {"name": "token", "scale": 3.0}}}, V).eval()
    plain = gptkit.GPT({**SPEC, "embedding": {"name": "token", "scale": 3.0}}, V).eval()
    state = {name.replace("embedding.embedding.", "embedding."): value for name, value in model.state_dict().items()}
    plain.load_state_dict({name: state[name] for name in plain.state_dict()})
    ids = torch.randint(V, (2, 9), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model(ids).logits, plain(ids).logits)


@torch.no_grad()
@pytest.mark.parametrize("static", [False, True])
def test_state_continues_rolls_back_and_reorders(static: bool) -> None:
    model = make()
    ids = torch.randint(V, (3, 14), generator=torch.Generator().manual_seed(0))
    padding = torch.tensor([0, 2, 7])
    full = model(ids, left_padding_B=padding).logits
    cache = model.new_cache(3, capacity=20, left_padding_B=padding, static=static)
    model(ids[:, :5], cache=cache)  # of the last row, padding only
    step = model(ids[:, 5:8], cache=cache).logits
    torch.testing.assert_close(step[:2], full[:2, 5:8])
    cache.mark()
    model(ids[:, :3], cache=cache)
    cache.truncate(8)
    for at in range(8, 12):
        torch.testing.assert_close(model(ids[:, at : at + 1], cache=cache).logits[:, 0], full[:, at])
    if not static:
        cache.reorder([2, 0])
        torch.testing.assert_close(model(ids[[2, 0], 12:13], cache=cache).logits[:, 0], full[[2, 0], 12])


@torch.no_grad()
def test_rows_join_a_batch() -> None:
    model = make()
    ids = torch.randint(V, (2, 10), generator=torch.Generator().manual_seed(0))
    caches = [model.new_cache(1, capacity=20) for _ in range(2)]
    model(ids[:1, :8], cache=caches[0])
    model(ids[1:, :5], cache=caches[1])
    caches[0].join(caches[1], capacity=20)
    step = model(torch.stack((ids[0, 8:9], ids[1, 5:6])), cache=caches[0]).logits
    torch.testing.assert_close(step[0, 0], model(ids[:1, :9]).logits[0, -1])
    torch.testing.assert_close(step[1, 0], model(ids[1:, :6]).logits[0, -1])
