"""`pooled-sparse`: the choice of blocks by hand, equality with `grouped-query` where all are chosen, decoding, its loss."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from gptkit.core.errors import SpecError
from gptkit.model.gpt import GPT
from tests.support.indexers import assert_only_the_indexer_learns, learned_share
from tests.support.padded_pieces import assert_padded_pieces_equal_one_call

V, T, E, D = 31, 20, 24, 6
GROUPED = {"n_heads": 4, "n_kv_heads": 2, "d_head": D, "qk_norm": "rms"}
INDEXER = {"block_size": 3, "top_blocks": 2, "index_heads": 8}
LAYOUT = {"d_model": E, "n_layers": 2, "context_length": 64}


def make(layout: dict[str, Any] | None = None, **fields: Any) -> GPT:
    attention = {"name": "pooled-sparse", **GROUPED, **INDEXER, **fields}
    model = GPT({**LAYOUT, **(layout or {}), "attention": attention}, V)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model.eval()


def ids(rows: int = 2, length: int = T) -> Tensor:
    return torch.randint(V, (rows, length), generator=torch.Generator().manual_seed(0))


def attended(model: GPT, tokens: Tensor) -> Tensor:
    """Return which keys the first layer attends to, (B, H, T, S)."""
    weights = model(tokens, keep_weights=True).weights
    assert weights is not None
    return weights[0, 0] > 0


@torch.no_grad()
def test_all_blocks_chosen_equals_grouped_query() -> None:
    sparse = make(top_blocks=7)
    dense = GPT({**LAYOUT, "attention": {"name": "grouped-query", **GROUPED}}, V).eval()
    dense.load_state_dict({name: value for name, value in sparse.state_dict().items() if ".indexer." not in name})
    torch.testing.assert_close(sparse(ids()).logits, dense(ids()).logits, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(make(top_blocks=1)(ids()).logits, dense(ids()).logits, atol=1e-3)


def rotated(vector: Tensor, position: int, d_rotary: int) -> Tensor:
    """The first features, rotated in pairs half of them apart."""
    half = d_rotary // 2
    result = vector.clone()
    for i in range(half):
        angle = torch.tensor(position * 10000.0 ** (-2 * i / d_rotary), dtype=torch.float64)
        a, b = vector[i], vector[i + half]
        result[i], result[i + half] = a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()
    return result


@pytest.mark.parametrize(("d_index", "fraction"), [(6, 1.0), (9, 1.0), (5, 0.67), (4, 0.67)])
@torch.no_grad()
def test_blocks_with_the_highest_scores_are_attended_to(d_index: int, fraction: float) -> None:
    position = {"name": "rotary", "fraction": fraction}
    model = make({"position": position}, d_index=d_index).double()
    attention: Any = model.attentions()[0]
    indexer, d_rotary = attention.indexer, int(D * fraction)
    x: list[Tensor] = []
    attention.register_forward_pre_hook(lambda module, inputs: x.append(inputs[0]))
    actual = attended(model, ids(1))
    projected = (x[0][0] @ indexer.qk.weight.T).view(T, 9, d_index)
    queries = [[rotated(each, t, d_rotary) for each in indexer.query_norm(projected[t, :8])] for t in range(T)]
    means = [indexer.key_norm(projected[begin : begin + 3, 8].mean(dim=0)) for begin in range(0, T - 2, 3)]
    keys = [rotated(mean, 3 * block, d_rotary) for block, mean in enumerate(means)]
    for t in range(T):
        n_full = (t + 1) // 3
        scores = [sum(float((q @ key).relu()) for q in queries[t]) for key in keys[:n_full]]
        chosen = sorted(range(n_full), key=lambda b, scores=scores: -scores[b])[:2]  # type: ignore[misc]
        wanted = {s for s in range(t + 1) if s // 3 in chosen or s // 3 >= n_full}
        for head in range(4):
            assert {s for s in range(T) if actual[0, head, t, s]} == wanted, t


@torch.no_grad()
def test_scores_equal_transformers() -> None:
    modeling = pytest.importorskip("transformers.models.qwen4_exp.modeling_qwen4_exp")
    from transformers.models.qwen4_exp import Qwen4ExpTextConfig

    norm = {"name": "rms", "eps": 1e-6, "offset": 1, "cast": "after"}
    model = make({"position": {"name": "rotary", "fraction": 0.67}}, d_index=5, index_norm=norm)
    attention: Any = model.attentions()[0]
    config = Qwen4ExpTextConfig(
        hidden_size=E,
        num_hidden_layers=1,
        layer_types=["indexed_attention"],
        head_dim=D,
        indexer_n_heads=8,
        indexer_kv_heads=1,
        indexer_head_dim=5,
        indexer_budget=6,
        indexer_compress_ratio=3,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": 10000.0,
            "partial_rotary_factor": 0.67,
            "mrope_section": [2, 0, 0],
        },
    )
    reference = modeling.Qwen4ExpTextQSAIndexer(config, 0)
    names = {"index_qk_proj": "qk", "q_layernorm": "query_norm", "k_layernorm": "key_norm"}
    own = dict(attention.indexer.named_parameters())
    reference.load_state_dict({f"{name}.weight": own[f"{each}.weight"] for name, each in names.items()})
    x: list[Tensor] = []
    attention.register_forward_pre_hook(lambda module, inputs: x.append(inputs[0]))
    actual = attended(model, ids())
    embeddings = modeling.Qwen4ExpTextRotaryEmbedding(config)(x[0], torch.arange(T)[None, None].expand(3, 2, -1))
    mask = torch.ones(T, T, dtype=torch.bool).tril()[None, None].expand(2, 1, -1, -1)
    wanted = reference(x[0], embeddings, mask, None) & mask
    assert torch.equal(actual, wanted.expand_as(actual))


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("fields", [{}, {"window": 8}])
def test_pieces_behind_padding_equal_one_call(static: bool, fields: dict[str, Any]) -> None:
    assert_padded_pieces_equal_one_call(make(**fields).double(), ids(), static=static)


@torch.no_grad()
def test_packed_documents_equal_single_ones() -> None:
    model, tokens = make().double(), ids(1)
    packed = model(tokens, documents_BT=torch.tensor([[0] * 7 + [1] * 2 + [2] * 11])).logits
    for begin, end in ((0, 7), (7, 9), (9, T)):
        torch.testing.assert_close(packed[:, begin:end], model(tokens[:, begin:end]).logits, atol=1e-9, rtol=1e-9)


@torch.no_grad()
def test_tokens_before_the_window_change_nothing() -> None:
    model = GPT({**LAYOUT, "n_layers": 1, "attention": {**make(window=5).spec.attention.model_dump()}}, V).double().eval()
    tokens = ids(1)
    changed = torch.cat(((tokens[:, :8] + 1) % V, tokens[:, 8:]), dim=1)
    torch.testing.assert_close(model(tokens).logits[:, 12:], model(changed).logits[:, 12:])


def test_loss_trains_the_indexer_and_nothing_else() -> None:
    assert_only_the_indexer_learns(make(), make(index_loss=0.0), ids())


def test_indexer_learns_the_attention_of_its_layer() -> None:
    assert learned_share(make(top_blocks=5), ids(8)) < 0.6


def test_wrong_sizes_are_refused() -> None:
    dynamic = {"position": {"name": "rotary", "scaling": {"name": "dynamic", "original_context_length": 12}}}
    for layout, fields, message in (
        ({}, {"d_index": 4}, "the 6 features that position 'rotary' rotates"),
        ({}, {"reuse_kv": True}, "remove reuse_kv"),
        ({}, {"relative_width": 2}, "remove relative_width"),
        ({}, {"token_sinks": True}, "remove token_sinks"),
        (dynamic, {}, "depends on the length of the text"),
    ):
        with pytest.raises(SpecError, match=message):
            make(layout, **fields)
