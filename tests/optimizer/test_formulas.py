"""Optimizers against the formulas of their papers, computed number by number in double precision."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from gptkit.components.optimizer.adafactor import AdafactorSpec
from gptkit.components.optimizer.ademamix import AdEMAMixSpec
from gptkit.components.optimizer.adopt import ADOPTSpec
from gptkit.components.optimizer.lion import LionSpec
from gptkit.components.optimizer.schedule_free import ScheduleFreeSpec
from gptkit.kinds.optimizer import OptimizerSpec

STEPS, RATE, DECAY = 9, 0.05, 0.3
RATES = [RATE * factor for factor in (0.25, 0.5, 0.75, 1, 1, 0.8, 0.6, 0.4, 0.2)]
"""The schedule of the tests: a warmup and a decay."""

Weights = list[np.ndarray[Any, Any]]


class Net(nn.Module):
    """Model of two matrices, a vector and a number."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        shapes = [(4, 3), (3, 5), (6,), ()]
        self.weights = nn.ParameterList(torch.randn(shape, generator=generator).double() for shape in shapes)


def gradients(step: int) -> Weights:
    """Return gradients whose sizes and signs change, some of them large."""
    random = np.random.default_rng(step)
    return [random.normal(size=tuple(weight.shape)) * (3.0 if step % 4 == 2 else 0.5) for weight in Net().weights]


def trained(spec: OptimizerSpec) -> tuple[Weights, Any]:
    """Return the weights after all steps, and the optimizer."""
    net = Net()
    optimizer = spec.build(net)
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = RATES[step]
        for weight, gradient in zip(net.weights, gradients(step), strict=True):
            weight.grad = torch.from_numpy(np.asarray(gradient))
        optimizer.step()
    return [weight.detach().numpy() for weight in net.weights], optimizer


def each_number(update: Any, *, states: int) -> Weights:
    """Return the weights after all steps of ``update(step, weight, gradient, state)``, which returns a weight."""
    results = []
    for index, initial in enumerate(Net().weights):
        weight = initial.detach().numpy().copy()
        state = [[0.0] * states + [float(number)] for number in weight.ravel()]
        for step in range(STEPS):
            gradient = np.asarray(gradients(step)[index]).ravel()
            flat = [
                update(step, float(number), float(gradient[entry]), state[entry])
                for entry, number in enumerate(weight.ravel())
            ]
            weight = np.array(flat).reshape(weight.shape)
        results.append(weight)
    return results


def decayed(step: int, weight: float, update: float, cautious: bool) -> float:
    return RATES[step] * DECAY * weight if not cautious or update * weight >= 0 else 0.0


def assert_close(actual: Weights, expected: Weights) -> None:
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-12)


def fields(cautious: bool, **more: Any) -> dict[str, Any]:
    return {"learning_rate": RATE, "weight_decay": DECAY, "decay": "all", "cautious": cautious, **more}


@pytest.mark.parametrize("cautious", [False, True])
def test_lion_equals_its_formula(cautious: bool) -> None:
    def update(step: int, weight: float, gradient: float, state: list[float]) -> float:
        change = math.copysign(1.0, 0.8 * state[0] + 0.2 * gradient)
        state[0] = 0.95 * state[0] + 0.05 * gradient
        return weight - decayed(step, weight, change, cautious) - RATES[step] * change

    spec = LionSpec.model_validate(fields(cautious, betas=(0.8, 0.95)))
    assert_close(trained(spec)[0], each_number(update, states=1))


