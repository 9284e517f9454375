"""Padding at the end of packed rows counts for no auxiliary loss and no load of experts."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from gptkit.core.registry import default_registry
from gptkit.model.gpt import GPT

V, REAL, PADDING = 23, 13, 8
BASE: dict[str, Any] = {"d_model": 16, "n_layers": 2, "context_length": 32}
LOSSES = {"balance_loss": 0.5, "z_loss": 0.5}
ROUTERS: dict[str, dict[str, Any]] = {
    "sigmoid": {**LOSSES, "bias_rate": 0.1, "always": 1},
    "softmax-top-k": {**LOSSES, "bias_rate": 0.1},
    "sqrt-softplus": {**LOSSES, "bias_rate": 0.1},
    "network": {**LOSSES, "bias_rate": 0.1},
    "top-k-softmax": LOSSES,
    "hash": {"z_loss": 0.5},
}


def example(attention: str) -> dict[str, Any]:
    """Return the first example of an attention that has an indexer."""
    cls = default_registry().component("attention", attention)
    chosen = [fields for fields in cls.examples if attention != "compressed" or fields.get("index_heads")]
    return {"name": attention, **chosen[0]}


SPECS: dict[str, dict[str, Any]] = {
    **{
        name: {"feedforward": {"name": "experts", "n_experts": 4, "router": {"name": name, **fields}}}
        for name, fields in ROUTERS.items()
    },
    "expert-heads": {"attention": {"name": "expert-heads", "router": {"name": "sigmoid", **LOSSES, "bias_rate": 0.1}}},
    **{name: {"attention": example(name)} for name in ("block-sparse", "sparse-latent", "pooled-sparse", "compressed")},
}


def losses(spec: dict[str, Any], padding: int) -> tuple[dict[str, torch.Tensor], list[torch.Tensor]]:
    """Return the losses of a model in training, and the loads of its routers, for two rows with some padding."""
    model = GPT({**BASE, **spec}, V, seed=0).double().train()
    with torch.no_grad():
        for seed, parameter in enumerate(model.parameters()):
            generator = torch.Generator().manual_seed(seed)
            parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.3)
    generator = torch.Generator().manual_seed(0)
    ids_BT, targets_BT = torch.randint(1, V, (2, 2, REAL), generator=generator)
    documents_BT = torch.tensor([[0] * 5 + [1] * (REAL - 5), [0] * REAL])
    ids_BT = torch.cat((ids_BT, torch.zeros(2, padding, dtype=torch.long)), dim=1)
    targets_BT = torch.cat((targets_BT, torch.full((2, padding), -100)), dim=1)
    documents_BT = torch.cat((documents_BT, torch.full((2, padding), -1)), dim=1)
    output = model(ids_BT, targets_BT, documents_BT=documents_BT)
    assert output.loss is not None
    loads = [buffer for name, buffer in model.named_buffers() if name.endswith("load_X")]
    return {"loss": output.loss, **output.losses}, loads


@pytest.mark.parametrize("name", list(SPECS))
def test_losses_and_loads_equal_those_without_padding(name: str) -> None:
    (expected, expected_loads), (actual, loads) = losses(SPECS[name], 0), losses(SPECS[name], PADDING)
    assert set(actual) == set(expected) > {"loss"}
    for key, value in expected.items():
        torch.testing.assert_close(actual[key], value, rtol=1e-6, atol=1e-8, msg=lambda text, key=key: f"{key}: {text}")
    assert len(loads) == len(expected_loads)
    assert all(torch.equal(mine, other) for mine, other in zip(loads, expected_loads, strict=True))
