"""`sparse-latent`: the choice of keys by hand, equality with `latent` where all are chosen, decoding, and its loss."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from gptkit.core.errors import SpecError
from gptkit.files import validate_data
from gptkit.model.gpt import GPT
from gptkit.model.spec import ModelSpec
from gptkit.nn.forward import Forward
from tests.support.indexers import assert_only_the_indexer_learns, learned_share

V, T = 31, 20
LATENT = {"n_heads": 3, "kv_rank": 10, "q_rank": 9, "d_nope": 6, "d_rotary": 4, "d_value": 5}
INDEXER = {"top_k": 4, "index_heads": 2, "d_index": 6}
BOTH = {"query_latents": "both", "output_gate": True, "gate_input": "queries"}
LAYOUT = {"d_model": 24, "n_layers": 2, "context_length": 64}


def make(layers: Any = None, **fields: Any) -> GPT:
    spec = {**LAYOUT, "attention": {"name": "sparse-latent", **LATENT, **INDEXER, **fields}}
    model = GPT({**spec, **({"layers": layers} if layers else {})}, V)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model.eval()


def ids(rows: int = 2, length: int = T) -> Tensor:
    return torch.randint(V, (rows, length), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_all_keys_chosen_equals_latent() -> None:
    sparse = make(top_k=T)
    dense = GPT({**LAYOUT, "attention": {"name": "latent", **LATENT}}, V).eval()
    dense.load_state_dict({name: value for name, value in sparse.state_dict().items() if ".indexer." not in name})
    torch.testing.assert_close(sparse(ids()).logits, dense(ids()).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layout", ["same", "half", "interleaved"])
@torch.no_grad()
def test_keys_with_the_highest_scores_are_attended_to(layout: str) -> None:
    model = make(index_layout=layout).double()
    attention: Any = model.attentions()[0]
    indexer = attention.indexer
    x = torch.randn(1, T, 24, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    c = attention.q_latent_norm(attention.q_down(x))
    frequencies = 10000.0 ** (-torch.arange(0, 4, 2, dtype=torch.float64) / 4)

    def turned(vector: Tensor, position: int) -> Tensor:
        pairs = ((0, 1), (2, 3)) if layout == "interleaved" else ((0, 2), (1, 3))
        result = vector.clone()
        for (a, b), frequency in zip(pairs, frequencies, strict=True):
            cos, sin = torch.cos(position * frequency), torch.sin(position * frequency)
            result[a], result[b] = vector[a] * cos - vector[b] * sin, vector[b] * cos + vector[a] * sin
        return result

    keys = [turned(indexer.key_norm(indexer.key.weight @ x[0, s]), s) for s in range(T)]
    forward = Forward(torch.zeros(1, T, dtype=torch.long))
    actual = attention.select(x, c, attention.more_keys(x, forward), T, forward, 0)
    for t in range(T):
        queries = (indexer.query.weight @ c[0, t]).view(2, 6)
        w = indexer.weights.weight @ x[0, t]
        scores = torch.stack(
            [sum(w[j] * (turned(queries[j], t) @ keys[s] / 6**0.5).relu() for j in range(2)) / 2**0.5 for s in range(t + 1)]
        )
        chosen = set(scores.sort(descending=True, stable=True).indices[:4].tolist())
        assert {s for s in range(t + 1) if actual.added[0, 0, t, s] == 0} == chosen
        torch.testing.assert_close(actual.scores[0, t, sorted(chosen)], scores[sorted(chosen)], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scaled", [False, True])
@torch.no_grad()
def test_queries_and_gates_of_both_latents_equal_the_formula(scaled: bool) -> None:
    model = make(top_k=T, scale_latents=scaled, **BOTH).double()
    attention: Any = model.attentions()[0]
    x = torch.randn(1, T, 24, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    forward = Forward(torch.zeros(1, T, dtype=torch.long))
    raw = x[0] @ attention.q_down.weight.T
    factors = [(24 / rank) ** 0.5 if scaled else 1.0 for rank in (9, 10)]
    latents = torch.cat((attention.q_latent_norm(raw) * factors[0], raw), dim=-1)
    heads = (latents @ attention.q_up.weight.T).view(T, 3, 6 + 4 + 5).transpose(0, 1)
    q_nope, q_rotary, gate = heads.split([6, 4, 5], dim=-1)
    down = x[0] @ attention.kv_down.weight.T
    c = attention.kv_latent_norm(down[:, :10]) * factors[1]
    k, v = (c @ attention.kv_up.weight.T).view(T, 3, 11).transpose(0, 1).split([6, 5], dim=-1)
    q_rotary, k_rotary = attention.rotate(q_rotary[None], down[None, None, :, 10:], forward)
    scores = (q_nope @ k.transpose(1, 2) + q_rotary[0] @ k_rotary[0].transpose(1, 2)) / 10**0.5
    weights = scores.masked_fill(torch.ones(T, T).triu(1).bool(), -torch.inf).softmax(dim=-1)
    y = ((weights @ v) * gate.sigmoid()).transpose(0, 1).flatten(1) @ attention.output.weight.T
    torch.testing.assert_close(attention(x, forward)[0], y, rtol=1e-6, atol=1e-9)


@torch.no_grad()
def test_fields_of_absent_latents_and_gates_have_no_effect() -> None:
    plain = {name: value.shape for name, value in make(q_rank=None).state_dict().items()}
    assert plain == {name: value.shape for name, value in make(q_rank=None, query_latents="both").state_dict().items()}
    assert plain == {name: value.shape for name, value in make(q_rank=None, gate_input="queries").state_dict().items()}


@torch.no_grad()
def test_pieces_equal_one_call_with_and_without_own_indexers() -> None:
    model = make([{"attention": BOTH}, {"attention": {"indexer": "previous"}}]).double()
    assert [attention.indexer is None for attention in model.attentions()] == [False, True]
    full = model(ids()).logits
    cache, at = model.new_cache(2), 0
    for piece in (1, 2, 9, 1, 1, 6):
        step = model(ids()[:, at : at + piece], cache=cache).logits
        torch.testing.assert_close(step, full[:, at : at + piece], atol=1e-9, rtol=1e-9)
        at += piece
    assert at == T


def test_loss_trains_the_indexer_and_nothing_else() -> None:
    assert_only_the_indexer_learns(make(), make(index_loss=0.0), ids())


def test_indexer_learns_the_attention_of_its_layer() -> None:
    assert learned_share(make(top_k=8), ids(8)) < 0.5


@pytest.mark.slow
@pytest.mark.parametrize("parts", [{}, {"norm": "gated", "attention": BOTH}], ids=["plain", "gated"])
def test_training_learns_to_copy_a_chosen_token(parts: dict[str, Any]) -> None:
    """The second token is repeated at the end: of many keys, few may be attended to."""
    attention = {"name": "sparse-latent", **LATENT, **INDEXER, **parts.get("attention", {})}
    model = GPT({**LAYOUT, **parts, "attention": attention}, 9, seed=0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    generator = torch.Generator().manual_seed(0)
    losses = []
    for _ in range(120):
        tokens = torch.zeros(16, 13, dtype=torch.long)
        tokens[:, [1, 12]] = torch.randint(1, 9, (16, 1), generator=generator)
        targets = torch.full((16, 12), -100)
        targets[:, 11] = tokens[:, 12]
        result = model(tokens[:, :-1], targets)
        optimizer.zero_grad()
        result.loss.backward()
        optimizer.step()
        losses.append(result.loss.item())
    assert losses[0] > 2
    assert sum(losses[-5:]) / 5 < 0.7


@pytest.mark.parametrize(
    ("fields", "says"),
    [({"d_index": 2}, "at least d_rotary"), ({"indexer": "previous"}, "first layer")],
)
def test_invalid_fields_are_rejected(fields: dict[str, Any], says: str) -> None:
    attention = {"name": "sparse-latent", **LATENT, **INDEXER, **fields}
    with pytest.raises(SpecError, match=says):
        validate_data({**LAYOUT, "attention": attention}, ModelSpec)


def test_choice_without_an_earlier_indexer_is_rejected() -> None:
    with pytest.raises(SpecError, match=r"layers\.1\.attention\.indexer: no earlier layer has an indexer; set indexer: own"):
        make([{"attention": {"name": "multi-head"}}, {"attention": {"indexer": "previous"}}])
    hybrid = {"name": "hybrid", "attention": {"name": "sparse-latent", **LATENT, **INDEXER, "indexer": "previous"}}
    with pytest.raises(SpecError, match=r"attention\.attention\.indexer: no earlier layer"):
        validate_data({**LAYOUT, "attention": "multi-head", "layers": [{}, {"attention": hybrid}]}, ModelSpec)


def test_blocks_of_a_head_need_an_earlier_indexer() -> None:
    changes = {"head": "multi-token", "attention": {"name": "sparse-latent", **LATENT, **INDEXER, "indexer": "previous"}}
    with pytest.raises(SpecError, match=r"attention\.indexer: no earlier layer has an indexer"):
        validate_data({**LAYOUT, **changes, "layers": [{"attention": "multi-head"}]}, ModelSpec)
    validate_data({**LAYOUT, **changes, "layers": [{"attention": {"indexer": "own"}}, {}]}, ModelSpec)
