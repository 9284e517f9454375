"""Positions against naive forms of their formulas: loops over heads, queries and keys."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from research_parts import E, T, inputs, position

import gptkit


@torch.no_grad()
def test_cope_equals_its_formula() -> None:
    module = position({"name": "cope", "n_positions": 4}, 2, 5)
    q, k = inputs(1, 2, 3, 5, seed=1), inputs(1, 2, T, 5, seed=2)  # the last three tokens of nine
    result = module.content_bias(q, k, torch.arange(6, T), torch.arange(T))
    e = module.table.weight
    for h in range(2):
        for t in range(3):
            for s in range(6 + t + 1):
                counted = sum(torch.sigmoid(q[0, h, t] @ k[0, h, between]) for between in range(s, 6 + t + 1))
                p = min(float(counted), 3.0)
                low, high = math.floor(p), math.ceil(p)
                vector = (1 - (p - low)) * e[low] + (p - low) * e[high]
                torch.testing.assert_close(result[0, h, t, s], q[0, h, t] @ vector)


@torch.no_grad()
def test_fire_equals_its_formula() -> None:
    module = position({"name": "fire", "threshold": 5, "width": 7}, 3, 4)
    result = module.bias(torch.arange(T), torch.arange(T))
    c, threshold = abs(float(module.c)), abs(float(module.stretch)) * 5
    assert 1 < threshold < T - 1, "both sides of the threshold are to be tested"
    for t in range(T):
        for s in range(t + 1):
            share = math.log(c * (t - s) + 1) / (math.log(c * max(t, threshold) + 1) + 1e-6)
            hidden = F.relu(module.inner.weight[:, 0] * share + module.inner.bias)
            torch.testing.assert_close(result[0, :, t, s], module.outer.weight @ hidden + module.outer.bias)


@torch.no_grad()
def test_kerple_equals_its_formula() -> None:
    for form in ("log", "power"):
        module = position({"name": "kerple", "form": form}, 3, 4)
        result = module.bias(torch.arange(T), torch.arange(T))
        for h in range(3):
            r1 = math.exp(float(module.r1[h]))
            for t in range(T):
                for s in range(t + 1):
                    if form == "log":
                        expected = -r1 * math.log(1 + math.exp(float(module.r2[h])) * (t - s))
                    else:
                        expected = -r1 * (t - s) ** (2 / (1 + math.exp(-float(module.r2[h]))))
                    torch.testing.assert_close(float(result[0, h, t, s]), expected)


def test_initial_parameters_of_kerple_are_those_of_the_paper() -> None:
    for form, top in (("log", 1.0), ("power", 1.0)):
        model = gptkit.GPT({"d_model": 64, "n_layers": 1, "attention": {"name": "multi-head", "n_heads": 32},
                            "position": {"name": "kerple", "form": form}}, 10)  # fmt: skip
        result = model.blocks[0].attention.position
        r2 = result.r2.exp() if form == "log" else 2 * result.r2.sigmoid()
        assert 0 < r2.min() < 0.3 < 0.7 < r2.max() <= top
        assert 0 < result.r1.exp().min() < 0.6 < 1.4 < result.r1.exp().max() <= 2


@torch.no_grad()
def test_pope_equals_its_formula() -> None:
    module = position({"name": "pope", "base": 100.0}, 2, 3)
    q, k = inputs(1, 2, T, 3, seed=1), inputs(1, 2, T, 3, seed=2)
    q_wide, k_wide = module.rotate(q, k, module.prepare(torch.arange(T)))
    assert q_wide.shape == k_wide.shape == (1, 2, T, 6)
    for h in range(2):
        for t in range(T):
            for s in range(T):
                score = 0.0
                for c in range(3):
                    delta = min(max(float(module.delta[h, c]), -2 * math.pi), 0.0)
                    lengths = math.log1p(math.exp(q[0, h, t, c])) * math.log1p(math.exp(k[0, h, s, c]))
                    score += lengths * math.cos((s - t) * 100.0 ** (-c / 3) + delta)
                assert math.isclose(float(q_wide[0, h, t] @ k_wide[0, h, s]), score, rel_tol=1e-5, abs_tol=1e-6)


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:.*flex_attention called without torch.compile")
@pytest.mark.parametrize(
    "fields",
    [
        {"name": "fire", "threshold": 4, "width": 6},
        {"name": "fire", "shared": True},
        {"name": "kerple"},
        {"name": "kerple", "form": "power"},
    ],
)
def test_score_functions_equal_the_bias(fields: dict[str, Any]) -> None:
    parts = {"d_model": E, "n_layers": 2, "attention": {"name": "multi-head", "n_heads": 2}, "position": fields}
    ids = torch.randint(20, (2, T), generator=torch.Generator().manual_seed(0))
    models = []
    for backend in ("flex", "eager"):
        model = gptkit.GPT({**parts, "attention_backend": backend, "initializer": "xavier"}, 20).eval()
        assert model.blocks[0].attention.backend_name == backend
        models.append(model)
    for call in ({}, {"left_padding_B": torch.tensor([0, 2])}, {"documents_BT": torch.tensor([[0] * 4 + [1] * 5, [0] * 9])}):
        flex, eager = (model(ids, **call).logits[:, 2:] for model in models)
        torch.testing.assert_close(flex, eager, atol=3e-5, rtol=3e-5)
