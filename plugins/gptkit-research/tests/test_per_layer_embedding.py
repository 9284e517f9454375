"""Block `per-layer-embedding` against its formula."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import gptkit
from gptkit.nn.forward import Forward

V = 31
SPEC = {"d_model": 16, "n_layers": 3, "context_length": 32, "attention": {"name": "multi-head", "n_heads": 2}}


@torch.no_grad()
@pytest.mark.parametrize("norm", [None, {"name": "rms", "eps": 1e-6}])
def test_blocks_equal_their_formula(norm: dict[str, Any] | None) -> None:
    block = {"name": "per-layer-embedding", "d_embedding": 6, "norm": norm, "activation": "silu", "block": "parallel"}
    model = gptkit.GPT({**SPEC, "block": block}, V).double().eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in model.blocks.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
    ids = torch.randint(V, (2, 9), generator=generator)
    x = model.embedding(ids, Forward(ids))
    modules: Any = model.blocks
    for layer in modules:
        x = layer.block(x, Forward(ids))
        result = torch.empty_like(x)
        for row in range(2):
            for t in range(9):
                gate = layer.gate.weight @ x[row, t]
                gate = gate / (1 + torch.exp(-gate))
                added = layer.output.weight @ (gate * layer.table.weight[ids[row, t]] * 6**0.5)
                if layer.norm is not None:
                    added = added / (added.square().mean() + 1e-6).sqrt() * layer.norm.weight
                result[row, t] = x[row, t] + added
        x = result
    torch.testing.assert_close(model(ids).logits, model.head(model.final_norm(x), Forward(ids)), atol=1e-6, rtol=1e-6)


@torch.no_grad()
def test_initial_blocks_equal_the_inner_block() -> None:
    model = gptkit.GPT({**SPEC, "block": "per-layer-embedding"}, V).eval()
    plain = gptkit.GPT({**SPEC, "block": "pre-norm"}, V).eval()
    state = {name.replace(".block.", "."): value for name, value in model.state_dict().items()}
    plain.load_state_dict({name: state[name] for name in plain.state_dict()})
    ids = torch.randint(V, (2, 9), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model(ids).logits, plain(ids).logits)


def test_each_layer_has_a_table() -> None:
    model = gptkit.GPT({**SPEC, "block": {"name": "per-layer-embedding", "d_embedding": 6}}, V)
    tables = [value for name, value in model.named_parameters() if name.endswith("table.weight")]
    assert [tuple(table.shape) for table in tables] == [(V, 16), (V, 6), (V, 6), (V, 6)]
