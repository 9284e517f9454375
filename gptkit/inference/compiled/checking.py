"""Check of a compiled decode step against the model, before it computes a text.

Shapes: B batch, T tokens of each row, V vocabulary, N all other dimensions as one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from gptkit.inference.compiled.form import StepForm
from gptkit.inference.compiled.layout import has_room, leaves
from gptkit.inference.modes import evaluating
from gptkit.model.cache import Cache
from gptkit.model.gpt import GPT
from gptkit.nn.cache.blocks import BlockState
from gptkit.nn.cache.recurrent import RecurrentState

__all__ = ["check_step"]

_TEXTS = 3
"""Texts that are tried: rounding may let a router choose another expert, and all numbers after it differ."""

_SUMS = 1000 * torch.finfo(torch.float32).eps
"""Relative difference of sums of thousands of products that are added in another order in fp32."""

_READ, _PADDING = (20, 8, 2, 1), 3
"""Tokens that are held before the step, the first number for which there is room; and how many of them are padding in the
first row."""


@torch.no_grad()
def check_step(model: GPT, step: Callable[[Tensor, Cache], Tensor], form: StepForm) -> None:
    """Compare a compiled step with the eager one, so that an error of the compiler is never taken for the model's text.

    The logits and what the step adds to the cache (keys, values and states of each layer) are compared for each token. They
    may differ by what rounding changes: that is measured, as the difference between the eager step and the same step with
    the outputs of all modules changed at random by the spacing of their dtype's numbers, at most half of which is rounding.

    Args:
        model: the model.
        step: the compiled step.
        form: its form.

    Raises:
        RuntimeError: numbers differ by more than rounding in each of several texts.
    """
    with evaluating(model):
        reasons = []
        for seed in range(_TEXTS):
            reason = _difference(model, step, form, seed)
            if reason is None:
                return
            reasons.append(reason)
    raise RuntimeError(f"the compiled step returns other numbers than the model: {reasons[0]}")


def _difference(model: GPT, step: Callable[[Tensor, Cache], Tensor], form: StepForm, seed: int) -> str | None:
    """Return which number differs by more than rounding, for a random text; None for none."""
    generator = torch.Generator().manual_seed(seed)
    n_rows, n_read = 2 if form.many else 1, _tokens_read(model, form)
    ids_BT = torch.randint(model.vocab_size, (n_rows, n_read + form.width), generator=generator).to(model.device)
    padding_B = torch.zeros(n_rows, dtype=torch.long, device=model.device)
    padding_B[0] = min(_PADDING, n_read - 1)

    def run(compute: Callable[[Tensor, Cache], Tensor], noise: Any) -> dict[str, Tensor]:
        cache = model.new_cache(n_rows, _capacity(model), padding_B, keep_hidden=form.keeps_hidden)
        model(ids_BT[:, :n_read], cache=cache, last_only=True)
        with noise:
            logits_BTV = compute(ids_BT[:, n_read:], cache)
        return {"logits": logits_BTV.double(), **_added(cache, form.width)}

    def eager(ids_BT: Tensor, cache: Cache) -> Tensor:
        logits_BTV: Tensor = model(ids_BT, cache=cache).logits
        return logits_BTV

    expected = run(eager, contextlib.nullcontext())
    rounded = run(eager, _rounding(model, generator))
    actual = run(step, contextlib.nullcontext())
    for name, numbers_BTN in expected.items():
        tolerance_BT = (rounded[name] - numbers_BTN).norm(dim=-1) + _SUMS * numbers_BTN.norm(dim=-1)
        excess_BT = (actual[name] - numbers_BTN).norm(dim=-1) / tolerance_BT.clamp_min(torch.finfo(torch.float32).tiny)
        if not (excess_BT <= 1).all():
            return f"{name} differ by {float(excess_BT.max()):.3g} times as much as rounding explains"
    return None


def _capacity(model: GPT) -> int:
    return min(64, model.context_length)


def _tokens_read(model: GPT, form: StepForm) -> int:
    """Return the number of tokens to hold: many, so that masks and positions matter, but windows must have room."""
    for n_read in _READ:
        cache = model.new_cache(1, _capacity(model))
        if n_read + form.width <= cache.capacity:
            model(torch.zeros(1, n_read, dtype=torch.long, device=model.device), cache=cache, last_only=True)
            if has_room(cache, form.width, form.width):
                return n_read
    raise RuntimeError(f"the context has no room for a step of {form.width} tokens")


def _added(cache: Cache, n_tokens: int) -> dict[str, Tensor]:
    """Return what a step of so many tokens has added to the cache, (B, T, N); of other states all, (B, 1, N)."""
    added = dict[str, Tensor]()
    for index, leaf in enumerate(leaves(cache)):
        tensors = leaf.tensors or () if isinstance(leaf, RecurrentState) else leaf.buffers
        for place, tensor in enumerate(tensors):
            if isinstance(leaf, RecurrentState | BlockState):
                numbers_BTN = tensor.flatten(1)[:, None]
            else:
                numbers_BTN = tensor[:, :, leaf.used - n_tokens : leaf.used].transpose(1, 2).flatten(2)
            added[f"the numbers of tensor {place} of state {index}"] = numbers_BTN.double()
    return added


@contextlib.contextmanager
def _rounding(model: GPT, generator: torch.Generator) -> Iterator[None]:
    """Change the outputs of all modules at random by the spacing of numbers of their dtype, up or down."""

    def change(module: Any, inputs: Any, output: Any) -> Any:
        if not isinstance(output, Tensor) or not output.is_floating_point():
            return output
        signs = torch.randint(2, output.shape, generator=generator).mul_(2).sub_(1).to(output)
        return output * (1 + signs * torch.finfo(output.dtype).eps)

    with contextlib.ExitStack() as stack:
        for module in model.modules():
            stack.callback(module.register_forward_hook(change).remove)
        yield
