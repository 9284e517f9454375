"""Checks of the kinds `optimizer` and `schedule`."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn

from gptkit.kinds.optimizer import ParameterGroupSpec
from gptkit.testing.check import Checks, expect, skip
from gptkit.testing.subject import Subject

__all__ = ["optimizer_checks", "schedule_checks"]

optimizer_checks = Checks()
schedule_checks = Checks()


class _Net(nn.Module):
    """Model with the parameters that optimizers distinguish: table, matrices, norm weight, bias, and a frozen weight."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        shapes = {"table": (11, 8), "up": (16, 8), "down": (8, 16), "scale": (8,), "bias": (16,), "frozen": (4,)}
        for name, shape in shapes.items():
            setattr(self, name, nn.Parameter(torch.randn(shape, generator=generator)))
        self.frozen: nn.Parameter
        self.up: nn.Parameter
        self.bias: nn.Parameter
        self.frozen.requires_grad_(False)

    def distance(self) -> Tensor:
        """Return a quadratic loss of all weights."""
        terms = [(parameter - 0.3).square().sum() for parameter in self.parameters() if parameter.requires_grad]
        return torch.stack(terms).sum()

    def step(self, optimizer: torch.optim.Optimizer) -> float:
        optimizer.zero_grad()
        loss = self.distance()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return float(loss.detach())


@optimizer_checks.add("holds-every-weight", "A weight in no group is never trained, and one in two groups is updated twice.")
def holds_every_weight(subject: Subject) -> None:
    net = _Net()
    optimizer = subject.spec.build(net)
    held = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    for name, parameter in net.named_parameters():
        times, wanted = held.count(id(parameter)), int(parameter.requires_grad)
        kind = "trainable" if wanted else "frozen"
        expect(times == wanted, f"the {kind} weight {name!r} of shape {tuple(parameter.shape)} is in {times} groups")
    expect(all("lr" in group for group in optimizer.param_groups), "a group has no `lr`, which the schedule multiplies")


@optimizer_checks.add("reduces-loss", "An optimizer must reduce a quadratic loss.")
def reduces_loss(subject: Subject) -> None:
    net = _Net()
    optimizer = subject.spec.build(net)
    before = {name: parameter.detach().clone() for name, parameter in net.named_parameters()}
    losses = [net.step(optimizer) for _ in range(100)]
    expect(all(map(math.isfinite, losses)), "the loss is not finite")
    expect(losses[-1] < 0.99 * losses[0], f"in 100 steps a quadratic went from {losses[0]:.4g} to {losses[-1]:.4g}")
    still = [n for n, p in net.named_parameters() if p.requires_grad and torch.equal(p.detach(), before[n])]
    expect(not still, f"after 100 steps {', '.join(still)} has not moved")


@optimizer_checks.add(
    "obeys-the-rate", "The schedule sets each group's `lr`; at 0 no weight may change, also by weight decay."
)
def obeys_the_rate(subject: Subject) -> None:
    net = _Net()
    optimizer = subject.spec.build(net)
    net.step(optimizer)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    before = {name: parameter.detach().clone() for name, parameter in net.named_parameters()}
    net.step(optimizer)
    moved = [name for name, parameter in net.named_parameters() if not torch.equal(parameter.detach(), before[name])]
    expect(not moved, f"with every group's lr at 0 a step moved {', '.join(moved)}")


@optimizer_checks.add("follows-the-rate", "The schedule changes each group's `lr` in every step; a step must use its value.")
def follows_the_rate(subject: Subject) -> None:
    distances = []
    for factor in (1.0, 0.01):
        net = _Net()
        optimizer = subject.spec.build(net)
        before = net.up.detach().clone()
        for group in optimizer.param_groups:
            group["lr"] *= factor
        for _ in range(2):  # the first one may only initialize the state
            net.step(optimizer)
        distances.append(float((net.up.detach() - before).norm()))
    seen = f"with a hundredth of the rate two steps moved a weight by {distances[1]:.3g}, and by {distances[0]:.3g} with it"
    expect(distances[1] < 0.5 * distances[0], f'{seen}; read `group["lr"]` in `step`')


@optimizer_checks.add(
    "zero-gradients", "Weights behind a projection that is initialized as zeros have gradients of 0 at first."
)
def zero_gradients(subject: Subject) -> None:
    for n_before in (0, 2):
        net = _Net()
        optimizer = subject.spec.build(net)
        for _ in range(n_before):
            net.step(optimizer)
        for parameter in net.parameters():
            parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
        optimizer.step()
        wrong = [name for name, parameter in net.named_parameters() if not parameter.isfinite().all()]
        expect(
            not wrong, f"after a step with gradients of 0, {', '.join(wrong)} is not finite; add a small number to divisors"
        )