@pytest.mark.parametrize("cautious", [False, True])
@pytest.mark.parametrize(("beta1", "alpha_steps", "beta3_steps"), [(0.8, 0, 0), (0.8, 6, 4), (0.8, 30, 20), (0.0, 0, 0)])
def test_ademamix_equals_its_formula(cautious: bool, beta1: float, alpha_steps: int, beta3_steps: int) -> None:
    def update(step: int, weight: float, gradient: float, state: list[float]) -> float:
        t, alpha, beta3 = step + 1, 3.0, 0.99
        if alpha_steps:
            alpha = min(t / alpha_steps * alpha, alpha)
        if beta3_steps:
            first, last, passed = math.log(beta1), math.log(beta3), t / beta3_steps
            beta3 = min(math.exp(first * last / ((1 - passed) * last + passed * first)), beta3)
        state[0] = beta1 * state[0] + (1 - beta1) * gradient
        state[1] = beta3 * state[1] + (1 - beta3) * gradient
        state[2] = 0.9 * state[2] + 0.1 * gradient**2
        denominator = math.sqrt(state[2] / (1 - 0.9**t)) + 1e-3
        change = (state[0] / (1 - beta1**t) + alpha * state[1]) / denominator
        return weight - decayed(step, weight, change, cautious) - RATES[step] * change

    spec = AdEMAMixSpec.model_validate(
        fields(
            cautious,
            betas=(beta1, 0.9, 0.99),
            alpha=3.0,
            eps=1e-3,
            alpha_warmup_steps=alpha_steps,
            beta3_warmup_steps=beta3_steps,
        )
    )
    assert_close(trained(spec)[0], each_number(update, states=3))


def test_half_life_of_ademamix_rises_linearly_also_from_zero() -> None:
    from gptkit.components.optimizer.modules.ademamix import warm_beta3

    def half_life(beta: float) -> float:
        return math.log(0.5) / math.log(beta)

    for beta1 in (0.0, 0.9):
        values = [half_life(warm_beta3(step, beta1, 0.999, 50)) for step in range(1, 51)]
        np.testing.assert_allclose(np.diff(values), np.diff(values)[0], rtol=1e-6)
        assert warm_beta3(50, beta1, 0.999, 50) == warm_beta3(90, beta1, 0.999, 50) == 0.999


@pytest.mark.parametrize("cautious", [False, True])
@pytest.mark.parametrize("exponent", [0.25, 0.0, None])
def test_adopt_equals_its_formula(cautious: bool, exponent: float | None) -> None:
    def update(step: int, weight: float, gradient: float, state: list[float]) -> float:
        if step == 0:
            state[1] = gradient**2
            return weight
        divided = gradient / max(math.sqrt(state[1]), 0.1)
        if exponent is not None:
            divided = max(-(step**exponent), min(step**exponent, divided))
        state[0] = 0.8 * state[0] + 0.2 * divided
        state[1] = 0.9 * state[1] + 0.1 * gradient**2
        return weight - decayed(step, weight, state[0], cautious) - RATES[step] * state[0]

    spec = ADOPTSpec.model_validate(fields(cautious, betas=(0.8, 0.9), eps=0.1, clip_exponent=exponent))
    assert_close(trained(spec)[0], each_number(update, states=2))


@pytest.mark.parametrize("cautious", [False, True])
def test_schedule_free_equals_its_formula(cautious: bool) -> None:
    beta1, beta2, eps = 0.7, 0.9, 1e-3

    def update(step: int, y: float, gradient: float, state: list[float]) -> float:
        """Return y, or x after the last step; the state is v, z, x, and the initial weight."""
        if step == 0:
            state[1] = state[2] = state[3]
        assert y == pytest.approx((1 - beta1) * state[1] + beta1 * state[2])
        state[0] = beta2 * state[0] + (1 - beta2) * gradient**2
        change = gradient / (math.sqrt(state[0] / (1 - beta2 ** (step + 1))) + eps)
        state[1] -= RATES[step] * change + decayed(step, y, change, cautious)
        share = RATES[step] ** 2 / sum(rate**2 for rate in RATES[: step + 1])
        state[2] = (1 - share) * state[2] + share * state[1]
        y = (1 - beta1) * state[1] + beta1 * state[2]
        return state[2] if averaged and step == STEPS - 1 else y

    spec = ScheduleFreeSpec.model_validate(fields(cautious, betas=(beta1, beta2), eps=eps))
    weights, optimizer = trained(spec)
    averaged = False
    assert_close(weights, each_number(update, states=3))
    averaged = True
    assert_close([x.numpy() for x in optimizer.evaluation_weights().values()], each_number(update, states=3))


