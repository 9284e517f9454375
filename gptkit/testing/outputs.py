"""Check of the type and shape of what a component's module returns, before the checks that compute with it.

Shapes: B batch, T tokens, E model width, H heads, S keys, D head size, N tokens of all rows, K experts of a token.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from gptkit.core.errors import GptkitError
from gptkit.core.resolution import resolve
from gptkit.kinds.embedding import EmbeddingSpec
from gptkit.kinds.position import HeadShape, PositionSpec
from gptkit.nn.attention.base import Attention
from gptkit.nn.block import Block
from gptkit.nn.feedforward import FeedForward
from gptkit.nn.head import Head
from gptkit.nn.position import Position
from gptkit.nn.router import Router
from gptkit.testing.check import Checks, ContractError, expect, skip
from gptkit.testing.subject import D_HEAD, D_MODEL, VOCAB, Subject, token_ids

__all__ = ["checks"]

checks = Checks()

B, T = 2, 12
D_OUT = 24
N_EXPERTS = 8
HEADS = HeadShape(n_heads=2, n_kv_heads=2, d_head=D_HEAD)

_WIDTH = "(B, T, d_model)"
_INPUT = "the shape of the input"


@checks.add(
    "output-shape",
    "Other modules compute with the output, and fail for another type or shape, or broadcast it.",
    prerequisite=True,
)
@torch.no_grad()
def output_shape(subject: Subject) -> None:
    try:
        _KINDS[subject.kind](subject)
    except GptkitError:
        skip("it does not run; another check reports the error, which has a remedy")


# -- modules that need a model -----------------------------------------------------------------------------------------


def _attention(subject: Subject) -> None:
    _within_model(subject, Attention)


def _block(subject: Subject) -> None:
    _within_model(subject, Block)


def _within_model(subject: Subject, runtime: type[nn.Module] | type[Attention]) -> None:
    """Check modules of a class in a tiny model: in evaluation, with a cache, and in training."""
    model, ids_BT = subject.make(), token_ids(B, T)

    def leave(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        x_BTE, forward = (*args, *kwargs.values())[:2]
        if not forward.last_only:
            _require(module, "forward", output, x_BTE, x_BTE.shape, _WIDTH)

    for module in model.modules():
        if isinstance(module, runtime):
            _require_parameters(module, runtime)
            module.register_forward_hook(leave, with_kwargs=True)
    cache = model.eval().new_cache(B)
    model(ids_BT)
    model(ids_BT[:, :-1], cache=cache)
    model(ids_BT[:, -1:], cache=cache)
    model.train()(ids_BT)


# -- modules by themselves ---------------------------------------------------------------------------------------------


def _feedforward(subject: Subject) -> None:
    module, x_BTE = subject.module(), _vectors()
    _require_parameters(module, FeedForward)
    _require(module, "forward", module(x_BTE, subject.forward(token_ids(B, T))), x_BTE, x_BTE.shape, _WIDTH)


def _norm(subject: Subject) -> None:
    module, x_BTE = subject.module(dim=D_MODEL), _vectors()
    _require(module, "forward", module(x_BTE), x_BTE, x_BTE.shape, _INPUT)


def _activation(subject: Subject) -> None:
    module, x_BTE = subject.module(), _vectors()
    _require(module, "forward", module(x_BTE), x_BTE, x_BTE.shape, _INPUT)


def _linear(subject: Subject) -> None:
    module, x_BTE = subject.module(d_in=D_MODEL, d_out=D_OUT, bias=True), _vectors()
    _require(module, "forward", module(x_BTE), x_BTE, (B, T, D_OUT), "(B, T, d_out)")


def _router(subject: Subject) -> None:
    module, x_NE = subject.module(n_experts=N_EXPERTS), _vectors().flatten(0, 1)
    _require_parameters(module, Router)
    output, names = module(x_NE, subject.forward(token_ids(1, B * T))), "experts and their weights, both (N, K)"
    experts_NK, weights_NK = _pair(module, "forward", output, x_NE, names)
    shape = (B * T, *experts_NK.shape[1:2])
    _require(module, "forward", experts_NK, x_NE, shape, names)
    _require(module, "forward", weights_NK, x_NE, shape, names)


def _embedding(subject: Subject) -> None:
    module, ids_BT = subject.module(), token_ids(B, T)
    _require(module, "forward", module(ids_BT, subject.forward(ids_BT)), ids_BT, (B, T, D_MODEL), _WIDTH)


def _head(subject: Subject) -> None:
    embedding_spec = cast("EmbeddingSpec", subject.other("embedding", "token"))
    embedding = subject.started(resolve(embedding_spec, subject.context).build(subject.context)).double()
    module, x_BTE = subject.module(embedding=embedding), _vectors()
    ids_BT = token_ids(B, T)
    _require(module, "forward", module(x_BTE, subject.forward(ids_BT)), x_BTE, (B, T, VOCAB), "(B, T, vocabulary)")
    if not isinstance(module, Head):
        raise ContractError(f"build returned a {type(module).__name__}, not a gptkit.nn.head.Head")
    for training in (False, True):
        loss = module.train(training).loss(x_BTE, ids_BT, subject.forward(ids_BT))
        _require(module, "loss", loss, x_BTE, (), "a scalar tensor, the mean over all tokens")


def _position(subject: Subject) -> None:
    spec = cast("PositionSpec", subject.resolved)
    embedding = spec.build_embedding(subject.context)
    relative = None if type(spec).build is PositionSpec.build else cast("Position", subject.module(heads=HEADS))
    for positions in (torch.arange(T), torch.stack((torch.arange(T), torch.arange(T) - 3))):
        if embedding is not None and "embed" in spec.uses:
            x_BTE = _vectors()
            absolute = cast("Position", subject.started(embedding).double())
            output = absolute.embed(x_BTE, positions.clamp(min=0))
            _require(embedding, "embed", output, x_BTE, x_BTE.shape, _WIDTH)
        if relative is not None:
            _hooks(relative, spec, positions)


def _hooks(relative: Position, spec: PositionSpec, positions: Tensor) -> None:
    x_BHTD = torch.randn(B, HEADS.n_heads, T, D_HEAD, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    scores = (B, HEADS.n_heads, T, T)
    if "rotate" in spec.uses:
        output, names = relative.rotate(x_BHTD, x_BHTD, relative.prepare(positions)), "queries and keys, both (B, H, T, D)"
        for rotated in _pair(relative, "rotate", output, x_BHTD, names):
            width = rotated.shape[-1:] if isinstance(rotated, Tensor) else (D_HEAD,)  # the check hooks-are-declared has it
            _require(relative, "rotate", rotated, x_BHTD, (*scores[:3], *width), names)
    if "bias" in spec.uses:
        bias = relative.bias(positions, positions)
        rows = bias.shape[:1] if isinstance(bias, Tensor) and len(bias) == 1 and positions.dim() == 1 else (B,)
        _require(relative, "bias", bias, positions, (*rows, *scores[1:]), "(1 or B, H, T, S)")
    if "content_bias" in spec.uses:
        term = relative.content_bias(x_BHTD, x_BHTD, positions, positions)
        _require(relative, "content_bias", term, x_BHTD, scores, "(B, H, T, S)")
    if "value_bias" in spec.uses:
        term = relative.value_bias(torch.ones(scores, dtype=torch.float64).tril(), positions, positions)
        if term is not None:  # an option may switch it off
            _require(relative, "value_bias", term, positions, x_BHTD.shape, "(B, H, T, D)")


_KINDS: Mapping[str, Callable[[Subject], None]] = {
    "attention": _attention,
    "block": _block,
    "feedforward": _feedforward,
    "norm": _norm,
    "activation": _activation,
    "linear": _linear,
    "router": _router,
    "embedding": _embedding,
    "head": _head,
    "position": _position,
}


# -- messages ----------------------------------------------------------------------------------------------------------


def _vectors() -> Tensor:
    return torch.randn(B, T, D_MODEL, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def _require(
    module: nn.Module, method: str, output: Any, given: Tensor, shape: tuple[int, ...] | torch.Size, names: str
) -> None:
    """Raise a `ContractError` unless a method returned a tensor of a shape, whose dimensions have `names`."""
    if not isinstance(output, Tensor) or output.shape != shape:
        here = "" if shape in (given.shape, ()) else f", here {tuple(shape)}"
        raise ContractError(f"{_returned(module, method, output, given)}; return {names}{here}")


def _pair(module: nn.Module, method: str, output: Any, given: Tensor, names: str) -> tuple[Any, Any]:
    if not isinstance(output, tuple) or len(output) != 2:
        raise ContractError(f"{_returned(module, method, output, given)}; return a tuple of {names}")
    return output


def _returned(module: nn.Module, method: str, output: Any, given: Tensor) -> str:
    """``LeakyAverage.forward returned a (2, 32) tensor for an input of (2, 12, 32)``."""
    return f"{type(module).__name__}.{method} returned {_described(output)} for an input of {tuple(given.shape)}"


def _described(output: Any) -> str:
    if isinstance(output, Tensor):
        return f"a {tuple(output.shape)} tensor"
    if isinstance(output, tuple | list):
        return f"a {type(output).__name__} of {len(output)} values"
    return "None" if output is None else f"a value of type {type(output).__name__}"


def _require_parameters(module: nn.Module, runtime: type) -> None:
    """Raise a `ContractError` unless the forward method can be called as that of the kind's runtime class."""
    wanted = inspect.signature(runtime.__dict__["forward"])
    required = [name for name, each in wanted.parameters.items() if each.default is each.empty and name != "self"]
    own = inspect.signature(module.forward)
    try:
        own.bind(*required)
    except TypeError:
        parameters = ", ".join(("self", *own.parameters))
        seen = f"{type(module).__name__}.forward({parameters}) is called with {', '.join(required)}"
        expect(False, f"{seen}; define forward({', '.join(('self', *required))})")
