"""Products of a traced graph with the model's weights, which are inputs of the compiled function.

Inductor packs weights only where they are constants of the graph (freezing), and would store them with the code. Here they
are inputs, so that the code on disk is small and serves every set of weights. For one row a product is a loop that reads the
matrix once as it is, without a call; for several rows oneDNN multiplies with the matrix in its own layout. Matrices of 8-bit
integers are treated alike, with torch's product for several rows. Products of experts read the matrices of the chosen ones.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, fx

from gptkit.inference.compiled.storing import define_storing

__all__ = ["define_operators", "name_products", "packed", "replace_grouped", "replace_linears"]

_DTYPES = (torch.float32, torch.bfloat16)


def packed(weight: Tensor) -> Tensor:
    """The matrix (out, in) in oneDNN's layout for a few rows."""
    result: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), 8)
    return result


@functools.cache
def define_operators() -> Any:
    """The library with the operators `gptkit::packed_linear` and `gptkit::row_linear`."""
    library: Any = torch.library.Library("gptkit", "FRAGMENT")  # type: ignore[no-untyped-call]
    for name, compute, last in (
        ("packed_linear", _packed_linear, "bias"),
        ("row_linear", _row_linear, "bias, Tensor? scale"),
    ):
        library.define(f"{name}(Tensor x, Tensor weight, Tensor? {last}) -> Tensor")
        library.impl(name, compute, "CompositeExplicitAutograd")
        library.impl(name, lambda x, weight, *_: x.new_empty((*x.shape[:-1], weight.shape[0])), "Meta")
    return library


def name_products(program: Any) -> None:
    """Let products with matrices that the model itself holds in oneDNN's layout be `gptkit::packed_linear`.

    Those of torch cannot be written to a file, nor compiled where the matrix is an input.

    Args:
        program: an exported program; changed in place.
    """
    define_operators()
    for node in list(program.graph.nodes):
        if node.target is torch.ops.mkldnn._linear_pointwise.default and node.args[3] == "none":
            _replace(node, torch.ops.gptkit.packed_linear.default, *node.args[:3])


def _replace(node: fx.Node, operator: Any, *arguments: Any) -> None:
    with node.graph.inserting_before(node):
        product = node.graph.call_function(operator, arguments)
    product.meta = dict(node.meta)
    node.replace_all_uses_with(product)
    node.graph.erase_node(node)


def _packed_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    result: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return result


def _row_linear(x: Tensor, weight: Tensor, bias: Tensor | None, scale: Tensor | None) -> Tensor:
    if scale is None:
        return torch.nn.functional.linear(x, weight, bias)
    out = torch.nn.functional.linear(x.float(), weight.float()) * scale
    return (out if bias is None else out + bias).to(x.dtype)


@functools.cache
def _define_lowerings() -> None:
    """How inductor computes the operators."""
    from torch._inductor import ir, lowering, mkldnn_ir

    def packed_linear(x: Any, weight: Any, bias: Any) -> Any:
        size = x.get_size()
        if len(size) > 2:
            x = lowering.view(x, [-1, size[-1]])
        if bias is not None:
            bias = ir.ExternKernel.realize_input(bias)
        product: Any = mkldnn_ir.LinearUnary
        out: Any = ir.TensorBox.create(product.create(x, weight, bias, "none", [], ""))
        return lowering.view(out, [*size[:-1], out.get_size()[-1]]) if len(size) > 2 else out

    def row_linear(x: Any, weight: Any, bias: Any, scale: Any) -> Any:
        size, dtype = x.get_size(), x.get_dtype()
        row = lowering.to_dtype(x, torch.float32)
        row.realize()  # else it would be computed and converted again for each row of the matrix
        row = lowering.view(row, [1, size[-1]])
        products = lowering.mul(row, lowering.to_dtype(weight, torch.float32))
        out = lowering.sum_(products, [-1])
        if scale is not None:
            out = lowering.mul(out, lowering.to_dtype(scale, torch.float32))
        if bias is not None:
            out = lowering.add(out, lowering.to_dtype(bias, torch.float32))
        return lowering.view(lowering.to_dtype(out, dtype), [*size[:-1], weight.get_size()[0]])

    for operator, lower in ((torch.ops.gptkit.packed_linear, packed_linear), (torch.ops.gptkit.row_linear, row_linear)):
        lowering.register_lowering(operator.default, type_promotion_kind=None)(lower)