def rms(values: Any) -> float:
    return math.sqrt(float(np.mean(np.square(values))))


@pytest.mark.parametrize("cautious", [False, True])
@pytest.mark.parametrize("factored", [True, False])
@pytest.mark.parametrize(("scaled", "beta1"), [(True, None), (False, 0.6)])
def test_adafactor_equals_its_formula(cautious: bool, factored: bool, scaled: bool, beta1: float | None) -> None:
    eps1, eps2, threshold = 1e-3, 0.2, 0.7
    expected = []
    for index, initial in enumerate(Net().weights):
        weight = initial.detach().numpy().copy()
        matrix = factored and weight.ndim == 2
        rows, columns, square, average = 0.0, 0.0, 0.0, 0.0
        for step in range(STEPS):
            gradient = np.asarray(gradients(step)[index])
            beta = 1 - (step + 1) ** -0.8
            squared = gradient**2 + eps1
            if matrix:
                rows = beta * rows + (1 - beta) * squared.sum(1)
                columns = beta * columns + (1 - beta) * squared.sum(0)
                moment = np.outer(rows, columns) / np.sum(rows)
            else:
                moment = square = beta * square + (1 - beta) * squared
            update = gradient / np.sqrt(moment)
            update = update / max(1.0, rms(update) / threshold)
            update = update * (max(eps2, rms(weight)) if scaled else 1.0)
            if beta1 is not None:
                update = average = beta1 * average + (1 - beta1) * update
            decay = (
                RATES[step] * DECAY * np.where(update * weight >= 0, weight, 0) if cautious else RATES[step] * DECAY * weight
            )
            weight = weight - decay - RATES[step] * update
        expected.append(weight)
    spec = AdafactorSpec.model_validate(
        fields(cautious, factored=factored, scale_parameter=scaled, beta1=beta1, eps=(eps1, eps2), clip_threshold=threshold)
    )
    assert_close(trained(spec)[0], expected)


def test_adafactor_equals_torchs_where_both_have_the_same_options() -> None:
    net, other = Net(), Net()
    spec = AdafactorSpec(learning_rate=0.05, weight_decay=DECAY, decay="all")
    optimizers = spec.build(net), torch.optim.Adafactor(other.parameters(), lr=0.05, weight_decay=DECAY, eps=(1e-15, 1e-3))
    for step in range(STEPS):
        for model, optimizer in zip((net, other), optimizers, strict=True):
            for weight, gradient in zip(model.weights, gradients(step), strict=True):
                weight.grad = torch.from_numpy(np.asarray(gradient))
            optimizer.step()
    assert_close([w.detach().numpy() for w in net.weights], [w.detach().numpy() for w in other.weights])


def test_adafactor_of_a_stack_is_that_of_its_matrices() -> None:
    stacked = nn.Module()
    stacked.register_parameter("weight", nn.Parameter(torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))))
    apart = nn.ParameterList(matrix.detach().clone() for matrix in stacked.get_parameter("weight"))
    optimizers = AdafactorSpec().build(stacked), AdafactorSpec().build(apart)
    for step in range(4):
        weight = stacked.get_parameter("weight")
        weight.grad = (
            torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(step)) * torch.tensor([1, 5, 9])[:, None, None]
        )
        for matrix, gradient in zip(apart, weight.grad, strict=True):
            matrix.grad = gradient.clone()
        for optimizer in optimizers:
            optimizer.step()
    torch.testing.assert_close(stacked.get_parameter("weight"), torch.stack(list(apart)), rtol=0, atol=1e-6)


def test_adafactor_of_tiny_gradients_has_updates_of_ordinary_size() -> None:
    layer = nn.Linear(4, 4, bias=False)
    before = layer.weight.detach().clone()
    layer.weight.grad = 1e-12 * torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    AdafactorSpec(scale_parameter=False, learning_rate=1.0, weight_decay=0).build(layer).step()
    assert 0.5 < rms((layer.weight.detach() - before).numpy()) < 1.001
