"""Lightning attention in chunks, against its formula token by token and as one product over all pairs of tokens.

python -m benchmarks.lightning [--tokens 2048] [--heads 8] [--features 64] [--rounds 5]

One thread, fp32. Each form is run in turn; the shortest of the rounds counts, since other programs can only slow one down.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.interleave import environment
from gptkit.ops.decayed_attention import decayed_attention, decayed_attention_step

__all__ = ["main"]


def token_by_token(q_BTHK: Tensor, k_BTHK: Tensor, v_BTHV: Tensor, slopes_H: Tensor, state_BHKV: Tensor) -> Tensor:
    """The recurrence."""
    outputs = []
    for t in range(q_BTHK.shape[1]):
        each = (x[:, t] for x in (q_BTHK, k_BTHK, v_BTHV))
        out_BHV, state_BHKV = decayed_attention_step(*each, slopes_H, state_BHKV)  # type: ignore[call-arg]
        outputs.append(out_BHV)
    return torch.stack(outputs, dim=1)


def all_pairs(q_BTHK: Tensor, k_BTHK: Tensor, v_BTHV: Tensor, slopes_H: Tensor) -> Tensor:
    """Scores of all pairs of tokens, multiplied by the decay between them."""
    index_T = torch.arange(q_BTHK.shape[1])
    back_TT = index_T[:, None] - index_T
    decay_HTT = (-slopes_H[:, None, None] * back_TT).masked_fill(back_TT < 0, float("-inf")).exp()
    q_BHTK, k_BHTK, v_BHTV = (x.transpose(1, 2) for x in (q_BTHK, k_BTHK, v_BTHV))
    return (((q_BHTK @ k_BHTK.mT) * decay_HTT) @ v_BHTV).transpose(1, 2)


def timed(form: Callable[[], Tensor], *, backward: bool) -> float:
    """Return the seconds of one call."""
    began = time.perf_counter()
    out = form()
    if backward:
        out.square().sum().backward()
    return time.perf_counter() - began


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, usual in (("tokens", 2048), ("heads", 8), ("features", 64), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    options = parser.parse_args()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    shape = (1, options.tokens, options.heads, options.features)
    q, k, v = (torch.randn(shape, generator=generator, requires_grad=True) for _ in range(3))
    slopes = torch.tensor([2.0 ** (-8 * (head + 1) / options.heads) for head in range(options.heads)])
    state = torch.zeros(1, options.heads, options.features, options.features)
    forms: dict[str, Callable[[], Tensor]] = {
        "chunks": lambda: decayed_attention(q, k, v, slopes, state)[0],
        "token by token": lambda: token_by_token(q, k, v, slopes, state),
        "all pairs": lambda: all_pairs(q, k, v, slopes),
    }
    expected = forms["chunks"]().detach()
    for name, form in forms.items():
        distance = float((form().detach() - expected).abs().max() / expected.abs().max())
        print(f"{name}: largest difference {distance:.1e} of the largest output")
    print(environment())
    for what, backward in (("forward", False), ("forward and backward", True)):
        seconds = {name: float("inf") for name in forms}
        for _ in range(options.rounds):
            for name, form in forms.items():
                seconds[name] = min(seconds[name], timed(form, backward=backward))
        print(f"{what}: " + ", ".join(f"{name} {1e3 * each:.1f} ms" for name, each in seconds.items()))


if __name__ == "__main__":
    main()
