"""The output head in code for transformers: a linear layer `lm_head`, as its programs expect."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gptkit.core.component import Component
from gptkit.ejection.groups import number
from gptkit.kinds.written import NotWrittenError, Written

__all__ = ["WRAPPING", "Head", "head_of"]


@dataclass(frozen=True)
class Head:
    """A linear head.

    Attributes:
        tied: whether its matrix is the table of the embedding.
        bias: whether it has a bias.
        scale: factor of the logits.
        softcap: c of the soft bound c · tanh(logits / c); None without a bound, or with another one.
        bounded: the expression of the bounded logits; empty without a bound.
        d_head: width of a projection before it; None without one.
        prefix: what precedes the names of its weights in gptkit's model.
        unused: prefixes of names of weights that only training uses, which the export does not have.
    """

    tied: bool
    bias: bool
    scale: float
    softcap: float | None
    bounded: str
    d_head: int | None
    prefix: str = "head."
    unused: tuple[str, ...] = ()


WRAPPING = ("multi-token", "distillation")
"""Heads that compute the logits with an inner head, and more in training."""


def head_of(spec: Component, written: Written, d_embedding: int, d_model: int) -> Head:
    """Return the head that a spec describes.

    Args:
        spec: the head.
        written: how it is written out in plain PyTorch.
        d_embedding: width of the embedding's table.
        d_model: width of the model.

    Raises:
        NotWrittenError: it is not a linear head.
    """
    linear: Any = spec
    prefix = "head."
    while linear.name in WRAPPING:
        linear, prefix = linear.head, f"{prefix}head."
    if linear.name != "linear":
        raise NotWrittenError(
            f"head {spec.name!r} cannot be written for transformers, whose models have a linear head",
            hint="Choose head: linear.",
        )
    project = linear.tied and d_embedding != d_model
    if linear.linear is not None and linear.linear.name != "dense":
        raise NotWrittenError(
            f"head 'linear' cannot be written for transformers with linear {linear.linear.name!r}",
            hint="Remove head.linear.",
        )
    unused = tuple(f"head.{name}" for name in written.unused)
    d_head = d_embedding if project else None
    bounded = ""
    if linear.softcap is not None:
        constants = (number(value) for value in (linear.softcap, linear.softcap_divisor, linear.softcap_shift))
        bounded = linear.softcapped("logits_BTV", *constants)
    softcap = linear.softcap if linear.plain_softcap else None
    return Head(linear.tied, linear.bias, linear.scale, softcap, bounded, d_head, prefix, unused)
