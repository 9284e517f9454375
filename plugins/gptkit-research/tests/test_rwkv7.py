"""RWKV-7: attention `rwkv7`, its chunks and block `token-shift` against formulas, token by token."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from gptkit_research.transition_rule import transition_rule, transition_step
from torch import Tensor

import gptkit
from gptkit.core.errors import SpecError
from gptkit.nn.forward import Forward
from gptkit.nn.parameters import parameter_options

V = 31
ATTENTION = {"name": "rwkv7", "n_heads": 3, "d_head": 6, "decay_rank": 5, "rate_rank": 4, "value_rank": 3, "gate_rank": 7}
LAYOUT: dict[str, Any] = {
    "d_model": 16,
    "n_layers": 2,
    "context_length": 160,
    "position": "none",
    "attention": ATTENTION,
    "block": "token-shift",
    "norm": "layer",
    "embedding": {"name": "token", "norm": "layer"},
    "feedforward": {"name": "mlp", "activation": "relu-squared", "bias": False, "d_hidden": 24},
}


def make(**fields: Any) -> gptkit.GPT:
    model = gptkit.GPT({**LAYOUT, **fields}, V, seed=1)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model.double().eval()


def tokens(rows: int, length: int) -> Tensor:
    return torch.randint(V, (rows, length), generator=torch.Generator().manual_seed(0))


def naive_attention(module: Any, x: Tensor, first: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the output for one text (T, E) and the values, by the paper's equations, with the state as (value, key)."""
    heads, size = module.n_heads, module.d_head
    state = [torch.zeros(size, size, dtype=x.dtype) for _ in range(heads)]
    outputs, values = [], []
    for t in range(len(x)):
        before = x[t - 1] if t else torch.zeros_like(x[t])
        r_in, w_in, k_in, v_in, a_in, g_in = (x[t] + (before - x[t]) * mix for mix in module.mix)

        def low_rank(part: Any, vector: Tensor, function: Any = lambda hidden: hidden) -> Tensor:
            up = part.up.weight @ function(part.down.weight @ vector)
            return up if part.up.bias is None else up + part.up.bias

        r, k, v = module.receptance.weight @ r_in, module.key.weight @ k_in, module.value.weight @ v_in
        w = torch.exp(-math.exp(-0.5) / (1 + torch.exp(-low_rank(module.decay, w_in, torch.tanh))))
        a = 1 / (1 + torch.exp(-low_rank(module.rate, a_in)))
        gate = low_rank(module.gate, g_in, torch.sigmoid)
        if first is not None:
            v = v + torch.sigmoid(low_rank(module.value_mix, v_in)) * (first[t] - v)
        values.append(v)
        removed = k * module.removal_scale
        k = k * (1 + (a - 1) * module.key_rate)
        out = []
        for head in range(heads):
            at = slice(head * size, head * size + size)
            unit = removed[at] / removed[at].norm()
            transition = torch.diag(w[at]) - torch.outer(unit, a[at] * unit)
            state[head] = state[head] @ transition + torch.outer(v[at], k[at])
            y = state[head] @ r[at]
            y = (y - y.mean()) / (y.var(unbiased=False) + module.eps).sqrt()
            y = y * module.norm_weight[at] + module.norm_bias[at]
            out.append(y + (r[at] * k[at] * module.bonus[head]).sum() * v[at])
        outputs.append(module.output.weight @ (gate * torch.cat(out)))
    return torch.stack(outputs), torch.stack(values)


def naive(model: gptkit.GPT, ids: Tensor) -> Tensor:
    """Return the logits of one text, token by token."""
    x, first = model.embedding(ids[None], Forward(ids[None]))[0], None
    blocks: Any = model.blocks
    for block in blocks:
        mixed, values = naive_attention(block.attention, block.attention_norm(x), first)
        first = values if first is None else first
        x = x + mixed
        u = block.feedforward_norm(x)
        fed = []
        for t in range(len(u)):
            shifted = u[t] + block.mix * ((u[t - 1] if t else 0) - u[t])
            fed.append(block.feedforward.down.weight @ (block.feedforward.up.weight @ shifted).clamp_min(0).square())
        x = x + torch.stack(fed)
    return model.head.weight @ model.final_norm(x).T


