"""Intermediate results of a traced graph that are stored, so that compiled loops do not compute them again.

Inductor computes elementwise operations where their result is read. If a short vector is multiplied with each row of a
matrix, such as a query with the keys, that repeats the operations which make the vector for every row: rotary angles, with a
power and a cosine for each feature, once per key and head. The same holds for what all layers read: angles and masks.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, fx

__all__ = ["define_storing", "store_operands"]

_SHARED = 4
"""Number of uses from which a result is stored."""

_SLOW = (torch.ops.aten.cos.default, torch.ops.aten.sin.default)
"""Operations whose results are always stored."""


@functools.cache
def define_storing() -> Any:
    """The library with the operator `gptkit::stored`, which returns its input."""
    from torch._inductor import lowering

    library: Any = torch.library.Library("gptkit", "FRAGMENT")  # type: ignore[no-untyped-call]
    library.define("stored(Tensor x) -> Tensor")
    library.impl("stored", Tensor.clone, "CompositeExplicitAutograd")
    library.impl("stored", torch.empty_like, "Meta")

    def stored(x: Any) -> Any:
        x.realize()
        return x

    lowering.register_lowering(torch.ops.gptkit.stored.default, type_promotion_kind=None)(stored)
    return library


def store_operands(module: fx.GraphModule) -> None:
    """Store what is used often, and what a product followed by a sum would compute again for each row; in place."""
    define_storing()
    graph = module.graph
    chosen = {node for node in graph.nodes if len(node.users) >= _SHARED or node.target in _SLOW}
    for node in graph.nodes:
        if node.target is torch.ops.aten.sum.dim_IntList and _is_call(node.args[0], torch.ops.aten.mul.Tensor):
            product = node.args[0]
            for operand in product.args:
                if isinstance(operand, fx.Node) and _shape(operand) != _shape(product):
                    chosen.add(_computed(operand))
    for node in list(graph.nodes):
        if node in chosen and _is_new(node):
            with graph.inserting_after(node):
                stored = graph.call_function(torch.ops.gptkit.stored.default, (node,))
            stored.meta = dict(node.meta)
            node.replace_all_uses_with(stored, delete_user_cb=lambda user, own=stored: user is not own)
    graph.lint()
    module.recompile()


def _computed(node: fx.Node) -> fx.Node:
    """The node of which this one is a view."""
    while node.op == "call_function" and getattr(node.target, "is_view", False) and isinstance(node.args[0], fx.Node):
        node = node.args[0]
    return node


def _is_call(node: Any, target: Any) -> bool:
    return isinstance(node, fx.Node) and node.target is target


def _is_new(node: fx.Node) -> bool:
    """Whether inductor may compute the node where it is read: it makes a new tensor, and not a view."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload) or target.is_view or target._schema.is_mutable:
        return False
    return isinstance(node.meta.get("val"), Tensor)


def _shape(node: fx.Node) -> list[str]:
    """The shape with the names of its symbols: to compare symbols would make guards."""
    value = node.meta["val"]
    return [str(size) for size in value.shape] if isinstance(value, Tensor) else []
