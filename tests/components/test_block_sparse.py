"""`block-sparse`: the choice of blocks by hand, equality with `grouped-query` where all are chosen, decoding, its loss."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from gptkit.core.errors import SpecError
from gptkit.ejection.writing import write_source
from gptkit.model.gpt import GPT
from gptkit.nn.forward import Forward
from tests.support.indexers import assert_only_the_indexer_learns, learned_share

V, T, E, D = 31, 20, 24, 6
GROUPED = {"n_heads": 4, "n_kv_heads": 2, "d_head": D, "qk_norm": "rms"}
INDEXER = {"block_size": 3, "top_blocks": 3, "local_blocks": 1}
LAYOUT = {"d_model": E, "n_layers": 2, "context_length": 64}


def make(**fields: Any) -> GPT:
    model = GPT({**LAYOUT, "attention": {"name": "block-sparse", **GROUPED, **INDEXER, **fields}}, V)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model.eval()


def ids(rows: int = 2, length: int = T) -> Tensor:
    return torch.randint(V, (rows, length), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_all_blocks_chosen_equals_grouped_query() -> None:
    sparse = make(top_blocks=7)
    dense = GPT({**LAYOUT, "attention": {"name": "grouped-query", **GROUPED}}, V).eval()
    dense.load_state_dict({name: value for name, value in sparse.state_dict().items() if ".indexer." not in name})
    torch.testing.assert_close(sparse(ids()).logits, dense(ids()).logits, rtol=1e-5, atol=1e-5)
    changed = make(top_blocks=2)(ids()).logits
    assert not torch.allclose(changed, dense(ids()).logits, atol=1e-3)


def rotated(vector: Tensor, position: int) -> Tensor:
    """The first D features, rotated in pairs half a head apart."""
    half = D // 2
    result = vector.clone()
    for i in range(half):
        angle = torch.tensor(position * 10000.0 ** (-2 * i / D), dtype=torch.float64)
        a, b = vector[i], vector[i + half]
        result[i], result[i + half] = a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()
    return result


@pytest.mark.parametrize("fields", [{}, {"local_blocks": 0, "d_index": 9}, {"local_blocks": 2, "index_heads": 4}])
@torch.no_grad()
def test_blocks_with_the_highest_scores_are_attended_to(fields: dict[str, Any]) -> None:
    model = make(**fields).double()
    attention: Any = model.attentions()[0]
    indexer: Any = attention.indexer
    n_heads, n_local = indexer.n_heads, fields.get("local_blocks", 1)
    x = torch.randn(1, T, E, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    keys = [rotated(indexer.key_norm(indexer.key.weight @ x[0, s]), s) for s in range(T)]
    forward = Forward(torch.zeros(1, T, dtype=torch.long))
    visible = torch.ones(T, T, dtype=torch.bool).tril()[None, None]
    actual = indexer(x, indexer.keys(x, forward), visible, forward, 0).chosen
    for t in range(T):
        queries = indexer.query_norm((indexer.query.weight @ x[0, t]).view(n_heads, -1))
        for j in range(n_heads):
            scores = [float(rotated(queries[j], t) @ keys[s]) for s in range(t + 1)]
            best = {b: max(scores[b * 3 : b * 3 + 3]) for b in range(t // 3 + 1)}
            local = [b for b in range(t // 3, t // 3 - n_local, -1) if b >= 0]
            others = sorted((b for b in best if b not in local), key=lambda b: -best[b])
            chosen = {*local, *others[: max(0, 3 - len(local))]}
            assert {s for s in range(t + 1) if actual[0, j, t, s]} == {s for s in range(t + 1) if s // 3 in chosen}


@torch.no_grad()
def test_heads_attend_to_the_blocks_of_their_index_head() -> None:
    model = make(index_heads=2).double()
    attention: Any = model.attentions()[0]
    weights = model(ids(1), keep_weights=True).weights
    assert weights is not None
    seen: list[Tensor] = []
    attention.indexer.register_forward_hook(lambda module, inputs, output: seen.append(output.chosen))
    model(ids(1))
    chosen = seen[0].repeat_interleave(2, dim=1)
    assert not weights[0, 0][~chosen].any()
    assert (seen[0][:, 0] != seen[0][:, 1]).any()


@pytest.mark.parametrize("static", [False, True])
@torch.no_grad()
def test_pieces_behind_padding_equal_one_call(static: bool) -> None:
    model, tokens = make().double(), ids()
    full, padding = model(tokens).logits, torch.tensor([0, 4])
    rows = torch.cat((tokens[:1], torch.cat((torch.zeros(1, 4, dtype=torch.long), tokens[1:, :-4]), dim=1)))
    cache = model.new_cache(2, left_padding_B=padding, static=static)
    cached = torch.cat([model(piece, cache=cache).logits for piece in rows.split([1, 2, 9, 1, 1, 6], dim=1)], dim=1)
    torch.testing.assert_close(cached[0], full[0], atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(cached[1, 4:], full[1, :-4], atol=1e-9, rtol=1e-9)


@torch.no_grad()
def test_packed_documents_equal_single_ones() -> None:
    model, tokens = make().double(), ids(1)
    packed = model(tokens, documents_BT=torch.tensor([[0] * 7 + [1] * 13])).logits
    for begin, end in ((0, 7), (7, T)):
        torch.testing.assert_close(packed[:, begin:end], model(tokens[:, begin:end]).logits, atol=1e-9, rtol=1e-9)


def test_loss_trains_the_indexer_and_nothing_else() -> None:
    assert_only_the_indexer_learns(make(), make(index_loss=0.0), ids())


def test_indexer_learns_the_attention_of_its_layer() -> None:
    assert learned_share(make(top_blocks=5), ids(8)) < 0.6


@pytest.mark.slow
def test_training_learns_to_copy_a_chosen_token() -> None:
    """The second token is repeated at the end: of many blocks, few may be attended to."""
    model = GPT({**LAYOUT, "attention": {"name": "block-sparse", **GROUPED, **INDEXER, "top_blocks": 4}}, V).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    generator = torch.Generator().manual_seed(0)
    losses = []
    for _ in range(300):
        tokens = torch.randint(8, (32, 19), generator=generator)
        tokens[:, -1] = tokens[:, 1]
        targets = torch.full_like(tokens, -100)
        targets[:, -2] = tokens[:, -1]
        output = model(tokens, targets)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        losses.append((output.loss - output.losses["indexer"]).item())
    assert losses[0] > 1.8
    assert sum(losses[-10:]) / 10 < 0.5


def test_wrong_sizes_are_refused() -> None:
    for fields, message in (
        ({"d_index": 4}, "at least d_head, 6"),
        ({"index_heads": 3}, "a divisor of n_heads, 4"),
        ({"local_blocks": 4}, "at most top_blocks, 3"),
        ({"reuse_kv": True}, "remove reuse_kv"),
    ):
        with pytest.raises(SpecError, match=message):
            make(**fields)


def test_it_is_written_out() -> None:
    text = write_source(make().spec, V, name="blocks", parameters=0)
    assert "class BlockIndexer" in text