@optimizer_checks.add("keeps-gradients", "Metrics of a step, such as norms of gradients, are computed after it.")
def keeps_gradients(subject: Subject) -> None:
    net = _Net()
    optimizer = subject.spec.build(net)
    for _ in range(2):
        optimizer.zero_grad()
        net.distance().backward()  # type: ignore[no-untyped-call]
        before = {name: parameter.grad.clone() for name, parameter in net.named_parameters() if parameter.grad is not None}
        optimizer.step()
        for name, gradient in before.items():
            now = net.get_parameter(name).grad
            expect(now is not None and torch.equal(now, gradient), f"a step changes the gradient of {name}; change a copy")


@optimizer_checks.add("obeys-groups", "A spec's `groups` must have their own learning rate and weight decay.")
def obeys_groups(subject: Subject) -> None:
    net, peaks = _Net(), dict[int, float]()
    for group in subject.spec.build(net).param_groups:
        peaks |= {id(parameter): group["lr"] for parameter in group["params"]}
    table = ParameterGroupSpec.model_validate({"match": "table", "rate": 0.5})
    bias = ParameterGroupSpec.model_validate({"match": "bias", "weight_decay": 0.25})
    optimizer = subject.spec.replace(groups=(table, bias)).build(net)
    for wanted, name in ((table, "table"), (bias, "bias")):
        parameter = getattr(net, name)
        own = [group for group in optimizer.param_groups if any(each is parameter for each in group["params"])]
        expect(len(own) == 1 and len(own[0]["params"]) == 1, f"the weight {name!r} is not in a group of its own")
        expect(own[0].get("label") == wanted.label, f"the group of {name!r} has no `label`: {wanted.label!r}")
        peak = peaks[id(parameter)] * (wanted.rate or 1)
        expect(math.isclose(own[0]["lr"], peak), f"the learning rate of {name!r} is {own[0]['lr']}, not {peak}")
        decay = own[0].get("weight_decay")
        expect(decay in (None, wanted.weight_decay or decay), f"the weight decay of {name!r} is {decay}, not 0.25")


@optimizer_checks.add("decays-groups", "A group's weight decay is stored in the optimizer; a step must apply it.")
def decays_groups(subject: Subject) -> None:
    weights = []
    for decay in (0.0, 0.9):
        net = _Net()
        group = ParameterGroupSpec.model_validate({"match": "up", "weight_decay": decay})
        optimizer = subject.spec.replace(groups=(group,)).build(net)
        own = next(each for each in optimizer.param_groups if any(parameter is net.up for parameter in each["params"]))
        if own.get("weight_decay") != decay:  # another value is reported by obeys-groups
            skip("its groups have no weight decay of their own")
        for _ in range(2):
            net.step(optimizer)
        weights.append(net.up.detach().clone())
    expect(not torch.equal(*weights), "a group's weight decay of 0.9 changes no weight, compared with 0")


@optimizer_checks.add("skips-missing-gradients", "An expert without tokens has no gradient in a step, and is not updated.")
def skips_missing_gradients(subject: Subject) -> None:
    for n_before in (0, 2):
        net = _Net()
        optimizer = subject.spec.build(net)
        for _ in range(n_before):
            net.step(optimizer)
        optimizer.zero_grad()
        net.distance().backward()  # type: ignore[no-untyped-call]
        before = net.up.detach().clone()
        net.up.grad = net.bias.grad = None
        optimizer.step()
        expect(torch.equal(net.up.detach(), before), "a weight without a gradient has changed")


