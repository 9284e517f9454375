"""Attentions that share keys and values: with an earlier layer (`reuse_kv`), or with each other (`tie_kv`); and `v_norm`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from gptkit.core.errors import SpecError
from gptkit.model.gpt import GPT
from gptkit.nn.forward import Forward

V, E, H, K, D = 31, 24, 4, 2, 6
HEADS = {"name": "grouped-query", "n_heads": H, "n_kv_heads": K, "d_head": D}
SPEC = {"d_model": E, "context_length": 64, "feedforward": {"name": "gated", "d_hidden": 8}, "position": "rotary"}
RMS = {"name": "rms", "eps": 1e-6}
REUSE = {"attention": {"reuse_kv": True}}


def make(layers: list[dict[str, Any]], **changes: Any) -> GPT:
    fields = {"attention": HEADS, "n_layers": len(layers), **changes}
    model = GPT({**SPEC, **fields, "layers": layers}, V).double().eval()
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model


def random_ids(rows: int = 2, length: int = 20) -> Tensor:
    return torch.randint(V, (rows, length), generator=torch.Generator().manual_seed(0))


def attended(q: Tensor, k: Tensor, v: Tensor, window: int | None = None) -> Tensor:
    """Return the heads' outputs, (T, H · D), for queries (T, H, D), and keys and values (T, K, D) of one text."""
    n_tokens = q.shape[0]
    result = torch.zeros(n_tokens, H, D, dtype=q.dtype)
    for t in range(n_tokens):
        first = 0 if window is None else max(0, t - window + 1)
        for h in range(H):
            g = h // (H // K)
            scores = torch.stack([q[t, h] @ k[s, g] / D**0.5 for s in range(first, t + 1)])
            result[t, h] = scores.softmax(0) @ v[first : t + 1, g]
    return result.flatten(1)


def normed(x: Tensor, norm: Any) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * norm.weight


@torch.no_grad()
def test_layers_attend_to_the_keys_and_values_of_the_first() -> None:
    model = make([{}, REUSE, REUSE], position="none", attention={**HEADS, "qk_norm": RMS, "v_norm": RMS})
    ids = random_ids(1)
    x, blocks = model.embedding(ids, Forward(ids)), list(model.blocks)
    kv: list[Tensor] = []
    for index, layer in enumerate(blocks):
        block: Any = layer
        attention = block.attention
        h = block.attention_norm(x)[0]
        if index == 0:
            q, k, v = (h @ attention.qkv.weight.T).split([H * D, K * D, K * D], dim=-1)
            kv = [normed(k.view(-1, K, D), attention.k_norm), normed(v.view(-1, K, D), attention.v_norm)]
        else:
            q = h @ attention.query.weight.T
        q = normed(q.view(-1, H, D), attention.q_norm)
        x = x + attended(q, *kv) @ attention.output.weight.T
        x = x + block.feedforward(block.feedforward_norm(x), Forward(ids))
    torch.testing.assert_close(model(ids).logits, model.head(model.final_norm(x), Forward(ids)), atol=1e-6, rtol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("window", [None, 5])
def test_tied_values_are_the_projected_keys(window: int | None) -> None:
    model = make([{}], position="none", attention={**HEADS, "tie_kv": True, "qk_norm": RMS, "window": window})
    block: Any = model.blocks[0]
    ids = random_ids(1)
    x = model.embedding(ids, Forward(ids))
    h, attention = block.attention_norm(x), block.attention
    q, k = (h[0] @ attention.qk.weight.T).split([H * D, K * D], dim=-1)
    v = k.view(-1, K, D)
    out = attended(normed(q.view(-1, H, D), attention.q_norm), normed(v, attention.k_norm), v, window)
    torch.testing.assert_close(attention(h, Forward(ids))[0], out @ attention.output.weight.T, atol=1e-6, rtol=1e-6)


@torch.no_grad()
def test_rotated_keys_are_shared() -> None:
    """With equal inputs and queries, a layer that reuses keys and values computes what their own layer does."""
    model = make([{}, REUSE])
    first: Any
    second: Any
    first, second = model.attentions()
    second.query.weight.copy_(first.qkv.weight[: H * D])
    second.output.weight.copy_(first.output.weight)
    x, forward = torch.randn(2, 9, E, dtype=torch.float64), Forward(random_ids(2, 9))
    expected = first(x, forward)
    torch.testing.assert_close(second(x, forward), expected)


def sources(model: GPT) -> list[int | None]:
    """Return the layer whose keys and values each layer attends to; None for its own."""
    keys = [(getattr(each, "provided_key", None), getattr(each, "source_key", None)) for each in model.attentions()]
    provided = {key: index for index, (key, _) in enumerate(keys) if key is not None}
    return [None if source is None else provided[source] for _, source in keys]


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([REUSE, REUSE], [None, 0]),
        ([{}, REUSE, {}, REUSE, REUSE], [None, 0, None, 2, 2]),
        (
            [{"attention": {"window": 5}}, {}, {"attention": {"window": 5, "reuse_kv": True}}, REUSE],
            [None, None, 0, 1],
        ),
        ([{}, {"attention": {"n_kv_heads": 1, "reuse_kv": True}}], [None, None]),
        ([{}, {**REUSE, "position": {"name": "rotary", "base": 500}}], [None, None]),
        ([{}, {"attention": {"name": "single-head"}}, REUSE], [None, None, 0]),
    ],
)
def test_the_source_is_the_last_layer_of_the_same_form(layers: list[dict[str, Any]], expected: list[int | None]) -> None:
    model = make(layers)
    assert sources(model) == expected
    parts = [layer.parts(index) for index, layer in enumerate(model.spec.layer_specs())]
    assert [each.attention.kv_source(each.index, parts) for each in parts] == expected


