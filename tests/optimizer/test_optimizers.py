"""Optimizers against torch's, for every kind of tensor in a model."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from gptkit.components.optimizer.adafactor import AdafactorSpec
from gptkit.components.optimizer.adamw import AdamWSpec
from gptkit.components.optimizer.ademamix import AdEMAMixSpec
from gptkit.components.optimizer.adopt import ADOPTSpec
from gptkit.components.optimizer.lion import LionSpec
from gptkit.components.optimizer.muon import MuonSpec
from gptkit.components.optimizer.schedule_free import ScheduleFreeSpec
from gptkit.components.optimizer.sgd import SGDSpec
from gptkit.components.optimizer.soap import SOAPSpec
from gptkit.model.gpt import GPT

SPECS = [
    *(AdamWSpec(), SGDSpec(), MuonSpec(), SOAPSpec(), LionSpec(), AdafactorSpec(), AdafactorSpec(beta1=0.9)),
    *(AdEMAMixSpec(alpha_warmup_steps=4, beta3_warmup_steps=5), ADOPTSpec(), ScheduleFreeSpec()),
]


class Net(nn.Module):
    """Model with a table, two matrices, a norm and a tied output, which optimizers distinguish."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(11, 8)
        self.up = nn.Linear(8, 16)
        self.down = nn.Linear(16, 8, bias=False)
        self.norm = nn.LayerNorm(8)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.table(ids)
        return self.norm(x + self.down(self.up(x).tanh())) @ self.table.weight.T


@pytest.fixture
def net() -> Net:
    torch.manual_seed(1)
    made = Net()
    for parameter in made.parameters():
        nn.init.normal_(parameter)
    return made


def take_steps(net: nn.Module, optimizer: torch.optim.Optimizer, n_steps: int, first: int = 0) -> None:
    for step in range(first, first + n_steps):
        generator = torch.Generator().manual_seed(step)
        ids = torch.randint(11, (4, 6), generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(ids).flatten(0, 1), ids.roll(1).flatten()).backward()
        optimizer.step()


def distance(one: nn.Module, other: nn.Module) -> float:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return max(float((a - b).detach().abs().max()) for a, b in pairs)


def split(net: Net) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    decayed = [net.table.weight, net.up.weight, net.down.weight]
    return decayed, [net.up.bias, net.norm.weight, net.norm.bias]


def test_adamw_equals_torch_with_decay_on_matrices_only(net: Net) -> None:
    other = copy.deepcopy(net)
    spec = AdamWSpec(learning_rate=0.03, betas=(0.8, 0.9), eps=1e-6, weight_decay=0.2)
    take_steps(net, spec.build(net), 5)
    decayed, spared = split(other)
    groups = [{"params": decayed, "weight_decay": 0.2}, {"params": spared, "weight_decay": 0.0}]
    take_steps(other, torch.optim.AdamW(groups, lr=0.03, betas=(0.8, 0.9), eps=1e-6), 5)
    assert distance(net, other) < 1e-6


def test_adamw_decays_all_parameters_on_request(net: Net) -> None:
    other = copy.deepcopy(net)
    take_steps(net, AdamWSpec(learning_rate=0.03, weight_decay=0.2, decay="all").build(net), 5)
    take_steps(other, torch.optim.AdamW(other.parameters(), lr=0.03, betas=(0.9, 0.95), weight_decay=0.2), 5)
    assert distance(net, other) < 1e-6


def test_adamw_is_fused_if_torch_supports_it(net: Net) -> None:
    assert all(group["fused"] for group in AdamWSpec().build(net).param_groups)


def test_sgd_equals_torch(net: Net) -> None:
    other = copy.deepcopy(net)
    take_steps(net, SGDSpec(learning_rate=0.05, momentum=0.7, nesterov=True, weight_decay=0.1).build(net), 5)
    decayed, spared = split(other)
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": spared}]
    take_steps(other, torch.optim.SGD(groups, lr=0.05, momentum=0.7, nesterov=True), 5)
    assert distance(net, other) < 1e-6


def test_nesterov_without_momentum_is_rejected() -> None:
    assert [problem.path for problem in SGDSpec(momentum=0, nesterov=True).problems(None)] == [("nesterov",)]


