"""Block `shortcut-experts` against its formula; decoding in pieces, counts and training."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import gptkit
from gptkit.nn.forward import Forward
from tests.support.learning import N_TOKENS, alternating, assert_learns

V, E = 31, 16
EXPERTS = {
    "name": "experts",
    "n_experts": 3,
    "identity_experts": 2,
    "expert": {"name": "gated", "d_hidden": 10},
    "router": {"name": "softmax-top-k", "k": 2, "renormalize": False, "scale": 2.0},
}
SPARSE = {"name": "sparse-latent", "n_heads": 2, "kv_rank": 8, "q_rank": 6, "d_nope": 4, "d_rotary": 4, "d_value": 4}
SPARSE |= {"index_heads": 2, "d_index": 8, "top_k": 3}
PREVIOUS = [{"attention": SPARSE}, {"attention": {**SPARSE, "indexer": "previous"}}]
SPEC = {
    "d_model": E,
    "n_layers": 2,
    "context_length": 32,
    "attention": {"name": "multi-head", "n_heads": 2, "window": 7},
    "feedforward": {"name": "gated", "d_hidden": 24},
}


def make(experts: Any = EXPERTS, **changes: Any) -> gptkit.GPT:
    block = {"name": "shortcut-experts", "experts": experts}
    model = gptkit.GPT({**SPEC, "block": block, **changes}, V).double().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.blocks.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
    return model


def random_ids(rows: int = 2, length: int = 12) -> Tensor:
    return torch.randint(V, (rows, length), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
@pytest.mark.parametrize("experts", [EXPERTS, "mlp"])
def test_block_equals_its_formula(experts: Any) -> None:
    model, ids = make(experts), random_ids()
    block: Any = model.blocks[1]
    x = torch.randn(2, 12, E, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    forward = Forward(ids)
    first = x + block.attention[0](block.attention_norm[0](x), forward)
    h = block.feedforward_norm[0](first)
    second = first + block.feedforward[0](h, forward)
    third = second + block.attention[1](block.attention_norm[1](second), forward)
    expected = third + block.feedforward[1](block.feedforward_norm[1](third), forward) + block.experts(h, forward)
    torch.testing.assert_close(block(x, Forward(ids)), expected)
    names = [name for name, _ in block.named_children()]
    assert names == ["attention_norm", "attention", "feedforward_norm", "feedforward", "experts"]


@torch.no_grad()
@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("changes", [{}, {"attention": SPARSE}, {"layers": PREVIOUS}])
def test_pieces_behind_padding_equal_one_call(changes: dict[str, Any], static: bool) -> None:
    model, ids = make(**changes), random_ids(length=14)
    full, padding = model(ids).logits, torch.tensor([0, 3])
    rows = torch.cat((ids[:1], torch.cat((torch.zeros(1, 3, dtype=torch.long), ids[1:, :11]), dim=1)))
    cache = model.new_cache(2, left_padding_B=padding, static=static)
    cached = torch.cat([model(piece, cache=cache).logits for piece in rows.split([5, 1, 1, 6, 1], dim=1)], dim=1)
    torch.testing.assert_close(cached[0], full[0], atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(cached[1, 3:], full[1, :11], atol=1e-9, rtol=1e-9)


def test_model_has_twice_the_attentions_of_its_layers() -> None:
    model, plain = make(), gptkit.GPT(SPEC, V)
    assert len(model.attentions()) == 2 * len(plain.attentions())
    count = sum(parameter.numel() for parameter in model.blocks.parameters())
    twice = 2 * sum(parameter.numel() for parameter in plain.blocks.parameters())
    experts = 2 * (3 * 3 * 10 * E + 5 * E)
    assert count == twice + experts


@pytest.mark.slow
def test_training_learns_the_token_before_the_last() -> None:
    model = gptkit.GPT({**SPEC, "n_layers": 1, "block": {"name": "shortcut-experts", "experts": EXPERTS}}, N_TOKENS, seed=0)
    assert_learns(model, alternating, steps=120)
