"""Shapes of activations in terms of batch and tokens."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import gptkit
from gptkit.model.shapes import activation_shapes

V = 50


def make(**spec: Any) -> gptkit.GPT:
    return gptkit.GPT({"d_model": 16, "n_layers": 2, "attention": {"n_heads": 2}, **spec}, vocab_size=V, device="meta")


def test_shapes_are_written_with_symbols() -> None:
    shapes = activation_shapes(make(context_length=64))
    assert shapes[""] == f"(B, T, {V})"
    assert shapes["blocks.1.attention"] == "(B, T, 16)"
    assert shapes["blocks.0.attention.qkv"] == "(B, T, 48)"


@pytest.mark.parametrize("context_length", [1, 2, 3, 5, 200])
def test_numbers_replace_symbols_and_are_those_of_a_call(context_length: int) -> None:
    model = gptkit.GPT(make(context_length=context_length).spec, vocab_size=V)
    shapes: dict[str, tuple[int, ...]] = {}
    for name, module in model.named_modules():
        module.register_forward_hook(lambda _, __, out, name=name: shapes.setdefault(name, out))
    model(torch.zeros(5, context_length, dtype=torch.long))
    result = activation_shapes(make(context_length=context_length), 5, context_length if context_length > 1 else None)
    for name, shape in result.items():
        if name:
            assert shape == str(tuple(shapes[name].shape))  # type: ignore[attr-defined]


def test_dimensions_of_experts_are_products() -> None:
    feedforward = {"name": "experts", "n_experts": 4}
    shapes = activation_shapes(make(context_length=64, feedforward=feedforward))
    assert any("B·T" in shape for shape in shapes.values())