def reference_muon(net: Net, **settings: Any) -> list[torch.optim.Optimizer]:
    muon = torch.optim.Muon(
        [net.up.weight, net.down.weight], lr=0.02, weight_decay=0.2, momentum=0.9, nesterov=True, ns_steps=4, **settings
    )
    groups = [
        {"params": [net.table.weight], "weight_decay": 0.2},
        {"params": [net.up.bias, net.norm.weight, net.norm.bias], "weight_decay": 0.0},
    ]
    return [muon, torch.optim.AdamW(groups, lr=0.005, betas=(0.8, 0.9))]


@pytest.mark.parametrize(("scale", "torchs"), [("rms", "match_rms_adamw"), ("spectral", "original")])
def test_muon_equals_torch_for_hidden_matrices_and_adamw_otherwise(net: Net, scale: Any, torchs: str) -> None:
    other = copy.deepcopy(net)
    spec = MuonSpec(
        learning_rate=0.02,
        weight_decay=0.2,
        momentum=0.9,
        iterations=4,
        scale=scale,
        adamw_learning_rate=0.005,
        adamw_betas=(0.8, 0.9),
    )
    optimizer = spec.build(net)
    references = reference_muon(other, adjust_lr_fn=torchs)
    for step in range(4):
        take_steps(net, optimizer, 1, first=step)
        generator = torch.Generator().manual_seed(step)
        ids = torch.randint(11, (4, 6), generator=generator)
        other.zero_grad()
        nn.functional.cross_entropy(other(ids).flatten(0, 1), ids.roll(1).flatten()).backward()
        for reference in references:
            reference.step()
    assert distance(net, other) < 1e-6


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_every_parameter_is_in_exactly_one_group(net: Net, spec: Any) -> None:
    net.norm.bias.requires_grad_(False)
    optimizer = spec.build(net)
    held = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    assert sorted(held) == sorted(id(p) for p in net.parameters() if p.requires_grad)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_state_resumes_bit_identically(net: Net, spec: Any) -> None:
    optimizer = spec.build(net)
    take_steps(net, optimizer, 3)
    other = copy.deepcopy(net)
    fresh = spec.build(other)
    fresh.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    take_steps(net, optimizer, 3, first=3)
    take_steps(other, fresh, 3, first=3)
    assert distance(net, other) == 0


def test_rate_of_a_joined_optimizer_can_be_changed_after_loading(net: Net) -> None:
    optimizer = MuonSpec().build(net)
    take_steps(net, optimizer, 1)
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    before = copy.deepcopy(net)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    take_steps(net, optimizer, 1, first=1)
    assert distance(net, before) == 0


def test_muon_optimizes_the_hidden_matrices_of_a_gpt() -> None:
    model = GPT({"d_model": 16, "n_layers": 1, "context_length": 8, "position": "learned"}, vocab_size=11)
    optimizer = MuonSpec().build(model)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    by_muon = {names[id(p)] for group in optimizer.param_groups if "ns_steps" in group for p in group["params"]}
    assert by_muon == {name for name, p in model.named_parameters() if name.startswith("blocks.") and p.ndim == 2}
    assert len(by_muon) == 4


@pytest.mark.parametrize("spec", [LionSpec(), AdEMAMixSpec(), ADOPTSpec(), ScheduleFreeSpec()], ids=lambda spec: spec.name)
def test_parameters_updated_in_parts_are_those_updated_at_once(net: Net, spec: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    other = copy.deepcopy(net)
    take_steps(net, spec.build(net), 3)
    monkeypatch.setattr("gptkit.components.optimizer.modules.elementwise._MOST", 100)
    take_steps(other, spec.build(other), 3)
    assert distance(net, other) == 0


@pytest.mark.parametrize("spec", [LionSpec(), AdEMAMixSpec(), ADOPTSpec(), ScheduleFreeSpec()], ids=lambda spec: spec.name)
def test_a_parameter_that_lacks_some_gradients_counts_its_own_updates(net: Net, spec: Any) -> None:
    alone = copy.deepcopy(net)
    optimizer, other = spec.build(net), spec.build(alone)
    for step in range(6):
        gradient = torch.randn(8, 16, generator=torch.Generator().manual_seed(step))
        for parameter in net.parameters():
            parameter.grad = torch.ones_like(parameter)
        net.down.weight.grad = alone.down.weight.grad = None if step % 3 == 1 else gradient
        optimizer.step()
        other.step()
    assert torch.equal(net.down.weight, alone.down.weight)
