"""Time of attentions `mlstm`, `rwkv4` and `differential`, beside the plain formula of each.

    python -m benchmarks.gates_and_differences [--tokens 1024] [--rounds 5]

Both sides compute the same function from the same inputs, in fp32 on one thread. Each form is run in turn; the shortest of
the rounds counts, since other programs can only slow one down. Shapes: B batch, T tokens, H heads, K features of queries and
keys, V features of values, X features of keys and values, E model width.
"""

from __future__ import annotations

import torch
from torch import Tensor

import gptkit
from benchmarks.selective_scan import compare, options
from gptkit.nn.forward import Forward
from gptkit.ops.exponential_gating import exponential_gating
from gptkit.ops.wkv import wkv

__all__ = ["main"]

E, HEADS, D = 512, 8, 32


def by_token(q_BTHK: Tensor, k_BTHK: Tensor, v_BTHV: Tensor, i_BTH: Tensor, f_BTH: Tensor) -> Tensor:
    """`mlstm` as its formula has it, with the running maximum m of the exponents."""
    n_batch, n_tokens, n_heads, d_key = q_BTHK.shape
    C, n = v_BTHV.new_zeros(n_batch, n_heads, d_key, v_BTHV.shape[-1]), v_BTHV.new_zeros(n_batch, n_heads, d_key)
    m = v_BTHV.new_zeros(n_batch, n_heads)
    outputs = []
    for t in range(n_tokens):
        largest = torch.maximum(f_BTH[:, t] + m, i_BTH[:, t]).detach()
        kept, new = (f_BTH[:, t] + m - largest).exp(), (i_BTH[:, t] - largest).exp()
        C = kept[..., None, None] * C + new[..., None, None] * k_BTHK[:, t, ..., None] * v_BTHV[:, t, :, None]
        n, m = kept[..., None] * n + new[..., None] * k_BTHK[:, t], largest
        out_BHV = (q_BTHK[:, t, :, None] @ C)[:, :, 0]
        size_BH = torch.maximum((n * q_BTHK[:, t]).sum(-1).abs(), (-m).exp()) + 1e-6
        outputs.append(out_BHV / size_BH[..., None])
    return torch.stack(outputs, dim=1)


def averages(k_BTX: Tensor, v_BTX: Tensor, rate_X: Tensor, bonus_X: Tensor) -> Tensor:
    """The averages of `rwkv4` as their formula has them, with the running maximum m of the exponents."""
    a = b = torch.zeros_like(k_BTX[:, 0])
    m, outputs = torch.full_like(a, -1e30), []
    for k, v in zip(k_BTX.unbind(1), v_BTX.unbind(1), strict=True):
        largest = torch.maximum(m, k + bonus_X)
        old, new = (m - largest).exp(), (k + bonus_X - largest).exp()
        outputs.append((old * a + new * v) / (old * b + new))
        largest = torch.maximum(m - rate_X, k)
        old, new = (m - rate_X - largest).exp(), (k - largest).exp()
        a, b, m = old * a + new * v, old * b + new, largest
    return torch.stack(outputs, dim=1)


def two_softmaxes(attention: torch.nn.Module, x_BTE: Tensor) -> Tensor:
    """`differential` as its formula has it: the difference of two matrices of attention weights, head by head."""
    q, k, v = attention.qkv(x_BTE).split(2 * HEADS * D, dim=-1)
    later_TT = torch.ones(x_BTE.shape[1], x_BTE.shape[1], dtype=torch.bool).triu(1)
    heads = []
    for q_BTX, k_BTX, v_BTX in zip(*(x.split(2 * D, dim=-1) for x in (q, k, v)), strict=True):
        halves = zip(q_BTX.split(D, dim=-1), k_BTX.split(D, dim=-1), strict=True)
        first, second = ((a @ b.mT * D**-0.5).masked_fill(later_TT, -torch.inf).softmax(-1) for a, b in halves)
        out_BTX = (first - attention.current_lambda() * second) @ v_BTX
        heads.append(attention.norm(out_BTX) * (1 - attention.lambda_init))
    result: Tensor = attention.output(torch.cat(heads, dim=-1))
    return result


def main() -> None:
    """Measure and print."""
    given = options(__doc__, tokens=1024, rounds=5)
    generator = torch.Generator().manual_seed(0)
    shape = (1, given.tokens, HEADS)
    q, k, v = (torch.randn(*shape, 64, generator=generator).requires_grad_() for _ in range(3))
    i = torch.randn(shape, generator=generator).requires_grad_()
    f = torch.nn.functional.logsigmoid(torch.randn(shape, generator=generator) + 3).requires_grad_()
    zeros = torch.zeros(1, HEADS, 64, 64), torch.zeros(1, HEADS, 64), torch.zeros(1, HEADS)
    forms = {
        "chunks": lambda: exponential_gating(q, k, v, i, f, zeros, eps=1e-6)[0],
        "token by token": lambda: by_token(q, k, v, i, f),
    }
    compare("mlstm", forms, given.rounds)

    keys, values = (torch.randn(1, given.tokens, E, generator=generator).requires_grad_() for _ in range(2))
    rate, bonus = (torch.randn(E, generator=generator).requires_grad_() for _ in range(2))
    empty = torch.zeros(1, E)
    forms = {
        "chunks": lambda: wkv(keys, values, rate.exp(), bonus, (empty, empty, empty))[0],
        "token by token": lambda: averages(keys, values, rate.exp(), bonus),
    }
    compare("rwkv4", forms, given.rounds)

    attention = {"name": "differential", "n_heads": HEADS, "d_head": D}
    spec = {"d_model": E, "n_layers": 1, "context_length": given.tokens, "position": "none", "attention": attention}
    module = gptkit.GPT(spec, 64, seed=0).blocks[0].attention
    x_BTE = torch.randn(1, given.tokens, E, generator=generator).requires_grad_()
    ids = torch.zeros(x_BTE.shape[:2], dtype=torch.long)
    forms = {"component": lambda: module(x_BTE, Forward(ids)), "two softmaxes": lambda: two_softmaxes(module, x_BTE)}
    compare("differential", forms, given.rounds)


if __name__ == "__main__":
    main()
