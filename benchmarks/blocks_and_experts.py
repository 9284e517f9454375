"""Time of attentions `compressed` and `expert-heads`, and of identity experts, beside the plain formula of each.

    python -m benchmarks.blocks_and_experts [--tokens 1024] [--rounds 5]

Both sides compute the same function from the same inputs and weights, in fp32 on one thread. Each form is run in turn; the
shortest of the rounds counts, since other programs can only slow one down. Shapes: T tokens, N tokens or blocks, H heads, D
features of a head, E model width, K experts of a token.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import gptkit
from benchmarks.selective_scan import compare, options
from gptkit.nn.forward import Forward

__all__ = ["main"]

E, HEADS, D = 256, 8, 32
WINDOW, BLOCK = 128, 16


def query_by_query(attention: Any, x_TE: Tensor) -> Tensor:
    """`compressed` as its formula has it: for each query, a softmax over a window of keys and the entries of full blocks."""
    q_THD = attention.q_up(x_TE).unflatten(-1, (HEADS, D))
    keys_TD = attention.kv_norm(attention.kv(x_TE))
    compressor = attention.compressor
    blocks = zip(compressor.content(x_TE).split(BLOCK), compressor.gate(x_TE).split(BLOCK), strict=True)
    weighted = [((gate + compressor.position_bias).softmax(dim=0) * content).sum(dim=0) for content, gate in blocks]
    entries_ND = compressor.norm(torch.stack(weighted))
    outputs = []
    for t, q_HD in enumerate(q_THD):
        seen_SD = torch.cat((keys_TD[max(0, t - WINDOW + 1) : t + 1], entries_ND[: (t + 1) // BLOCK]))
        outputs.append((q_HD @ seen_SD.mT * D**-0.5).softmax(dim=-1) @ seen_SD)
    result: Tensor = attention.output(torch.stack(outputs).flatten(1))
    return result


def expert_by_expert(attention: Any, x_TE: Tensor, ids_1T: Tensor) -> Tensor:
    """`expert-heads` as its formula has it: each expert's attention for all tokens, weighted where it was chosen."""
    experts_TK, weights_TK = attention.router(x_TE, Forward(ids_1T))
    k_THD, v_THD = (part.unflatten(-1, (HEADS // 2, D)) for part in attention.kv(x_TE).chunk(2, dim=-1))
    output_TE = torch.zeros_like(x_TE)
    for expert, (query, output) in enumerate(zip(attention.query.weight, attention.output.weight, strict=True)):
        q_HTD = F.linear(x_TE, query).unflatten(-1, (HEADS // 2, D)).transpose(0, 1)
        heads = F.scaled_dot_product_attention(q_HTD, k_THD.transpose(0, 1), v_THD.transpose(0, 1), is_causal=True)
        weight_T1 = (weights_TK * (experts_TK == expert)).sum(dim=1, keepdim=True)
        output_TE = output_TE + weight_T1 * F.linear(heads.transpose(0, 1).flatten(1), output)
    return output_TE


def every_expert(mixture: Any, x_TE: Tensor, ids_1T: Tensor) -> Tensor:
    """Experts, some of which return their input, as the formula has it: all for all tokens, weighted where chosen."""
    experts_TK, weights_TK = mixture.router(x_TE, Forward(ids_1T))
    output_TE = torch.zeros_like(x_TE)
    for expert in range(mixture.n_experts + mixture.n_identities):
        y_TE = x_TE
        if expert < mixture.n_experts:
            gate_TF, up_TF = F.linear(x_TE, mixture.experts.gate_up.weight[expert]).chunk(2, dim=-1)
            y_TE = F.linear(F.silu(gate_TF) * up_TF, mixture.experts.down.weight[expert])
        output_TE = output_TE + (weights_TK * (experts_TK == expert)).sum(dim=1, keepdim=True) * y_TE
    return output_TE


def main() -> None:
    """Measure and print."""
    given = options(__doc__, tokens=1024, rounds=5)
    x_TE = torch.randn(given.tokens, E, generator=torch.Generator().manual_seed(0)).requires_grad_()
    ids_1T = torch.zeros(1, given.tokens, dtype=torch.long)

    def block(**parts: Any) -> Any:
        spec = {"d_model": E, "n_layers": 1, "context_length": given.tokens, "position": "none", **parts}
        return gptkit.GPT(spec, 64, seed=0).eval().blocks[0]

    compressed = {"name": "compressed", "n_heads": HEADS, "d_head": D, "d_rotary": D, "sliding_window": WINDOW}
    attention = block(attention={**compressed, "block_size": BLOCK, "overlap": False, "top_k": None}).attention
    forms = {
        "component": lambda: attention(x_TE[None], Forward(ids_1T))[0],
        "query by query": lambda: query_by_query(attention, x_TE),
    }
    compare("compressed", forms, given.rounds)

    heads = block(attention={"name": "expert-heads", "n_experts": 8, "n_kv_heads": HEADS // 2, "d_head": D}).attention
    forms = {
        "component": lambda: heads(x_TE[None], Forward(ids_1T))[0],
        "expert by expert": lambda: expert_by_expert(heads, x_TE, ids_1T),
    }
    compare("expert-heads", forms, given.rounds)

    experts = {"name": "experts", "n_experts": 8, "identity_experts": 4, "expert": {"name": "gated", "d_hidden": 512}}
    mixture = block(attention="multi-head", feedforward=experts).feedforward
    forms = {
        "component": lambda: mixture(x_TE[None], Forward(ids_1T))[0],
        "every expert": lambda: every_expert(mixture, x_TE, ids_1T),
    }
    compare("identity experts", forms, given.rounds)


if __name__ == "__main__":
    main()
