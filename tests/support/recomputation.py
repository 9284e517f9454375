"""Gradients with and without activation checkpointing."""

from __future__ import annotations

from typing import Any

import torch

from gptkit.files import validate_data
from gptkit.model.gpt import GPT
from gptkit.model.spec import ModelSpec
from tests.support.model_parts import REGISTRY
from tests.support.pairs import V, ids


def model(**parts: Any) -> GPT:
    spec = {"d_model": 32, "n_layers": 3, "context_length": 40, "feedforward": {"name": "mlp", "d_hidden": 24}, **parts}
    return moved(GPT(validate_data(spec, ModelSpec, REGISTRY), V))


def moved(built: GPT) -> GPT:
    """Return the model in fp64 with weights that differ from their initial values."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return built.double().train()


def gradients(built: GPT, recompute: Any, **call: Any) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    built.recompute = recompute
    built.zero_grad()
    torch.default_generator.manual_seed(5)  # `torch.manual_seed` formats the stack for accelerators that are not initialized
    out = built(ids(2, 20), ids(2, 20, seed=1), **call)
    out.loss.backward()
    result = {name: p.grad.clone() for name, p in built.named_parameters() if p.grad is not None}
    return {**result, "loss": out.loss.detach()}, {name: loss.detach() for name, loss in out.losses.items()}


def assert_recomputes(built: GPT, **call: Any) -> None:
    plain, plain_losses = gradients(built, "none", **call)
    again, again_losses = gradients(built, "blocks", **call)
    assert plain.keys() == again.keys()
    assert plain_losses == again_losses
    largest = max(float(gradient.abs().max()) for gradient in plain.values())
    for name, gradient in plain.items():
        error = float((again[name] - gradient).abs().max())
        assert error <= 1e-6 * largest, f"{name}: {error:.3g} of {largest:.3g}"