class _Shapes(nn.Module):
    """Parameters as components have them: a number, one feature, a stack of experts, a convolution, a wide matrix."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        for index, shape in enumerate(((), (1,), (3, 4, 6), (6, 1, 4), (2, 40))):
            self.register_parameter(f"weight_{index}", nn.Parameter(torch.randn(shape, generator=generator)))


@optimizer_checks.add("every-shape", "Weights have any number of dimensions: scalars, stacked experts, convolutions.")
def every_shape(subject: Subject) -> None:
    net = _Shapes()
    optimizer = subject.spec.build(net)
    before = [parameter.detach().clone() for parameter in net.parameters()]
    for _ in range(3):
        optimizer.zero_grad()
        torch.stack([(parameter - 0.3).square().sum() for parameter in net.parameters()]).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    for parameter, old in zip(net.parameters(), before, strict=True):
        shape = tuple(parameter.shape)
        expect(parameter.isfinite().all(), f"a weight of shape {shape} is not finite after three steps")
        expect(not torch.equal(parameter.detach(), old), f"a weight of shape {shape} has not moved in three steps")


@optimizer_checks.add("state-resumes", "A resumed training run must continue bit-identically from the state dict.")
def state_resumes(subject: Subject) -> None:
    net = _Net()
    optimizer = subject.spec.build(net)
    for _ in range(3):
        net.step(optimizer)
    other = copy.deepcopy(net)
    fresh = subject.spec.build(other)
    stored = copy.deepcopy(optimizer.state_dict())
    wrong = _not_storable(stored)
    expect(not wrong, f"the state dict holds {wrong}; tensors, numbers, texts, lists and dicts can be stored")
    fresh.load_state_dict(stored)
    for step in range(25):  # more than the usual period of updates that are not made in every step
        net.step(optimizer)
        other.step(fresh)
        for (name, one), two in zip(net.named_parameters(), other.parameters(), strict=True):
            alike = torch.equal(one.detach(), two.detach())
            expect(alike, f"resumed from its state dict, {name} is another after {step + 1} steps")


@optimizer_checks.add(
    "evaluates-averages", "Weights to evaluate with are those of all parameters, and the same in a resumed training."
)
def evaluates_averages(subject: Subject) -> None:
    net = _Net()
    optimizer: Any = subject.spec.build(net)
    has_method, declared = hasattr(optimizer, "evaluation_weights"), getattr(subject.spec, "averages", False)
    expect(has_method == declared, "`averages` is not whether the built optimizer has a method `evaluation_weights`")
    if not declared:
        skip("it is evaluated with the trained weights")
    for n_steps in (0, 3):
        for _ in range(n_steps):
            net.step(optimizer)
        trained = [parameter.detach().clone() for parameter in net.parameters()]
        other = copy.deepcopy(net)
        fresh: Any = subject.spec.build(other)
        fresh.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        weights, resumed = optimizer.evaluation_weights(), fresh.evaluation_weights()
        for (name, parameter), same in zip(net.named_parameters(), other.parameters(), strict=True):
            if not parameter.requires_grad:
                continue
            expect(parameter in weights, f"after {n_steps} steps it returns no weights to evaluate {name} with")
            shapes = tuple(weights[parameter].shape), tuple(parameter.shape)
            expect(
                shapes[0] == shapes[1], f"the weights to evaluate with have the shape {shapes[0]}, and {name} {shapes[1]}"
            )
            alike = same in resumed and torch.equal(weights[parameter], resumed[same])
            expect(alike, f"resumed after {n_steps} steps, {name} is evaluated with other weights")
        changed = [
            name for (name, one), two in zip(net.named_parameters(), trained, strict=True) if not torch.equal(one, two)
        ]
        expect(not changed, f"`evaluation_weights` changes the trained {', '.join(changed)}")


def _not_storable(value: Any) -> str:
    if isinstance(value, dict):
        return next(filter(None, map(_not_storable, [*value.values()])), "")
    if isinstance(value, (list, tuple)):
        return next(filter(None, map(_not_storable, value)), "")
    return "" if value is None or isinstance(value, (Tensor, bool, int, float, str)) else f"a {type(value).__name__}"


@schedule_checks.add("within-bounds", "The factor is relative to the peak rate, which must not be exceeded.")
def within_bounds(subject: Subject) -> None:
    highest = 0.0
    for steps in (1, 2, 10, 997):
        for step in {*range(min(steps, 50)), *range(0, steps, 13), steps - 1}:
            factor = subject.spec.factor(step, steps)
            expect(isinstance(factor, (int, float)), f"the factor at step {step} of {steps} is a {type(factor).__name__}")
            expect(math.isfinite(factor) and 0 <= factor <= 1, f"the factor at step {step} of {steps} is {factor}")
            highest = max(highest, factor)
    expect(highest > 0, "the factor is 0 at every step, so nothing would be trained")


@schedule_checks.add("pure", "Trainings are resumed at any step, so the factor must depend on the step only.")
def pure(subject: Subject) -> None:
    steps = 100
    forward = [subject.spec.factor(step, steps) for step in range(steps)]
    backward = [subject.spec.factor(step, steps) for step in reversed(range(steps))][::-1]
    wrong = next((step for step in range(steps) if forward[step] != backward[step]), None)
    if wrong is not None:
        seen = f"{forward[wrong]:.6g} or {backward[wrong]:.6g}"
        expect(False, f"the factor at step {wrong} is {seen}, by what was asked before")
