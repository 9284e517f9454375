"""A recurrence in which each feature decays by itself, computed in chunks of tokens.

    h ← a ⊙ h + u;  for running maxima that decrease, h ← max(h + a, u)

All chunks are computed at once, token by token: first what each adds to the state, and the product of its decays; then the
states before the chunks, one after the other; then the states of all tokens. With chunks of √T tokens, 3 √T steps take the
place of T. Decays are only multiplied, never divided, so that strong ones do not overflow. The gradient is a recurrence too,
from the last token to the first, which needs the decays and the states alone.

Shapes: B batch, T tokens, M chunks, C tokens of a chunk, … any dimensions of features.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from gptkit.ops.symbols import varies

__all__ = ["linear_recurrence", "maximum_recurrence"]

_TRACED = 64
"""Tokens at most where their number is a symbol."""


def linear_recurrence(decay_BT: Tensor, input_BT: Tensor, state_B: Tensor, *, chunk: int = 16) -> Tensor:
    """Compute the states after all tokens, (B, T, …); the last one is the state for the tokens that follow.

    Args:
        decay_BT: the factor of the previous state, from 0 to 1: (B, T, …), with 1 for dimensions along which it is the same.
        input_BT: what is added, (B, T, …).
        state_B: the state before the first token, (B, …).
        chunk: number of tokens of a chunk.
    """
    n_tokens = decay_BT.shape[1]
    # A program of torch.export has no loop over a number of tokens that varies.
    if varies(n_tokens) and n_tokens <= _TRACED:
        return _by_doubling(decay_BT, input_BT, state_B)
    if torch.is_grad_enabled() and any(x.requires_grad for x in (decay_BT, input_BT, state_B)):
        states_BT: Tensor = _Recurrence.apply(decay_BT, input_BT, state_B, chunk)  # type: ignore[no-untyped-call]
        return states_BT
    return _in_chunks(decay_BT, input_BT, state_B, chunk)


def maximum_recurrence(decay_BT: Tensor, input_BT: Tensor, state_B: Tensor, *, chunk: int = 16) -> Tensor:
    """Compute running maxima, max(state + decay, input), after all tokens, (B, T, …), without gradients.

    Args:
        decay_BT: what is added to the previous maximum, (B, T, …), at most 0.
        input_BT: the values, (B, T, …); -∞ for none.
        state_B: the maximum before the first token, (B, …), finite.
        chunk: number of tokens of a chunk.
    """
    n_tokens = decay_BT.shape[1]
    with torch.no_grad():
        if varies(n_tokens) and n_tokens <= _TRACED:
            return _by_doubling(decay_BT, input_BT, state_B, maxima=True)
        return _in_chunks(decay_BT, input_BT, state_B, chunk, maxima=True)


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, decay_BT: Tensor, input_BT: Tensor, state_B: Tensor, chunk: int) -> Tensor:
        states_BT = _in_chunks(decay_BT, input_BT, state_B, chunk)
        ctx.save_for_backward(decay_BT, state_B, states_BT)
        ctx.chunk = chunk
        return states_BT

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BT: Tensor) -> tuple[Tensor | None, ...]:
        decay_BT, state_B, states_BT = ctx.saved_tensors
        # A state affects the next one by the next decay, so from the end each gradient decays by that of the token after it.
        after_BT = torch.cat((torch.zeros_like(decay_BT[:, :1]), decay_BT[:, 1:].flip(1)), dim=1)
        grad_BT = _in_chunks(after_BT, grad_BT.flip(1), torch.zeros_like(state_B), ctx.chunk).flip(1)
        before_BT = torch.cat((state_B[:, None], states_BT[:, :-1]), dim=1)
        return (grad_BT * before_BT).sum_to_size(decay_BT.shape), grad_BT, grad_BT[:, 0] * decay_BT[:, 0], None


def _in_chunks(decay_BT: Tensor, input_BT: Tensor, state_B: Tensor, chunk: int, *, maxima: bool = False) -> Tensor:
    following, product = (_maximum, torch.add) if maxima else (torch.addcmul, torch.mul)
    n_tokens = decay_BT.shape[1]
    size = max(1, min(chunk, n_tokens))
    n_chunks = -(-n_tokens // size)
    if n_tokens == 0:
        return input_BT
    fill = n_chunks * size - n_tokens
    decay_BMC, input_BMC = (
        torch.unflatten(F.pad(x, (*(0, 0) * (x.dim() - 2), 0, fill)) if fill else x, 1, (n_chunks, size))
        for x in (decay_BT, input_BT)
    )
    before = [state_B]
    if n_chunks > 1:
        added_BM, whole_BM = input_BMC[:, :-1, 0], decay_BMC[:, :-1, 0]
        for t in range(1, size):
            added_BM = following(input_BMC[:, :-1, t], decay_BMC[:, :-1, t], added_BM)
            whole_BM = product(whole_BM, decay_BMC[:, :-1, t])
        for index in range(n_chunks - 1):
            before.append(following(added_BM[:, index], whole_BM[:, index], before[-1]))
    state_BM, states = torch.stack(before, dim=1), []
    for t in range(size):
        state_BM = following(input_BMC[:, :, t], decay_BMC[:, :, t], state_BM)
        states.append(state_BM)
    return torch.stack(states, dim=2).flatten(1, 2)[:, :n_tokens]


def _by_doubling(decay_BT: Tensor, states_BT: Tensor, state_B: Tensor, *, maxima: bool = False) -> Tensor:
    """Compute the states of at most 64 tokens in six steps, each of which doubles how many tokens back a state reaches."""
    following, product = (_maximum, torch.add) if maxima else (torch.addcmul, torch.mul)
    nothing, unchanged = (float("-inf"), 0.0) if maxima else (0.0, 1.0)
    n_tokens, back = decay_BT.shape[1], 1
    while back < _TRACED:
        padding = (*(0, 0) * (decay_BT.dim() - 2), back, 0)
        earlier_BT = F.pad(states_BT, padding, value=nothing)[:, :n_tokens]
        states_BT = following(states_BT, decay_BT, earlier_BT)
        decay_BT = product(decay_BT, F.pad(decay_BT, padding, value=unchanged)[:, :n_tokens])
        back *= 2
    return following(states_BT, decay_BT, state_B[:, None])


def _maximum(input_B: Tensor, decay_B: Tensor, state_B: Tensor) -> Tensor:
    return torch.maximum(input_B, state_B + decay_B)
