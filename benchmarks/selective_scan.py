"""The selective scan of Mamba and the recurrence of RG-LRU in chunks, against their formulas token by token.

python -m benchmarks.selective_scan [--tokens 512] [--features 512] [--state 16] [--rounds 3]

One thread, fp32. Each form is run in turn; the shortest of the rounds counts, since other programs can only slow one down.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from benchmarks.interleave import environment
from gptkit.ops.linear_recurrence import linear_recurrence
from gptkit.ops.selective_scan import selective_scan

__all__ = ["main"]


def scan_by_token(
    v_BTX: Tensor, step_BTX: Tensor, rates_XN: Tensor, k_BTN: Tensor, q_BTN: Tensor, state_BXN: Tensor
) -> Tensor:
    """The selective scan as its formula has it."""
    outputs = []
    for t in range(v_BTX.shape[1]):
        decay_BXN = (step_BTX[:, t, :, None] * rates_XN).exp()
        state_BXN = decay_BXN * state_BXN + (step_BTX[:, t] * v_BTX[:, t])[..., None] * k_BTN[:, t, None]
        outputs.append((state_BXN @ q_BTN[:, t, :, None])[..., 0])
    return torch.stack(outputs, dim=1)


def recurrence_by_token(decay_BTX: Tensor, input_BTX: Tensor, state_BX: Tensor) -> Tensor:
    """The recurrence of each feature as its formula has it."""
    states = []
    for t in range(decay_BTX.shape[1]):
        state_BX = decay_BTX[:, t] * state_BX + input_BTX[:, t]
        states.append(state_BX)
    return torch.stack(states, dim=1)


def options(description: str | None, **usual: int) -> argparse.Namespace:
    """Read the options of a comparison on one thread, each with its usual value, and print the environment."""
    parser = argparse.ArgumentParser(description=description)
    for name, value in usual.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    result = parser.parse_args()
    torch.set_num_threads(1)
    print(environment())
    return result


def compare(title: str, forms: Mapping[str, Callable[[], Tensor]], rounds: int) -> None:
    """Print the distance of the forms, and their times."""
    first, second = (form().detach() for form in forms.values())
    print(f"{title}: largest difference {float((first - second).abs().max() / first.abs().max()):.1e} of the largest output")
    for what, backward in (("forward", False), ("forward and backward", True)):
        seconds = dict.fromkeys(forms, float("inf"))
        for _ in range(rounds):
            for name, form in forms.items():
                began = time.perf_counter()
                with torch.set_grad_enabled(backward):
                    out = form()
                if backward:
                    out.square().sum().backward()
                seconds[name] = min(seconds[name], time.perf_counter() - began)
        print(f"  {what}: " + ", ".join(f"{name} {1e3 * each:.1f} ms" for name, each in seconds.items()))


def main() -> None:
    """Measure and print."""
    given = options(__doc__, tokens=512, features=512, state=16, rounds=3)
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    n_tokens, n_features, n_state = given.tokens, given.features, given.state
    v, step = draw(1, n_tokens, n_features), draw(1, n_tokens, n_features).exp() * 0.01
    k, q = draw(1, n_tokens, n_state), draw(1, n_tokens, n_state)
    rates, state = -torch.arange(1.0, n_state + 1).expand(n_features, -1), torch.zeros(1, n_features, n_state)
    decay = draw(1, n_tokens, n_features).sigmoid()
    for tensor in (v, step, k, q, decay):
        tensor.requires_grad_()
    heads = (v[:, :, None], step[:, :, None])
    scans = {
        "chunks": lambda: selective_scan(*heads, rates[None], k[:, :, None], q[:, :, None], state[:, None])[0].flatten(2),
        "token by token": lambda: scan_by_token(v, step, rates, k, q, state),
    }
    compare("selective scan", scans, given.rounds)
    recurrences = {
        "chunks": lambda: linear_recurrence(decay, v, state[..., 0]),
        "token by token": lambda: recurrence_by_token(decay, v, state[..., 0]),
    }
    compare("recurrence", recurrences, given.rounds)


if __name__ == "__main__":
    main()
