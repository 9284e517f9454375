"""Norms and convolutions of the heads of `grouped-query` and `multi-head`.

Shapes: H heads, D head size.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from torch import nn

from gptkit.kinds.context import BuildContext
from gptkit.kinds.norm import NormSpec
from gptkit.nn.dynamic_convolution import DynamicConvolution
from gptkit.nn.each_head import EachHead
from gptkit.nn.short_convolution import ShortConvolution

if TYPE_CHECKING:
    from gptkit.components.attention.grouped_query import HeadedSpec

__all__ = ["each_head", "kv_conv", "parameters_of", "qk_norm"]


def kv_conv(
    spec: HeadedSpec, context: BuildContext, width: int, *, own: bool
) -> ShortConvolution | DynamicConvolution | None:
    """Return the convolution of keys or values with `width` features of a head; None without one, and without `own` ones."""
    if not own or spec.kv_conv is None:
        return None
    if spec.kv_conv_form == "dynamic":
        return DynamicConvolution(context, spec.kv_heads, width, spec.kv_conv)
    return ShortConvolution(spec.kv_heads * width, spec.kv_conv, scaled=spec.kv_conv_form == "scaled")


def qk_norm(norm: NormSpec, spec: HeadedSpec, context: BuildContext, n_heads: int) -> nn.Module:
    """Return the norm of this number of heads, of queries or keys."""
    assert spec.d_head is not None
    if spec.qk_norm_width == "full":
        return norm.build(context, dim=spec.d_head * n_heads)
    made = norm.build(context, dim=spec.d_head)
    return each_head(made, n_heads) if spec.qk_norm_width == "each-head" else made


def each_head(norm: nn.Module, n_heads: int) -> nn.Module:
    """Return the norm with weights of its own for each head; one without weights is the same for all."""
    return EachHead(norm, n_heads) if any(True for _ in norm.parameters()) else norm


def parameters_of(module: nn.Module | None) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield the parameters of a module by name; none without one."""
    if module is not None:
        yield from module.named_parameters()
