"""Block `input-residual` against its formula."""

from __future__ import annotations

from typing import Any

import torch

import gptkit
from gptkit.nn.forward import Forward

V = 31
SPEC = {
    "d_model": 16,
    "n_layers": 3,
    "context_length": 32,
    "attention": {"name": "multi-head", "n_heads": 2},
    "block": {"name": "input-residual", "own": 0.9, "first": 0.2},
}


@torch.no_grad()
def test_blocks_equal_their_formula() -> None:
    model = gptkit.GPT(SPEC, V, seed=0).double().eval()
    blocks: Any = model.blocks
    for block in blocks:
        torch.testing.assert_close(block.mix, torch.tensor([0.9, 0.2]).double())
    ids = torch.randint(V, (2, 9), generator=torch.Generator().manual_seed(0))
    for index, block in enumerate(blocks):
        block.mix.copy_(torch.tensor([0.7 + index, 0.5 - index]))
    x = first = model.embedding(ids, Forward(ids))
    for index, block in enumerate(blocks):
        x = (0.7 + index) * x + (0.5 - index) * first
        x = x + block.attention(block.attention_norm(x), Forward(ids))
        x = x + block.feedforward(block.feedforward_norm(x), Forward(ids))
    torch.testing.assert_close(model(ids).logits, model.head(model.final_norm(x), Forward(ids)), atol=1e-6, rtol=1e-6)


@torch.no_grad()
def test_default_factors_equal_a_pre_norm_block() -> None:
    model = gptkit.GPT({**SPEC, "block": "input-residual"}, V, seed=0).eval()
    plain = gptkit.GPT({**SPEC, "block": "pre-norm"}, V, seed=0).eval()
    plain.load_state_dict({name: value for name, value in model.state_dict().items() if not name.endswith(".mix")})
    ids = torch.randint(V, (2, 9), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model(ids).logits, plain(ids).logits)
