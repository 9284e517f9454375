"""Continuations that a tiny model has memorized, so that its greedy tokens survive rounding."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from gptkit.model.gpt import GPT
from tests.support.llama_server import PROMPTS

__all__ = ["LENGTH", "continuations", "memorize"]

LENGTH = 20
"""Tokens after each prompt."""
MARGIN = 4.0
"""Least difference between the logits of a memorized token and of the next one."""
NOISE = 0.05
"""Standard deviation of the change of each weight in a step, in standard deviations of its tensor."""
STEPS = 300
CLEAR = 8
"""Steps in succession that must have the margin, each with other noise."""


def continuations() -> list[list[int]]:
    """Return `LENGTH` random letters, as bytes, for each prompt."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(97, 123, (LENGTH,), generator=generator).tolist() for _ in PROMPTS]


def memorize(model: GPT) -> None:
    """Train all weights until each prompt has its continuation with a clear margin, whatever the rounding of the weights.

    Random weights choose between nearly equal logits, and llama.cpp, which rounds the activations too, chooses otherwise.
    With memorized tokens only the choices of a router can be close: the noise of each step changes some of them, so that the
    margin does not depend on them.
    """
    ids_BT, targets_BT = _batch()
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.0)
    generator = torch.Generator().manual_seed(2)
    model.train()
    clear, margin = 0, 0.0
    for _ in range(STEPS):
        weights = [parameter.detach().clone() for parameter in parameters]
        with torch.no_grad():
            for parameter in parameters:
                spread = float(parameter.std()) if parameter.numel() > 1 else 0.0
                parameter.add_(NOISE * spread * torch.randn(parameter.shape, generator=generator))
        result = model(ids_BT, targets_BT, with_logits=True)
        margin = _margin(result.logits.detach(), targets_BT)
        optimizer.zero_grad()
        result.loss.backward()
        clip_grad_norm_(parameters, 1.0)
        with torch.no_grad():
            for parameter, weight in zip(parameters, weights, strict=True):
                parameter.copy_(weight)
        clear = clear + 1 if margin > MARGIN else 0
        if clear == CLEAR:
            return
        optimizer.step()
    raise AssertionError(f"not memorized in {STEPS} steps: the least margin is {margin:.2f}")


def _batch() -> tuple[Tensor, Tensor]:
    """Return a row for each prompt and its continuation, which alone has targets."""
    rows = [[*prompt.encode(), *tokens] for prompt, tokens in zip(PROMPTS, continuations(), strict=True)]
    ids_BT = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    targets_BT = torch.full_like(ids_BT, -100)
    for row, tokens in enumerate(rows):
        ids_BT[row, : len(tokens)] = torch.tensor(tokens)
        targets_BT[row, len(tokens) - LENGTH - 1 : len(tokens) - 1] = torch.tensor(tokens[-LENGTH:])
    return ids_BT, targets_BT


def _margin(logits_BTV: Tensor, targets_BT: Tensor) -> float:
    """Return by how much the target's logit exceeds all others, at the position where it does so least."""
    learned = targets_BT >= 0
    logits_NV, targets_N1 = logits_BTV[learned], targets_BT[learned][:, None]
    others_N = logits_NV.scatter(1, targets_N1, -torch.inf).amax(dim=1)
    return float((logits_NV.gather(1, targets_N1)[:, 0] - others_N).min())
