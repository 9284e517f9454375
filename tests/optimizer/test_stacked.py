"""Optimizers of weights that are stacked over experts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from gptkit.components.optimizer.adamw import AdamWSpec
from gptkit.components.optimizer.muon import MuonSpec
from gptkit.components.optimizer.sgd import SGDSpec
from gptkit.nn.stacked import StackedLinear


@pytest.mark.parametrize("spec", [AdamWSpec(weight_decay=0.1), SGDSpec(weight_decay=0.1), MuonSpec()], ids=str)
def test_stacked_weights_decay_and_stacked_biases_do_not(spec: Any) -> None:
    layer = StackedLinear(3, 4, 6)
    decay = {id(p): group["weight_decay"] for group in spec.build(layer).param_groups for p in group["params"]}
    assert decay == {id(layer.weight): 0.1, id(layer.bias): 0.0}


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="needs torch 2.9")
@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("scale", ["rms", "spectral"])
@pytest.mark.parametrize("sizes", [(6, 4), (4, 6)], ids=["wide", "tall"])
def test_muon_treats_each_expert_as_a_matrix(sizes: tuple[int, int], scale: Any, nesterov: bool) -> None:
    torch.manual_seed(0)
    stacked = StackedLinear(3, *sizes, bias=False)
    apart = nn.ModuleList(nn.Linear(*sizes, bias=False) for _ in range(3))
    gradients = torch.randn(2, *stacked.weight.shape)
    gradients[0, 1] = 0  # an expert without tokens
    with torch.no_grad():
        for layer, weight in zip(apart, stacked.weight, strict=True):
            layer.weight.copy_(weight)
    spec = MuonSpec(learning_rate=0.1, scale=scale, nesterov=nesterov)
    optimizers = spec.build(stacked), spec.build(apart)
    for gradient in gradients:
        stacked.weight.grad = gradient.clone()
        for layer, one in zip(apart, gradient, strict=True):
            layer.weight.grad = one.clone()
        for optimizer in optimizers:
            optimizer.step()
    wanted = torch.stack([layer.weight for layer in apart])
    # The iterations are in bf16.
    torch.testing.assert_close(stacked.weight, wanted, rtol=0, atol=0.1 * 0.02)