@torch.no_grad()
@pytest.mark.parametrize("window", [None, 4])
def test_pieces_behind_padding_equal_one_call(window: int | None) -> None:
    model = make([{}, REUSE, REUSE], attention={**HEADS, "window": window, "qk_norm": RMS})
    ids, padding = random_ids(), torch.tensor([0, 3])
    full = model(ids).logits
    rows = torch.cat((ids[:1], torch.cat((torch.zeros(1, 3, dtype=torch.long), ids[1:, :17]), dim=1)))
    for static in (False, True):
        cache, at, steps = model.new_cache(2, left_padding_B=padding, static=static), 0, []
        for piece in (7, 1, 1, 4, 1, 1, 5):
            steps.append(model(rows[:, at : at + piece], cache=cache).logits)
            at += piece
        cached = torch.cat(steps, dim=1)
        torch.testing.assert_close(cached[0], full[0], atol=1e-9, rtol=1e-9)
        torch.testing.assert_close(cached[1, 3:], full[1, :17], atol=1e-9, rtol=1e-9)


def test_only_layers_that_compute_keys_and_values_cache_them() -> None:
    shared, own = make([{}, REUSE, {}, REUSE]), make([{}, {}])
    assert shared.new_cache(1).bytes == own.new_cache(1).bytes
    assert [each.state_bytes_per_token(torch.float32) for each in shared.attentions()] == [96.0, 0.0, 96.0, 0.0]


def test_gradients_reach_the_shared_projection_through_all_layers() -> None:
    model = make([{}, REUSE, REUSE]).train()
    block: Any = model.blocks[0]
    gradients = []
    for recompute in ("none", "blocks"):
        model.recompute = recompute  # type: ignore[assignment]
        model.zero_grad()
        loss = model(random_ids(), random_ids().roll(1, 1)).loss
        assert loss is not None
        loss.backward()
        gradients.append(block.attention.qkv.weight.grad.clone())
    torch.testing.assert_close(*gradients)
    alone = make([{}, {}, {}]).train()
    assert sum(parameter.numel() for parameter in model.parameters()) == (
        sum(parameter.numel() for parameter in alone.parameters()) - 2 * 2 * K * D * E
    )


CYCLES = {"name": "hierarchical", "blocks": 1}
AHEAD = {"block": {"name": "per-layer-embedding", "block": CYCLES}}
HYBRID = {"name": "hybrid", "attention": HEADS}


@pytest.mark.parametrize(
    ("changes", "layers", "path"),
    [
        ({"block": CYCLES}, [{}, REUSE], "layers.1.attention.reuse_kv: reads the keys and values of layer 0"),
        ({}, [{"block": CYCLES}, REUSE], "layers.1.attention.reuse_kv: reads the keys and values of layer 0"),
        ({}, [{}, AHEAD, REUSE], "layers.2.attention.reuse_kv: reads the keys and values of layer 1"),
        ({"n_layers": 4}, [REUSE, {"block": CYCLES, "repeat": 2}], "layers.0.attention.reuse_kv: .* of layer 2"),
        ({"block": CYCLES}, [REUSE], "attention.reuse_kv: reads the keys and values of its own layer"),
        (
            {"block": CYCLES, "attention": HYBRID, "position": "none"},
            [{}, {"attention": REUSE}],
            "layers.1.attention.attention.reuse_kv: reads the keys and values of layer 0",
        ),
    ],
)
def test_keys_that_are_computed_several_times_cannot_be_shared(
    changes: dict[str, Any], layers: list[dict[str, Any]], path: str
) -> None:
    with pytest.raises(SpecError, match=path) as caught:
        make(layers, **changes)
    assert len(caught.value.problems) == 1


def test_blocks_of_a_head_cannot_read_keys_that_are_computed_several_times() -> None:
    with pytest.raises(SpecError, match=r"attention\.reuse_kv: reads the keys and values of layer 1"):
        make(
            [{}, {"block": CYCLES, "attention": {"reuse_kv": False}}],
            attention={**HEADS, "reuse_kv": True},
            head="multi-token",
        )


@torch.no_grad()
@pytest.mark.parametrize("block", [CYCLES, {"name": "shortcut-experts", "experts": {"name": "experts", "n_experts": 2}}])
def test_blocks_with_several_attentions_may_read_earlier_keys(block: dict[str, Any]) -> None:
    first = {} if block is CYCLES else {"block": block}
    model, ids = make([first, {"block": block, **REUSE}]), random_ids()
    cache = model.new_cache(2)
    logits = torch.cat([model(part, cache=cache).logits for part in ids.split([7, 1, 12], dim=1)], dim=1)
    torch.testing.assert_close(logits, model(ids).logits)


@pytest.mark.slow
def test_training_learns_to_copy_with_shared_keys() -> None:
    """The second half of a text repeats the first, which the last layers find by keys of the first one."""
    torch.manual_seed(0)
    model = GPT({**SPEC, "n_layers": 3, "d_model": 48, "attention": HEADS, "layers": [{}, REUSE, REUSE]}, V).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(1)
    losses = []
    for _ in range(600):
        half = torch.randint(V, (32, 12), generator=generator)
        ids = torch.cat((half, half), dim=1)
        logits = model(ids).logits[:, 12:-1]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 13:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) / 10 < 0.5 * losses[0]