def replace_linears(module: fx.GraphModule, weights: dict[str, str]) -> dict[str, tuple[str, str]]:
    """Replace the products with a weight of the model by the fastest form for the number of rows.

    Args:
        module: the graph; changed in place.
        weights: the name of the weight that each of the inputs is, by the input's name.

    Returns:
        For each new input its source: ``("packed", weight)`` for a matrix in oneDNN's layout, ``("plain", weight)``
        for the plain matrix of one that the model holds in oneDNN's layout.
    """
    define_operators()
    _define_lowerings()
    graph, added = module.graph, dict[str, tuple[str, str]]()
    inputs: dict[str, fx.Node] = {node.name: node for node in graph.nodes if node.op == "placeholder"}
    last = list(inputs.values())[-1]

    def other_form(weight: fx.Node, form: str) -> fx.Node:
        nonlocal last
        name = f"{form}_{weight.name}"
        if name not in inputs:
            with graph.inserting_after(last):
                last = inputs[name] = graph.placeholder(name)
            last.meta = {"val": _with_usual_strides(weight)}
            added[last.name] = (form, weights[weight.name])
        return inputs[name]

    for node in list(graph.nodes):
        if node.target is torch.ops.gptkit.packed_linear.default:
            x, weight, bias = node.args
            is_packed = True
        elif node.target is torch.ops.aten.linear.default and _is_weight(node.args[1], weights):
            (x, weight), bias = node.args[:2], node.args[2] if len(node.args) > 2 else None
            is_packed = False
        elif node.target is torch.ops.aten._weight_int8pack_mm.default and _is_one_row(node.args[0]):
            x, weight, scale = node.args
            _replace(node, torch.ops.gptkit.row_linear.default, x, weight, None, scale)
            continue
        else:
            continue
        if _is_one_row(x):
            weight = other_form(weight, "plain") if is_packed else weight
            _replace(node, torch.ops.gptkit.row_linear.default, x, weight, bias, None)
        else:
            if is_packed:
                weight.meta["val"] = _with_usual_strides(weight)
            else:
                weight = other_form(weight, "packed")
            _replace(node, torch.ops.gptkit.packed_linear.default, x, weight, bias)
    graph.lint()
    module.recompile()
    return added


def _with_usual_strides(weight: fx.Node) -> Tensor:
    """Return the input's description as a contiguous tensor.

    The strides of a matrix in oneDNN's layout mean nothing; inductor would copy its numbers to contiguous ones.
    """
    value = weight.meta["val"]
    with value.fake_mode:
        return torch.empty(value.shape, dtype=value.dtype, device=value.device)


def replace_grouped(module: fx.GraphModule) -> None:
    """Let the grouped products of experts (`gptkit.ops.grouped`) be loops over the chosen experts' matrices; in place.

    Inductor fuses what `_chosen` does to one loop, which reads these matrices where they are, and no others. It has no code
    for the operator itself.
    """
    import gptkit.ops.grouped  # noqa: F401 defines the operator

    define_storing()
    for node in list(module.graph.nodes):
        if node.target is torch.ops.gptkit.grouped_mm.default:
            _replace(node, _chosen, *node.args)
    module.recompile()


def _chosen(x_MI: Tensor, weight_XOI: Tensor, ends_X: Tensor) -> Tensor:
    row_M = torch.arange(x_MI.shape[0], device=x_MI.device)
    # Rows of no expert, whose products are not used, are multiplied with the last matrix.
    expert_M = torch.ops.gptkit.stored((ends_X <= row_M[:, None]).sum(1).clamp(max=weight_XOI.shape[0] - 1))
    x_M1I = torch.ops.gptkit.stored(x_MI.float())[:, None]
    y_MO: Tensor = (x_M1I * weight_XOI[expert_M].float()).sum(-1)
    return y_MO.to(x_MI.dtype)


def _is_weight(weight: Any, weights: dict[str, str]) -> bool:
    value = weight.meta["val"]
    return weight.name in weights and value.device.type == "cpu" and value.dtype in _DTYPES


def _is_one_row(x: Any) -> bool:
    return all(isinstance(size, int) and size == 1 for size in x.meta["val"].shape[:-1])
