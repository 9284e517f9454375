"""Attention `value-embedding` against its formula."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from research_parts import E, T

import gptkit
from gptkit.nn.forward import Forward

V = 31


def make(n_layers: int = 1, **fields: Any) -> gptkit.GPT:
    attention = {"name": "value-embedding", "n_heads": 4, **fields}
    spec = {"d_model": E, "n_layers": n_layers, "context_length": 32, "position": "none", "attention": attention}
    return gptkit.GPT(spec, V).double().eval()


@torch.no_grad()
@pytest.mark.parametrize("gate_features", [None, 5, 100])
def test_attention_equals_its_formula(gate_features: int | None) -> None:
    attention: Any = (
        make(n_kv_heads=2, gate_features=gate_features, qk_norm={"name": "rms", "eps": 1e-6}).blocks[0].attention
    )
    generator = torch.Generator().manual_seed(0)
    for parameter in attention.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    ids = torch.randint(V, (2, T), generator=generator)
    x = torch.randn(2, T, E, generator=generator, dtype=torch.float64)
    result = attention(x, Forward(ids))

    d = 3
    q, k, v = (x @ attention.qkv.weight.T).split([12, 6, 6], dim=-1)

    def normed(vectors: torch.Tensor, norm: Any) -> torch.Tensor:
        return vectors / (vectors.square().mean(-1, keepdim=True) + 1e-6).sqrt() * norm.weight

    def value(row: int, t: int, g: int) -> torch.Tensor:
        at = slice(g * d, (g + 1) * d)
        gate = 1.0
        if gate_features is not None:
            gate = 2 / (1 + torch.exp(-(attention.gate.weight[g] @ x[row, t, :gate_features])))
        return attention.mix[0] * v[row, t, at] + attention.mix[1] * gate * attention.table.weight[ids[row, t], at]

    for row in range(2):
        heads = []
        for h in range(4):
            g = h // 2
            keys = normed(k[row, :, g * d : (g + 1) * d], attention.key_norm)
            queries = normed(q[row, :, h * d : (h + 1) * d], attention.query_norm)
            values = torch.stack([value(row, t, g) for t in range(T)])
            weights = [(keys[: t + 1] @ queries[t] / d**0.5).softmax(0) for t in range(T)]
            heads.append(torch.stack([weights[t] @ values[: t + 1] for t in range(T)]))
        expected = torch.cat(heads, dim=-1) @ attention.output.weight.T
        torch.testing.assert_close(result[row], expected)


@torch.no_grad()
def test_model_without_embeddings_initially_equals_grouped_query() -> None:
    model = make(2, n_kv_heads=2, own=1.0, embedding=0.0, gate_features=4)
    spec = {**model.spec.model_dump(mode="json"), "attention": {"name": "grouped-query", "n_heads": 4, "n_kv_heads": 2}}
    plain = gptkit.GPT(spec, V).double().eval()
    state = model.state_dict()
    assert set(state) - set(plain.state_dict()) == {
        f"blocks.{layer}.attention.{name}" for layer in range(2) for name in ("mix", "table.weight", "gate.weight")
    }
    plain.load_state_dict({name: state[name] for name in plain.state_dict()})
    ids = torch.randint(V, (2, T), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model(ids).logits, plain(ids).logits)


def test_layers_that_name_a_table_share_it() -> None:
    names = ("a", None, "b", "a", None)
    layers = [{"attention": {"name": "value-embedding", "n_heads": 2, "table": name}} for name in names]
    model = gptkit.GPT({"d_model": E, "context_length": 32, "layers": layers}, V)
    blocks: Any = model.blocks
    first, own, second, again, other = (block.attention.table for block in blocks)
    assert first is again
    assert len({id(table) for table in (first, own, second, other)}) == 4
    tables = [name for name, _ in model.named_parameters() if name.endswith("table.weight") or name.startswith("shared")]
    assert tables == [
        "embedding.table.weight",
        "blocks.1.attention.table.weight",
        "blocks.4.attention.table.weight",
        "shared.value-embedding.weight",
        "shared.value-embedding-2.weight",
    ]


def test_factors_are_initialized_and_may_be_fixed() -> None:
    assert make().blocks[0].attention.mix.tolist() == [0.5, 0.5]
    assert make(own=0.25, embedding=2.0).blocks[0].attention.mix.tolist() == [0.25, 2.0]
    nanochat: Any = make(own=1.0, embedding=1.0, learned=False, gate_features=4).blocks[0].attention
    assert nanochat.mix is None
    assert nanochat.factors == [1.0, 1.0]
    assert nanochat.gate.weight.abs().sum() == 0
