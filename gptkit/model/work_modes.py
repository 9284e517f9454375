"""Modes that record the operations of a forward pass on the meta device, with the casts and the fused kernels of training.

Shapes: B batch, T tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from gptkit.nn.attention.base import Attention
from gptkit.nn.block import Block
from gptkit.nn.embedding import Embedding
from gptkit.nn.feedforward import FeedForward
from gptkit.nn.head import Head
from gptkit.ops.causal_attention import MAX_TOKENS, MIN_TOKENS, n_stored_weights
from gptkit.ops.cross_entropy_rows import BLOCK_BYTES
from gptkit.ops.linear_cross_entropy import CHUNK_BYTES

__all__ = ["DIVIDED", "Counting", "Fused", "Operation", "Place", "component_of"]

DIVIDED = ("attention", "feed-forward")
"""Components that tensor parallelism divides."""

_KINDS: tuple[tuple[type[nn.Module], str], ...] = (
    (Embedding, "embedding"),
    (Attention, "attention"),
    (FeedForward, "feed-forward"),
    (Head, "head and loss"),
    (Block, "residual stream"),
)
"""Component of a module by its runtime class."""

_CAST = (
    F.linear,
    F.scaled_dot_product_attention,
    torch.matmul,
    torch.mm,
    torch.bmm,
    torch.addmm,
    torch.baddbmm,
    torch.einsum,
    Tensor.matmul,
    Tensor.mm,
    Tensor.bmm,
    Tensor.__matmul__,
)
"""Functions whose arguments autocast converts."""

_LOOKUPS = (torch.ops.aten.embedding, torch.ops.aten.index_select, torch.ops.aten.index, torch.ops.aten.gather)


@dataclass(frozen=True)
class Operation:
    """One operation of a forward pass.

    Attributes:
        component: the component that it belongs to.
        block: index of the outermost block, -1 outside of them.
        flops: floating-point operations of products, 0 for others.
        bytes: bytes read and written.
        whole: whether it has computed the gradients too, as the head's loss does.
    """

    component: str
    block: int
    flops: float
    bytes: int
    whole: bool = False


def component_of(name: str, module: nn.Module) -> str | None:
    """Return the component that a module counts as, or None for that of the module around it."""
    for kind, component in _KINDS:
        if isinstance(module, kind):
            return component
    if name.rpartition(".")[2].endswith("norm") and not isinstance(module, nn.Identity):
        return "norm"
    return None


class Place:
    """The block and the component that are running."""

    def __init__(self) -> None:
        self.block = -1
        self.components: list[str] = []

    @property
    def component(self) -> str:
        return self.components[-1] if self.components else "other"

    @property
    def divided(self) -> bool:
        return any(each in DIVIDED for each in self.components)


class Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Mode that records operations with their traffic."""

    def __init__(self, place: Place, precision: torch.dtype) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._place = place
        self._precision = precision
        self.operations: list[Operation] = []
        self.loss_bytes = 0

    def add(self, flops: float, size: int, whole: bool = False) -> None:
        """Record an operation of the running component."""
        component = "head and loss" if whole else self._place.component
        self.operations.append(Operation(component, self._place.block, flops, size, whole))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if any(result.alias_info is not None and not result.alias_info.is_write for result in func._schema.returns):
            return out  # a view
        tensors = [each for each in torch.utils._pytree.tree_leaves((args, kwargs, out)) if isinstance(each, Tensor)]
        size = sum(each.numel() * each.element_size() for each in tensors)
        packet = func.overloadpacket
        if packet is torch.ops.gptkit.linear_cross_entropy:
            rows, classes = args[0].flatten(0, -2).shape[0], args[1].shape[0]
            given = dict(zip((argument.name for argument in func._schema.arguments), args, strict=False))
            products = 1 + int(given["need_x"]) + int(given["need_weight"])
            # Chunks of logits are written, read by the softmax, written as gradients, and read by two products.
            width = self._precision.itemsize
            logits = rows * classes * width * 5
            self.loss_bytes = max(self.loss_bytes, min(rows * classes * width, CHUNK_BYTES))
            if self._precision != torch.float32:
                self.loss_bytes += min(rows * classes * 4, BLOCK_BYTES) + args[1].numel() * width
            self.add(2.0 * products * args[0].numel() * classes, size + logits, whole=True)
        elif packet in flop_registry:
            self.add(float(flop_registry[packet](*args, **(kwargs or {}), out_val=out)), size)
        elif packet in _LOOKUPS:
            self.add(0.0, 2 * out.numel() * out.element_size())  # not the whole table
        elif "empty" not in packet.__name__:
            self.add(0.0, size)
        return out


