"""Time of attention `block-sparse` and block `hierarchical`, beside the plain formula of each.

    python -m benchmarks.blocks_and_cycles [--tokens 1024] [--rounds 5]

Both sides compute the same function with the same weights, in fp32 on one thread. Each form is run in turn; the shortest of
the rounds counts, since other programs can only slow one down. Shapes: B batch, T tokens, E model width, J heads of the
indexer, I their features, K key/value heads, G query heads of each, D features of a head, N blocks, C chosen keys.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

import gptkit
from benchmarks.selective_scan import compare, options
from gptkit.nn.forward import Forward

__all__ = ["main"]

E, V, HEADS, KV_HEADS, D = 256, 512, 8, 2, 32
SIZE, TOP = 32, 8
COMMON = {
    "d_model": E,
    "n_layers": 1,
    "position": "rotary",
    "norm": {"name": "rms", "eps": 1e-6},
    "feedforward": {"name": "gated", "d_hidden": 2 * E},
}
ATTENTION = {"name": "grouped-query", "n_heads": HEADS, "n_kv_heads": KV_HEADS, "d_head": D}
SPARSE = {**ATTENTION, "name": "block-sparse", "block_size": SIZE, "top_blocks": TOP, "index_loss": 0}


def model(n_tokens: int, **parts: object) -> gptkit.GPT:
    return gptkit.GPT({**COMMON, "context_length": n_tokens, **parts}, V, seed=0).eval()


def chosen_blocks(attention: torch.nn.Module, x_BTE: Tensor, forward: Forward) -> Tensor:
    """The choice as its formula has it: query by query, the blocks with the best keys and the query's own, (B, J, T, N)."""
    indexer = attention.indexer
    k_BSI = indexer.keys(x_BTE, forward)[:, 0]
    q_BJTI = indexer.query_norm(indexer.query(x_BTE).unflatten(-1, (indexer.n_heads, -1))).transpose(1, 2)
    q_BJTI = indexer._turned(q_BJTI, q_BJTI[:, :1], forward)[0]
    n_blocks = -(-x_BTE.shape[1] // SIZE)
    chosen = torch.zeros(*q_BJTI.shape[:3], n_blocks, dtype=torch.bool)
    for t in range(x_BTE.shape[1]):
        own = t // SIZE
        scores_BJS = q_BJTI[:, :, t] @ k_BSI[:, : t + 1].transpose(1, 2)
        padded = F.pad(scores_BJS, (0, (own + 1) * SIZE - t - 1), value=-torch.inf)
        best_BJN = padded.unflatten(-1, (own + 1, SIZE)).amax(-1)
        best_BJN[..., own] = torch.inf
        chosen[:, :, t, : own + 1].scatter_(-1, best_BJN.topk(min(TOP, own + 1)).indices, True)
    return chosen


def by_query(attention: torch.nn.Module, x_BTE: Tensor) -> Tensor:
    """`block-sparse` as its formula has it: each query attends to the keys of its own blocks alone."""
    forward = Forward(torch.zeros(x_BTE.shape[:2], dtype=torch.long))
    with torch.no_grad():
        chosen_BJTN = chosen_blocks(attention, x_BTE.detach(), forward)
    packed_BTHD = getattr(attention, attention.packed)(x_BTE).unflatten(-1, (-1, D)).transpose(1, 2)
    q_BHTD, k_BKTD, v_BKTD = packed_BTHD.split([HEADS, KV_HEADS, KV_HEADS], dim=1)
    q_BHTD, k_BKTD = attention.rotate(q_BHTD, k_BKTD, forward)
    n_group = q_BHTD.shape[1] // k_BKTD.shape[1]
    rows = []
    for t in range(x_BTE.shape[1]):
        heads = []
        for head in range(k_BKTD.shape[1]):
            keys = chosen_BJTN[0, head, t].nonzero()[:, 0, None] * SIZE + torch.arange(SIZE)
            keys_C = keys[keys <= t]
            q_GD = q_BHTD[0, head * n_group : (head + 1) * n_group, t]
            weights_GC = (q_GD @ k_BKTD[0, head, keys_C].T * D**-0.5).softmax(-1)
            heads.append(weights_GC @ v_BKTD[0, head, keys_C])
        rows.append(torch.cat(heads).flatten())
    result: Tensor = attention.output(torch.stack(rows)[None])
    return result


def by_hand(block: torch.nn.Module, x_BTE: Tensor) -> Tensor:
    """`hierarchical` as its formula has it: the cycles written one after the other."""
    forward = Forward(torch.zeros(x_BTE.shape[:2], dtype=torch.long))
    high, low = x_BTE, block.start.expand_as(x_BTE)
    (first_low, second_low), (first_high, second_high) = block.low, block.high
    for _ in range(2):
        for _ in range(3):
            low = block.low_norm(second_low(first_low(low + high, forward), forward))
        high = block.high_norm(second_high(first_high(high + low, forward), forward))
    return high


def main() -> None:
    """Measure and print."""
    given = options(__doc__, tokens=1024, rounds=5)
    x_BTE = torch.randn(1, given.tokens, E, generator=torch.Generator().manual_seed(0)).requires_grad_()
    ids = torch.zeros(x_BTE.shape[:2], dtype=torch.long)

    sparse = model(given.tokens, attention=SPARSE).blocks[0].attention
    full = model(given.tokens, attention=ATTENTION).blocks[0].attention
    forms = {"component": lambda: sparse(x_BTE, Forward(ids)), "query by query": lambda: by_query(sparse, x_BTE)}
    compare(f"block-sparse, {TOP} of {given.tokens // SIZE} blocks", forms, given.rounds)
    both = {"block-sparse": forms["component"], "grouped-query": lambda: full(x_BTE, Forward(ids))}
    compare("the same beside attention to all keys (another function)", both, given.rounds)
    cycles = model(given.tokens, attention=ATTENTION, block="hierarchical").blocks[0]
    forms = {"component": lambda: cycles(x_BTE, Forward(ids)), "by hand": lambda: by_hand(cycles, x_BTE)}
    compare("hierarchical, 2 blocks, 2 high and 3 low cycles", forms, given.rounds)


if __name__ == "__main__":
    main()
