"""What the tests of recurrent attentions share: properties that all of them have.

Shapes: B rows, T tokens.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gptkit.model.gpt import GPT

__all__ = [
    "check_equal_with_gradients",
    "check_gradients_reach_every_parameter",
    "check_learns_to_repeat_a_distant_token",
    "check_long_text_in_pieces",
    "check_reset_state",
    "check_state_is_fp32",
]

Rule = Callable[..., tuple[Tensor, Tensor]]
"""A recurrence: from tensors of the tokens, and a state, the outputs and the next state."""


def check_equal_with_gradients(
    actual: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor], inputs: Sequence[Tensor]
) -> None:
    """Outputs, states, and the gradients of all inputs are equal."""
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one, other)
    gradients, wanted = (torch.autograd.grad(out.square().sum() + state.sum(), inputs) for out, state in (actual, expected))
    for gradient, wanted_gradient in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(gradient, wanted_gradient)


def check_reset_state(rule: Rule, tokens: Sequence[Tensor], state: Tensor, border: int, *, dim: int) -> None:
    """A new document in a row starts from a state of zeros.

    Args:
        rule: takes `tokens` and the state, and the keywords `segments_BT` and `chunk`.
        tokens: tensors with 11 tokens along a dimension.
        state: the state before the row.
        border: where the second document begins.
        dim: the dimension of the tokens.
    """
    segments_BT = (torch.arange(11) >= border).long().expand(2, -1)
    out, after = rule(*tokens, state, segments_BT=segments_BT, chunk=4)
    first, _ = rule(*(x.narrow(dim, 0, border) for x in tokens), state)
    second, wanted = rule(*(x.narrow(dim, border, 11 - border) for x in tokens), torch.zeros_like(state))
    torch.testing.assert_close(out, torch.cat((first, second), dim=dim))
    torch.testing.assert_close(after, wanted)


@torch.no_grad()
def check_long_text_in_pieces(model: GPT, ids_BT: Tensor, n_bytes: int) -> None:
    """Pieces of 150 tokens with a cache give the logits of the whole text, and the cache does not grow.

    Args:
        model: in fp64.
        ids_BT: two texts, (2, 150).
        n_bytes: size of the cache.
    """
    full = model(ids_BT).logits
    cache = model.new_cache(2)
    before = cache.bytes
    for piece in ids_BT.split([1, 2, 100, 1, 1, 40, 5], dim=1):
        at = cache.length
        step = model(piece, cache=cache).logits
        torch.testing.assert_close(step, full[:, at : at + piece.shape[1]], atol=1e-9, rtol=1e-9)
    assert cache.length == 150
    assert cache.bytes == before == n_bytes


@torch.no_grad()
def check_state_is_fp32(model: GPT, ids_BT: Tensor, dtypes: Sequence[torch.dtype]) -> None:
    """A model in bf16 keeps its state in fp32, and gives nearly the logits of fp32.

    Args:
        model: in fp32.
        ids_BT: texts, (2, 40).
        dtypes: those of the tensors of a layer's state.
    """
    wanted = model(ids_BT).logits
    narrow = copy.deepcopy(model).bfloat16()
    cache = narrow.new_cache(2)
    out = torch.cat([narrow(piece, cache=cache).logits for piece in ids_BT.split([20, 1, 19], dim=1)], dim=1)
    assert out.dtype == torch.bfloat16
    state: Any = next(iter(cache.states))
    assert [tensor.dtype for tensor in state.tensors] == list(dtypes)
    assert (out - wanted).norm() / wanted.norm() < 0.05


def check_gradients_reach_every_parameter(model: GPT, attention: nn.Module, vocab_size: int) -> None:
    """The gradient of every parameter of an attention is finite and not zero, from the initialization."""
    generator = torch.Generator().manual_seed(0)
    ids_BT, targets_BT = (torch.randint(vocab_size, (2, 20), generator=generator) for _ in range(2))
    loss = model(ids_BT, targets_BT).loss
    assert loss is not None
    loss.backward()
    for name, parameter in attention.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def check_learns_to_repeat_a_distant_token(layout: Mapping[str, Any]) -> None:
    """A token between fillers is repeated at a fixed distance; only its earlier occurrences determine the target."""
    model = GPT({**layout, "n_layers": 1}, 9, seed=0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    generator = torch.Generator().manual_seed(0)
    losses = []
    for _ in range(100):
        tokens = torch.zeros(16, 13, dtype=torch.long)
        tokens[:, ::6] = torch.randint(1, 9, (16, 1), generator=generator)
        targets = torch.full((16, 12), -100)
        targets[:, 11] = tokens[:, 12]
        loss = model(tokens[:, :-1], targets).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 2
    assert sum(losses[-5:]) / 5 < 0.5
