"""Shapes of activations: what each module returns, in terms of the batch size B and the number of tokens T."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from gptkit.model.gpt import GPT

__all__ = ["activation_shapes"]

_TOKENS = 96


def activation_shapes(model: GPT, batch: int | None = None, length: int | None = None) -> dict[str, str]:
    """Return the shape of each module's output, as in ``(B, T, 256)``.

    The model is called on its device, usually the meta device, with different sizes; a dimension that changes with
    them is written as B, T, B·T, or a multiple or a part of these.

    Args:
        model: the model.
        batch: number of rows to insert for B.
        length: number of tokens to insert for T.

    Returns:
        Shapes by the name of the module. A module that is not called, because others use its weights, has none.
    """
    tokens = max(1, min(model.context_length, _TOKENS) // 2)
    first = _outputs(model, 2, tokens)
    more_rows, more_tokens = _outputs(model, 3, tokens), _outputs(model, 2, min(model.context_length, 2 * tokens))
    sizes = {"B": (2, batch), "T": (tokens, length)}

    def dimension(size: int, other_rows: int, other_tokens: int) -> str:
        number, symbols = Fraction(size), []
        for name, other in (("B", other_rows), ("T", other_tokens)):
            if other == size:
                continue
            measured, inserted = sizes[name]
            number *= Fraction(1 if inserted is None else inserted, measured)
            symbols += [name] if inserted is None else []
        return _formatted(number, symbols)

    return {
        name: f"({', '.join(map(dimension, shape, more_rows[name], more_tokens[name]))}{',' if len(shape) == 1 else ''})"
        for name, shape in first.items()
        if len(shape) == len(more_rows.get(name, ())) == len(more_tokens.get(name, ()))
    }


def _outputs(model: GPT, batch: int, length: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of the first output of each module that is called."""
    shapes: dict[str, tuple[int, ...]] = {}

    def keep(name: str) -> Any:
        def hook(module: Any, inputs: Any, output: Any) -> None:
            value = output[0] if isinstance(output, tuple) and output else output
            if isinstance(value, Tensor):
                shapes.setdefault(name, tuple(value.shape))

        return hook

    hooks = [module.register_forward_hook(keep(name)) for name, module in model.named_modules() if name]
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            logits = model(torch.zeros(batch, length, dtype=torch.long, device=model.device)).logits
    finally:
        model.train(was_training)
        for each in hooks:
            each.remove()
    return {"": tuple(logits.shape), **shapes}


def _formatted(factor: Fraction, symbols: list[str]) -> str:
    """Format a product: ``2·T``, ``T/2``, or a number."""
    if not symbols:
        return str(round(factor))
    text = "·".join(([] if factor.numerator == 1 else [str(factor.numerator)]) + symbols)
    return text if factor.denominator == 1 else f"{text}/{factor.denominator}"