@torch.no_grad()
def test_model_equals_the_paper_token_by_token() -> None:
    model, ids = make(n_layers=3), tokens(2, 70)
    logits = model(ids).logits
    for row in range(2):
        torch.testing.assert_close(logits[row], naive(model, ids[row]).T, atol=1e-9, rtol=1e-9)


@torch.no_grad()
@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_chunks_equal_steps(chunk: int) -> None:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    r, k, v, unit = (
        draw(2, 3, 50, 6),
        draw(2, 3, 50, 6),
        draw(2, 3, 50, 5),
        torch.nn.functional.normalize(draw(2, 3, 50, 6), dim=-1),
    )
    g, rate, state = -0.6065 * draw(2, 3, 50, 6).sigmoid(), draw(2, 3, 50, 6).sigmoid(), draw(2, 3, 6, 5)
    segments = (torch.arange(50) >= torch.tensor([[50], [17]])).long()
    out, after = transition_rule(r, g, k, v, -unit, unit * rate, state, segments_BT=segments, chunk=chunk)
    outs = []
    for t in range(50):
        if t == 17:
            state = state * torch.tensor([1.0, 0.0], dtype=torch.float64)[:, None, None, None]
        step, state = transition_step(*(x[:, :, t] for x in (r, g, k, v, -unit, unit * rate)), state)
        outs.append(step)
    torch.testing.assert_close(out, torch.stack(outs, dim=2))
    torch.testing.assert_close(after, state)


