"""`training.optimizer.groups`: learning rate and weight decay by parameter name."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import nn

import gptkit
from gptkit.components.optimizer.sgd import SGDSpec
from gptkit.core.errors import CheckpointError, SpecError, TrainingError
from gptkit.core.registry import default_registry
from gptkit.kinds.optimizer import OptimizerSpec
from gptkit.nn.parameters import ParameterOptions, parameter_options
from gptkit.training.groups import build_optimizer

MODEL = {"d_model": 16, "n_layers": 2, "context_length": 8, "attention": {"n_heads": 2}}
GROUPS: list[dict[str, Any]] = [
    {"match": ["blocks.*.attention_norm", "final_norm"], "rate": 2.0, "weight_decay": 0.3},
    {"match": "blocks.1", "rate": 0.5},
    {"match": "embedding", "weight_decay": 0.0},
]


def spec(**optimizer: Any) -> dict[str, Any]:
    training = {
        "steps": 4,
        "batch_size": 2,
        "log_every": 2,
        "evaluate_every": None,
        "evaluate_batches": 1,
        "sample_tokens": 0,
        "checkpoint_every": 2,
        "device": "cpu",
        "schedule": "constant",
        "optimizer": {"name": "adamw", **optimizer},
    }
    return {"tokenizer": "byte", "model": MODEL, "training": training}


def settings(model: nn.Module, spec: OptimizerSpec) -> dict[str, tuple[float, float]]:
    """Return the peak learning rate and the weight decay of every parameter."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = build_optimizer(spec, model).param_groups
    return {names[id(each)]: (group["lr"], group["weight_decay"]) for group in groups for each in group["params"]}


@pytest.mark.parametrize("name", sorted(default_registry().names("optimizer")))
def test_first_matching_group_counts_in_every_optimizer(name: str) -> None:
    model = gptkit.build(spec())
    fields = {"name": name, "learning_rate": 0.1, "weight_decay": 0.2}
    given = settings(model, gptkit.open_spec(spec(**fields, groups=GROUPS)).spec.training.optimizer)
    plain = settings(model, gptkit.open_spec(spec(**fields)).spec.training.optimizer)
    assert given.keys() == plain.keys() == dict(model.named_parameters()).keys()
    for parameter, (rate, decay) in plain.items():
        if parameter.startswith(("blocks.0.attention_norm", "blocks.1.attention_norm", "final_norm")):
            expected = (2 * rate, 0.3)
        elif parameter.startswith("blocks.1."):
            expected = (0.5 * rate, decay)
        elif parameter.startswith("embedding"):
            expected = (rate, 0.0)
        else:
            expected = (rate, decay)
        assert given[parameter] == pytest.approx(expected), parameter


def test_steps_equal_those_of_torch_with_the_groups_by_hand() -> None:
    model = gptkit.build(spec())
    other = copy.deepcopy(model)
    groups = [{"match": "embedding", "rate": 0.1, "weight_decay": 0.0}, {"match": "blocks", "weight_decay": 0.5}]
    optimizer = gptkit.open_spec(spec(learning_rate=0.01, groups=groups)).spec.training.optimizer.build(model)
    rest = [p for name, p in other.named_parameters() if not name.startswith(("embedding", "blocks"))]
    reference = torch.optim.AdamW(
        [
            {"params": list(other.embedding.parameters()), "lr": 0.001, "weight_decay": 0.0},
            {"params": list(other.blocks.parameters()), "weight_decay": 0.5},
            {"params": [p for p in rest if p.ndim > 1], "weight_decay": 0.1},
            {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
        ],
        lr=0.01,
        betas=(0.9, 0.95),
        fused=True,
    )
    ids = torch.arange(16).reshape(2, 8)
    for _ in range(3):
        for each, steps in ((model, optimizer), (other, reference)):
            steps.zero_grad()
            each(ids, ids).loss.backward()
            steps.step()
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), other.parameters(), strict=True))


def test_groups_override_the_declarations_of_modules() -> None:
    class Declares(nn.Linear):
        def parameter_options(self) -> dict[str, ParameterOptions]:
            return {"weight": ParameterOptions(rate=3.0, decay=False), "bias": ParameterOptions(rate=4.0)}

    groups = SGDSpec.model_validate({"groups": [{"match": "weight", "rate": 0.5, "hidden": False}]}).groups
    options = parameter_options(Declares(2, 2), groups)
    assert (options["weight"].rate, options["weight"].decay, options["weight"].hidden) == (0.5, False, False)
    assert options["bias"].rate == 4.0


