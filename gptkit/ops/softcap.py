"""Soft bounds of logits: smooth functions that are close to the identity around 0 and never exceed a limit.

With u = (z + shift) / width, elementwise:

- `tanh`: cap · tanh(u), between −cap and cap;
- `sigmoid`: cap · sigmoid(u), between 0 and cap. With shift 0 and the width cap / 4 it is the tanh form of half the cap plus
  a constant, which does not change a softmax;
- `rational`: cap · u / √(1 + u²), between −cap and cap, whose slope decays as |u|⁻³ in place of exponentially.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

__all__ = ["Softcap", "SoftcapForm", "bound", "bound_", "default_width"]

SoftcapForm = Literal["tanh", "sigmoid", "rational"]


class Softcap(NamedTuple):
    """A soft bound.

    Attributes:
        cap: the limit.
        width: the number of logits by which the argument u changes by 1.
        form: the function.
        shift: what is added to the logits first.
    """

    cap: float
    width: float
    form: SoftcapForm = "tanh"
    shift: float = 0.0


def default_width(cap: float, form: SoftcapForm) -> float:
    """Return the width at which the bound has slope 1 at u = 0."""
    return cap / 4 if form == "sigmoid" else cap


def bound(logits: Tensor, softcap: Softcap) -> Tensor:
    """Return the bounded logits, in their dtype."""
    u = (logits + softcap.shift if softcap.shift else logits) / softcap.width
    if softcap.form == "tanh":
        return torch.tanh(u) * softcap.cap
    if softcap.form == "sigmoid":
        return torch.sigmoid(u) * softcap.cap
    return u * torch.rsqrt(1 + u.square()) * softcap.cap


def bound_(logits: Tensor, softcap: Softcap, needed: bool) -> Tensor | None:
    """Bound the logits in place, and return the derivative of the bound at each; None if that is not needed."""
    if softcap.shift:
        logits.add_(softcap.shift)
    logits.div_(softcap.width)
    slope = None
    if softcap.form == "tanh":
        logits.tanh_()
        if needed:
            slope = torch.addcmul(logits.new_ones(()), logits, logits, value=-1)
    elif softcap.form == "sigmoid":
        logits.sigmoid_()
        if needed:
            slope = torch.addcmul(logits, logits, logits, value=-1)
    else:
        inverse = torch.addcmul(logits.new_ones(()), logits, logits).rsqrt_()
        logits.mul_(inverse)
        if needed:
            slope = inverse.pow_(3)
    logits.mul_(softcap.cap)
    if slope is not None and softcap.cap != softcap.width:
        slope.mul_(softcap.cap / softcap.width)
    return slope
