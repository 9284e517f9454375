"""Attentions against naive forms of their formulas: loops over heads, queries and keys."""

from __future__ import annotations

import math

import pytest
import torch
from research_parts import E, T, build, forward, inputs, spec
from torch import Tensor, nn

import gptkit


@torch.no_grad()
def test_forgetting_attention_equals_its_formula() -> None:
    (module,) = build(spec(attention={"name": "forgetting", "n_heads": 3}), "attention")
    x, d = inputs(T, E), 4
    q, k, v = (x @ module.qkv.weight.T).split(E, dim=1)
    keep = torch.sigmoid(x @ module.forget.weight.T + module.forget.bias)
    heads = []
    for h in range(3):
        at = slice(h * d, (h + 1) * d)
        rows = []
        for t in range(T):
            scores = []
            for s in range(t + 1):
                kept = math.prod(float(keep[between, h]) for between in range(s + 1, t + 1))
                scores.append(q[t, at] @ k[s, at] / math.sqrt(d) + math.log(kept))
            rows.append(torch.softmax(torch.stack(scores), dim=0) @ v[: t + 1, at])
        heads.append(torch.stack(rows))
    expected = torch.cat(heads, dim=1) @ module.output.weight.T
    torch.testing.assert_close(module(x[None], forward())[0], expected)


def test_gate_bias_of_forgetting_is_initialized() -> None:
    attention = {"name": "forgetting", "n_heads": 2, "gate_bias": 3.0}
    model = gptkit.GPT({"d_model": 16, "n_layers": 1, "attention": attention, "position": "none"}, 10)
    assert model.blocks[0].attention.forget.bias.tolist() == [3.0, 3.0]


@torch.no_grad()
def test_value_residual_equals_its_formula() -> None:
    first, second = build(spec(attention={"name": "value-residual", "n_heads": 2}), "attention", 2)
    shared, x1, x2, d = forward(), inputs(T, E, seed=1), inputs(T, E, seed=2), 6
    assert first.mix is None
    result = [first(x1[None], shared)[0], second(x2[None], shared)[0]]

    def attend(module: nn.Module, x: Tensor, values: Tensor) -> Tensor:
        q, k, _ = (x @ module.qkv.weight.T).split(E, dim=1)
        heads = []
        for h in range(2):
            at = slice(h * d, (h + 1) * d)
            rows = [
                torch.softmax(torch.stack([q[t, at] @ k[s, at] / math.sqrt(d) for s in range(t + 1)]), dim=0)
                @ values[: t + 1, at]
                for t in range(T)
            ]
            heads.append(torch.stack(rows))
        return torch.cat(heads, dim=1) @ module.output.weight.T

    v1, v2 = (x1 @ first.qkv.weight.T)[:, 2 * E :], (x2 @ second.qkv.weight.T)[:, 2 * E :]
    torch.testing.assert_close(result[0], attend(first, x1, v1))
    torch.testing.assert_close(result[1], attend(second, x2, second.mix[0] * v1 + second.mix[1] * v2))


def test_factors_of_value_residual_are_initialized_and_may_be_fixed() -> None:
    attention = {"name": "value-residual", "n_heads": 2, "first": 0.25, "own": 0.75}
    model = gptkit.GPT({"d_model": 16, "n_layers": 3, "attention": attention}, 10)
    assert [None if block.attention.mix is None else block.attention.mix.tolist() for block in model.blocks] == [
        None,
        [0.25, 0.75],
        [0.25, 0.75],
    ]
    fixed = gptkit.GPT({"d_model": 16, "n_layers": 3, "attention": {**attention, "learned": False}}, 10)
    assert not any("mix" in name for name, _ in fixed.named_parameters())


@torch.no_grad()
def test_talking_heads_attention_equals_its_formula() -> None:
    (module,) = build(spec(attention={"name": "talking-heads", "n_heads": 3}), "attention")
    x, d = inputs(T, E), 4
    q, k, v = (part.view(T, 3, d) for part in (x @ module.qkv.weight.T).split(E, dim=1))
    out = torch.zeros(T, 3, d, dtype=torch.float64)
    for t in range(T):
        scores = torch.stack([k[: t + 1, g] @ q[t, g] / 2 for g in range(3)])
        mixed = torch.stack([sum(module.mix_score[h, g] * scores[g] for g in range(3)) for h in range(3)])
        weights = mixed.softmax(dim=-1)
        for h in range(3):
            weight = sum(module.mix_weight[h, g] * weights[g] for g in range(3))
            out[t, h] = weight @ v[: t + 1, h]
    torch.testing.assert_close(module(x[None], forward())[0], out.flatten(1) @ module.output.weight.T)


def test_mixing_heads_is_rejected_by_a_backend_without_scores() -> None:
    with pytest.raises(gptkit.SpecError, match="'sdpa' cannot compute mixing of heads"):
        gptkit.GPT({"d_model": E, "attention": {"name": "talking-heads", "n_heads": 3}, "attention_backend": "sdpa"}, 10)