def test_hidden_selects_what_muon_orthogonalizes() -> None:
    model = gptkit.build(spec())
    groups = [{"match": "blocks.0", "hidden": False}, {"match": "head", "hidden": True}]
    optimizer = gptkit.open_spec(spec(name="muon", groups=groups)).spec.training.optimizer.build(model)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    by_muon = {names[id(p)] for group in optimizer.param_groups if "ns_steps" in group for p in group["params"]}
    matrices = {name for name, p in model.named_parameters() if name.startswith("blocks.1.") and p.ndim == 2}
    assert by_muon == matrices | {"head.weight"}


@pytest.mark.parametrize(
    ("groups", "path", "message"),
    [
        ([{"match": ["embedding", "blocks.*.atention"]}], "groups.0.match.1", "did you mean 'blocks.*.attention'"),
        ([{"match": "*"}, {"match": "head", "rate": 2.0}], "groups.1.match", "belong to earlier groups"),
        ([{"match": "embedding", "rate": 0.0}], "groups.0.rate", "greater than 0"),
        ([{"match": []}], "groups.0.match", "at least 1"),
        ([{"match": "embedding", "learning_rate": 0.1}], "groups.0.learning_rate", ""),
    ],
)
def test_wrong_groups_are_rejected_with_their_path(groups: Any, path: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        gptkit.open_spec(spec(groups=groups))
    assert f"training.optimizer.{path}" in str(caught.value)
    assert message in str(caught.value)


def test_group_of_frozen_parameters_is_rejected() -> None:
    given = spec(groups=[{"match": "embedding", "rate": 0.5}])
    given["training"]["freeze"] = ["embedding"]
    with pytest.raises(SpecError, match="are frozen"):
        gptkit.open_spec(given)


def test_optimizer_that_ignores_groups_is_rejected() -> None:
    class Ignores(SGDSpec):
        name: Literal["ignores"] = "ignores"  # type: ignore[assignment]

        def build(self, model: nn.Module) -> torch.optim.Optimizer:
            return torch.optim.SGD(model.parameters(), lr=self.learning_rate)

    model = nn.Sequential(nn.Linear(2, 2))
    assert build_optimizer(Ignores(), model)
    with pytest.raises(TrainingError, match="'ignores' does not support groups"):
        build_optimizer(Ignores.model_validate({"groups": [{"match": "0.bias", "rate": 0.5}]}), model)


@pytest.mark.parametrize("name", sorted(default_registry().names("optimizer")))
def test_resumed_run_equals_an_uninterrupted_one_and_keeps_its_groups(tmp_path: Path, name: str) -> None:
    given = spec(name=name, groups=GROUPS)
    whole = gptkit.train(given, tmp_path / "whole", progress=False)
    gptkit.train(given, tmp_path / "parts", ["training.steps=2"], progress=False)
    parts = gptkit.resume(tmp_path / "parts", ["training.steps=4"], progress=False)
    for (key, one), (_, other) in zip(whole.model.named_parameters(), parts.model.named_parameters(), strict=True):
        assert torch.equal(one, other), key
    changed = spec(name=name, groups=[{**GROUPS[0], "rate": 3.0}, *GROUPS[1:]])
    with pytest.raises(CheckpointError, match=r"training\.optimizer\.groups\.0\.rate: 2.0 in the run, 3.0 requested"):
        gptkit.train(changed, tmp_path / "parts", resume=True, progress=False)


def test_metrics_have_the_rate_of_every_group(tmp_path: Path) -> None:
    run = gptkit.train(spec(learning_rate=0.01, groups=GROUPS), tmp_path / "run", progress=False)
    last = {name: run.metrics.last(name) for name in run.metrics if name.startswith("learning_rate")}
    assert {name: round(point[1], 6) for name, point in last.items() if point} == {
        "learning_rate": 0.01,
        "learning_rate/other": 0.01,
        "learning_rate/embedding": 0.01,
        "learning_rate/blocks.1": 0.005,
        "learning_rate/blocks.*.attention_norm,final_norm": 0.02,
    }
    plain = gptkit.train(spec(), tmp_path / "plain", progress=False)
    assert not [name for name in plain.metrics if name.startswith("learning_rate/")]


class LeavesOut(SGDSpec):
    """An optimizer of the first parameter only."""

    name: Literal["leaves-out"] = "leaves-out"

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD([next(iter(model.parameters()))], lr=0.1)


def test_parameters_that_the_optimizer_lacks_are_named() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4), nn.Linear(4, 1))
    with pytest.raises(TrainingError, match=r"LeavesOut\.build omits the parameters 0\.bias, 1\.weight, 1\.bias and 2 more"):
        build_optimizer(LeavesOut(), model)
    for parameter in list(model.parameters())[1:]:
        parameter.requires_grad_(False)
    assert build_optimizer(LeavesOut(), model)
