"""Clipping of gradients, compared with torch's."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from gptkit.training.step import TrainingStep


@pytest.mark.parametrize("limit", [None, 1e-3, 1 - 1e-6, 1.0, 1 + 1.5e-6, 1e9])
def test_clipping_equals_that_of_torch_around_the_limit(limit: float | None) -> None:
    """A norm near the limit is the case in which gradients may be scaled by a factor of almost 1, or not at all."""
    torch.manual_seed(0)
    for _ in range(20):
        parameters = [nn.Parameter(torch.randn(5, 7)), nn.Parameter(torch.randn(3)), nn.Parameter(torch.randn(2))]
        gradients = [torch.randn_like(parameter) for parameter in parameters[:2]]  # the last one has none
        norm = math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients))
        gradients = [gradient / norm for gradient in gradients]

        def set_gradients(parameters: list[nn.Parameter] = parameters, gradients: list[torch.Tensor] = gradients) -> None:
            for parameter, gradient in zip(parameters, gradients, strict=False):
                parameter.grad = gradient.clone()

        set_gradients()
        expected = nn.utils.clip_grad_norm_(parameters, limit or math.inf)
        clipped = [parameter.grad for parameter in parameters[:2]]
        set_gradients()
        step = TrainingStep(
            nn.Identity(),
            torch.optim.SGD(parameters, lr=1.0),
            device=torch.device("cpu"),
            precision=torch.float32,
            clip=limit,
        )
        assert torch.equal(step._clip(), expected)
        for parameter, gradient in zip(parameters, clipped, strict=False):
            assert gradient is not None
            assert parameter.grad is not None
            assert torch.equal(parameter.grad, gradient)