class Fused(TorchFunctionMode):
    """Mode with the casts of autocast, and with fused attention, which keeps its inputs and its output only."""

    def __init__(self, counter: Counting, precision: torch.dtype, cuda: bool) -> None:
        super().__init__()
        self._cuda = cuda
        self._counter = counter
        self._precision = precision
        self._casts: dict[int, Tensor] = {}

    def _cast(self, value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return type(value)(self._cast(each) for each in value)
        if not isinstance(value, Tensor) or value.dtype != torch.float32:
            return value
        if not isinstance(value, nn.Parameter):
            return value.to(self._precision)
        if id(value) not in self._casts:
            self._casts[id(value)] = value.to(self._precision)
        return self._casts[id(value)]

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> Tensor:
        """Record fused attention, or on a CPU at short contexts attention by blocks, which stores its weights."""
        n_rows, n_heads, n_queries, d_key = q.shape
        n_scores = n_rows * n_heads * n_queries * k.shape[-2] * (0.5 if causal else 1)
        size = sum(each.numel() * each.element_size() for each in (q, k, v, q))
        n_weights = 0
        if causal and not self._cuda and MIN_TOKENS <= n_queries <= MAX_TOKENS:
            n_weights = n_stored_weights(n_rows, n_heads, n_queries)
            n_scores = n_weights
            size += 6 * n_weights * q.element_size()
        self._counter.add(2 * n_scores * (d_key + v.shape[-1]), size)
        kept: Tensor = _Kept.apply(q, k, v, n_weights)  # type: ignore[no-untyped-call]
        return kept

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._precision != torch.float32 and func in _CAST:
            args = self._cast(tuple(args))
            kwargs = {key: self._cast(value) for key, value in kwargs.items()}
        if func is F.scaled_dot_product_attention:
            mask = kwargs.get("attn_mask")
            if mask is None or not (mask.requires_grad or (kwargs.get("dropout_p") and not self._cuda)):
                return self._attend(*args[:3], causal=bool(kwargs.get("is_causal")))
        if func is F.dropout:
            x = args[0]
            self._counter.add(0.0, (2 if self._cuda else 4) * x.numel() * x.element_size())
            return _Dropped.apply(x, self._cuda)  # type: ignore[no-untyped-call]
        if func is F.rms_norm:
            # One kernel, which torch's decomposition for the meta device does not show.
            self._counter.add(0.0, 2 * args[0].numel() * args[0].element_size())
            weight = args[2] if len(args) > 2 else kwargs.get("weight")
            return _KeptNorm.apply(args[0], weight)  # type: ignore[no-untyped-call]
        return func(*args, **kwargs)


class _KeptNorm(torch.autograd.Function):
    """Normalization of the correct shape that keeps its input."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return torch.empty_like(x)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        x, weight = ctx.saved_tensors
        return torch.zeros_like(x), None if weight is None else torch.zeros_like(weight)


class _Kept(torch.autograd.Function):
    """Attention of the correct shape that keeps its inputs, its output, and weights where it stores them."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, n_weights: int) -> Tensor:
        out = q.new_empty(*q.shape[:-1], v.shape[-1])
        ctx.save_for_backward(q, k, v, out, q.new_empty(n_weights))
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        q, k, v, *_ = ctx.saved_tensors
        return torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v), None


class _Dropped(torch.autograd.Function):
    """Dropout of the correct shape: CUDA keeps a mask of one byte per element, a CPU draws it again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cuda: bool) -> Tensor:
        ctx.save_for_backward(x.new_empty(x.shape if cuda else 0, dtype=torch.bool))
        return torch.empty_like(x)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return torch.zeros_like(grads[0]), None
