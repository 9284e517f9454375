"""Time of what Gemma 3n and 4 share between layers, beside the plain formula of each.

    python benchmarks/shared_layers.py

Each pair computes the same function with the same weights, in fp32 on the CPU; printed is the median of several
calls, made in turn. Shapes: B batch, T tokens, E model width, L layers, N streams, P features of a layer's embedding.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import gptkit
from gptkit.nn.forward import Forward

B, T, E, LAYERS, V = 4, 256, 512, 8, 4096
RMS = {"name": "rms", "eps": 1e-6}
SPEC = {
    "d_model": E,
    "n_layers": LAYERS,
    "context_length": 1024,
    "attention": {"name": "grouped-query", "n_heads": 8, "n_kv_heads": 2, "d_head": 64},
    "feedforward": {"name": "gated", "d_hidden": 1024},
    "position": "rotary",
    "norm": RMS,
}


def main() -> None:
    torch.manual_seed(0)
    ids, x = torch.randint(V, (B, T)), torch.randn(B, T, E)
    rows = [
        ("embeddings for all layers", *layer_embeddings(ids, x)),
        ("streams of altup", *streams(x)),
        ("laurel", *laurel(ids, x)),
        ("sparse gate", *sparse_gate(ids, x)),
        ("8 layers, keys of 4 shared", *prefill(ids)),
        ("the same, one token cached", *decode(ids)),
    ]
    print(f"{'':30}{'component':>12}{'plain':>12}")
    for name, component, plain in rows:
        first, second = measured(component, plain)
        print(f"{name:30}{1000 * first:9.2f} ms{1000 * second:9.2f} ms")


def measured(*functions: Callable[[], Any], repeats: int = 15) -> list[float]:
    times: list[list[float]] = [[] for _ in functions]
    with torch.no_grad():
        for round_ in range(repeats + 2):
            for function, seconds in zip(functions, times, strict=True):
                start = time.perf_counter()
                function()
                if round_ >= 2:
                    seconds.append(time.perf_counter() - start)
    return [statistics.median(seconds) for seconds in times]


def make(**changes: Any) -> Any:
    return gptkit.GPT({**SPEC, **changes}, V, seed=0).eval()


def rms(x: Tensor, norm: Any) -> Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * norm.weight


def layer_embeddings(ids: Tensor, x: Tensor) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Plain: a lookup, a projection and a norm in each layer."""
    block = {"name": "per-layer-embedding", "d_embedding": 64, "projection": True, "norm": RMS}
    inputs = make(block=block).shared["per-layer-embedding"]
    tables, maps = inputs.table.weight.chunk(LAYERS, dim=1), inputs.projection.weight.chunk(LAYERS)
    tables = [table.contiguous() for table in tables]

    def plain() -> list[Tensor]:
        pairs = zip(tables, maps, strict=True)
        return [(rms(x @ w.T / E**0.5, inputs.norm) + table[ids] * 64**0.5) / 2**0.5 for table, w in pairs]

    torch.testing.assert_close(inputs(ids, x), torch.stack(plain(), dim=2), rtol=1e-4, atol=1e-4)
    return lambda: inputs(ids, x), plain


def streams(x: Tensor) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Plain: sums over streams, one stream after the other."""
    block = make(block={"name": "altup", "streams": 4}).blocks[1]
    torch.nn.init.normal_(block.prediction.weight, std=0.1)
    torch.nn.init.normal_(block.correction.weight, std=0.1)
    all_BTNE = torch.randn(B, T, 4, E)

    def component() -> Tensor:
        return block._corrected(block._predicted(all_BTNE), x)

    def plain() -> Tensor:
        each = all_BTNE.unbind(dim=2)
        maps = torch.tanh(rms(each[0], block.router_norm) @ block.router.weight.T / E) @ block.prediction.weight.T
        predicted = [each[j] + sum(maps[..., 4 * j + i, None] * each[i] for i in range(4)) for j in range(4)]
        factors = 1 + torch.tanh(rms(x, block.router_norm) @ block.router.weight.T / E) @ block.correction.weight.T
        return torch.stack([predicted[j] + factors[..., j, None] * (x - predicted[0]) for j in range(4)], dim=2)

    torch.testing.assert_close(component(), plain(), rtol=1e-4, atol=1e-4)
    return component, plain


def laurel(ids: Tensor, x: Tensor) -> tuple[Callable[[], Any], Callable[[], Any]]:
    block = make(block="laurel").blocks[0]

    def plain() -> Tensor:
        a = rms(x, block.attention_norm)
        low = rms(a @ block.left.weight.T @ block.right.weight.T, block.laurel_norm)
        y = (x + rms(block.attention(a, Forward(ids)), block.attention_output_norm) + a + low) / 2**0.5
        return y + rms(block.feedforward(rms(y, block.feedforward_norm), Forward(ids)), block.feedforward_output_norm)

    torch.testing.assert_close(block(x, Forward(ids)), plain(), rtol=1e-4, atol=1e-4)
    return lambda: block(x, Forward(ids)), plain


def sparse_gate(ids: Tensor, x: Tensor) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Plain: the same feed-forward without sparsity."""
    sparse, dense = (
        make(feedforward={"name": "gated", "d_hidden": 2048, "sparsity": share}).blocks[0].feedforward for share in (0.95, 0)
    )
    return lambda: sparse(x, Forward(ids)), lambda: dense(x, Forward(ids))


def sharing() -> tuple[Any, Any]:
    """Return a model whose last four layers reuse keys and values, and one whose layers all compute them."""
    return make(layers=[{"repeat": 4}, {"repeat": 4, "attention": {"reuse_kv": True}}]), make()


def prefill(ids: Tensor) -> tuple[Callable[[], Any], Callable[[], Any]]:
    shared, own = sharing()
    return lambda: shared(ids), lambda: own(ids)


def decode(ids: Tensor) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """One token after 768, in a cache that is truncated after each call."""
    calls = []
    for model in sharing():
        cache = model.new_cache(B)
        with torch.no_grad():
            model(ids.repeat(1, 3), cache=cache)

        def step(model: Any = model, cache: Any = cache) -> None:
            model(ids[:, :1], cache=cache)
            cache.truncate(3 * T)

        calls.append(step)
    return calls[0], calls[1]


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
    main()