@torch.no_grad()
def test_chunks_are_exact_in_fp32_at_the_strongest_decay() -> None:
    generator = torch.Generator().manual_seed(0)
    r, k, v, unit = (torch.randn(1, 2, 256, 16, generator=generator, dtype=torch.float64) for _ in range(4))
    unit = torch.nn.functional.normalize(unit, dim=-1)
    parts = (r, torch.full_like(r, -math.exp(-0.5)), k, v, -unit, unit * 0.9, r.new_zeros(1, 2, 16, 16))
    wanted, _ = transition_rule(*parts, chunk=1)
    out, _ = transition_rule(*(part.float() for part in parts))
    torch.testing.assert_close(out.double(), wanted, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("static", [False, True])
def test_long_text_in_pieces_equals_one_call(static: bool) -> None:
    model, ids = make(), tokens(2, 150)
    full = model(ids).logits
    cache = model.new_cache(2, static=static)
    before, at = cache.bytes, 0
    for piece in (1, 2, 100, 1, 1, 40, 5):
        step = model(ids[:, at : at + piece], cache=cache).logits
        torch.testing.assert_close(step, full[:, at : at + piece], atol=1e-9, rtol=1e-9)
        at += piece
    # The state does not grow: 2 layers, 2 rows, fp64; the last vectors of attention and block, and a matrix per head.
    assert cache.bytes == before
    if not static:
        assert cache.bytes == 2 * 2 * 8 * (16 + 16 + 3 * 6 * 6)


@torch.no_grad()
def test_left_padding_and_documents() -> None:
    model, ids = make(), tokens(2, 80)
    padded = model(ids, left_padding_B=torch.tensor([0, 13])).logits
    torch.testing.assert_close(padded[1, 13:], model(ids[1:, 13:]).logits[0], atol=1e-9, rtol=1e-9)
    documents = (torch.arange(80) >= torch.tensor([[70], [5]])).long()
    packed = model(ids, documents_BT=documents).logits
    torch.testing.assert_close(packed[0, 70:], model(ids[:1, 70:]).logits[0], atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(packed[1, 5:], model(ids[1:, 5:]).logits[0], atol=1e-9, rtol=1e-9)


def test_initial_values_are_those_of_the_reference() -> None:
    """Values that RWKV-LM computes for two features of a layer, calculated by hand."""
    model = gptkit.GPT({**LAYOUT, "n_layers": 4, "d_model": 32, "attention": {"name": "rwkv7", "d_head": 16}}, V)
    attention: Any = model.attentions()[1]
    block: Any = model.blocks[1]
    remaining = 1 - 1 / 4
    assert attention.mix[0, 8].item() == pytest.approx(1 - (8 / 32) ** (0.2 * remaining))
    assert attention.mix[1, 8].item() == pytest.approx(1 - (8 / 32) ** (0.9 * remaining))
    zigzag = ((20 % 16 - 7.5) / 7.5) * abs((20 % 16 - 7.5) / 7.5)
    slow = -6 + 6 * (20 / 31) ** (1 + (1 / 3) ** 0.3)
    assert attention.decay.up.bias[20].item() == pytest.approx(slow + 0.5 + 2.5 * zigzag, rel=1e-5)
    linear = 20 / 31 - 0.5
    assert attention.rate.up.bias[20].item() == pytest.approx(-0.19 + 0.3 * zigzag + 0.4 * linear, rel=1e-5)
    assert attention.value_mix.up.bias[20].item() == pytest.approx(0.73 - 0.4 * linear, rel=1e-5)
    assert attention.removal_scale[20].item() == pytest.approx(0.71 - 0.1 * linear, rel=1e-5)
    assert attention.norm_weight[0].item() == pytest.approx((2 / 4) ** 0.7)
    assert block.mix[8].item() == pytest.approx(1 - (8 / 32) ** (remaining**4), rel=1e-5)
    assert [attention.decay.down.out_features, attention.gate.down.out_features] == [32, 32]


def test_training_learns_to_repeat_a_distant_token() -> None:
    """A token between fillers is repeated at a fixed distance; only its earlier occurrence determines the target."""
    model = gptkit.GPT({**LAYOUT, "d_model": 32, "attention": {"name": "rwkv7", "d_head": 16}}, 9, seed=0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    generator = torch.Generator().manual_seed(0)
    losses = []
    for _ in range(100):
        ids = torch.zeros(16, 13, dtype=torch.long)
        ids[:, ::6] = torch.randint(1, 9, (16, 1), generator=generator)
        targets = torch.full((16, 12), -100)
        targets[:, 11] = ids[:, 12]
        loss = model(ids[:, :-1], targets).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 2
    assert sum(losses[-5:]) / 5 < 0.5


def test_tables_of_factors_are_not_hidden_matrices() -> None:
    options = parameter_options(gptkit.GPT(LAYOUT, V))
    hidden = {name for name, each in options.items() if name.startswith("blocks.1.attention.") and each.hidden}
    parts = ("decay", "rate", "value_mix", "gate")
    wanted = {f"{part}.{way}.weight" for part in parts for way in ("down", "up")}
    wanted |= {f"{name}.weight" for name in ("receptance", "key", "value", "output")}
    assert hidden == {f"blocks.1.attention.{name}" for name in wanted}


def test_relative_positions_are_rejected() -> None:
    with pytest.raises(SpecError, match="does not accept"):
        gptkit.GPT({**LAYOUT, "position": "rotary"}, V)


@torch.no_grad()
def test_block_without_mixing_equals_pre_norm() -> None:
    parts = {**LAYOUT, "attention": {"name": "multi-head", "n_heads": 2}}
    shifted, plain = gptkit.GPT(parts, V).double(), gptkit.GPT({**parts, "block": "pre-norm"}, V).double()
    state = {name: value.zero_() if name.endswith("mix") else value for name, value in shifted.state_dict().items()}
    plain.load_state_dict({name: state[name] for name in plain.state_dict()})
    torch.testing.assert_close(shifted(tokens(2, 9)).logits, plain(tokens(2, 9)).logits)
