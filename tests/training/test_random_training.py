"""Random models in training: parts of a batch, checkpoints, adapters and short texts, with every optimizer."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gptkit.checkpoint.store import CheckpointStore, load_weights, read_state, restore_optimizer
from gptkit.core.errors import SpecError
from gptkit.core.spec import Spec
from gptkit.files import validate_data
from gptkit.kinds.optimizer import OptimizerSpec
from gptkit.model.gpt import GPT
from gptkit.model.merging import merged_model
from gptkit.model.spec import ModelSpec
from gptkit.nn.freezing import adapter_names, freeze
from gptkit.training.evaluation import Batch
from gptkit.training.step import TrainingStep
from tests.support.random_models import CONTEXT, V, named, random_models, varied

LARGE = 1e3
"""Logits of models without norms may be larger; fp32 is too coarse for them."""
SHARE = 6
"""The slow tests take each sixth model."""
OPTIMIZERS: list[dict[str, Any]] = [
    {"name": "adamw"},
    {"name": "muon"},
    {"name": "soap"},
    {"name": "sgd"},
    {"name": "lion"},
    {"name": "adafactor"},
    {"name": "adafactor", "beta1": 0.9, "factored": False, "groups": [{"match": "blocks.0", "rate": 0.5}]},
    {"name": "ademamix", "alpha_warmup_steps": 3, "beta3_warmup_steps": 3},
    {"name": "adopt", "groups": [{"match": "embedding", "weight_decay": 0.5}]},
    {"name": "schedule-free"},
    {"name": "muon", "groups": [{"match": "blocks.0", "rate": 0.5}, {"match": "embedding", "weight_decay": 0.1}]},
    {"name": "soap", "groups": [{"match": "*", "hidden": False, "rate": 2.0}]},
]
SEEDS = [(0, SHARE), *(pytest.param(seed, 1, marks=pytest.mark.nightly) for seed in range(4))]


class Chosen(Spec):
    """A spec with an optimizer."""

    optimizer: OptimizerSpec


def build_optimizer(model: nn.Module, fields: dict[str, Any]) -> torch.optim.Optimizer:
    return validate_data({"optimizer": {"learning_rate": 1e-3, **fields}}, Chosen).optimizer.build(model)


def batch(seed: int, length: int = CONTEXT) -> Batch:
    ids = torch.randint(V, (4, length + 1), generator=torch.Generator().manual_seed(seed))
    return ids[:, :-1], ids[:, 1:], None


def train(model: GPT, optimizer: torch.optim.Optimizer, steps: range, *, accumulation: int = 1) -> list[Tensor]:
    """Take steps on batches that their numbers determine, and return the losses and norms."""
    options: dict[str, Any] = {"device": torch.device("cpu"), "precision": torch.float32, "clip": 1.0}
    step = TrainingStep(model.train(), optimizer, accumulation=accumulation, **options)
    results = []
    for number in steps:
        torch.manual_seed(number)
        result = step(batch(number), lambda: None)
        assert result is not None
        results.append(result)
    return results


def assert_equal_tensors(model: nn.Module, other: nn.Module) -> None:
    pairs = zip(
        itertools.chain(model.named_parameters(), model.named_buffers()),
        itertools.chain(other.named_parameters(), other.named_buffers()),
        strict=True,
    )
    for (name, tensor), (_, same) in pairs:
        assert torch.equal(tensor, same), name


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "step"), SEEDS)
def test_random_models_train(seed: int, step: int, tmp_path: Path) -> None:
    for index, (name, spec) in enumerate(list(random_models(seed))[::step]):
        with named(name, spec):
            model = varied(GPT(spec, V, seed=1), seed)
            with torch.no_grad():
                logits_BTV = model(batch(0)[0]).logits
            assert logits_BTV is not None
            if not logits_BTV.abs().max() < LARGE:
                continue
            check_resumed(model, OPTIMIZERS[index % len(OPTIMIZERS)], tmp_path / f"{index}")
            check_accumulated(model)
            check_short_texts(model)
            check_adapters(spec, seed, ["*"] if index % 3 else ["*.attention"])


def check_resumed(model: GPT, fields: dict[str, Any], path: Path) -> None:
    """Each trainable parameter is in one group, and steps after a checkpoint are those without it, bit by bit."""
    model = copy.deepcopy(model)
    optimizer = build_optimizer(model, fields)
    held = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    assert sorted(held) == sorted({id(each) for each in model.parameters() if each.requires_grad})
    train(model, optimizer, range(2))
    checkpoint = CheckpointStore(path).save(2, model, optimizer, {})
    other = GPT(model.spec, V, seed=2)
    load_weights(other, checkpoint)
    resumed = build_optimizer(other, fields)
    restore_optimizer(resumed, other, checkpoint, read_state(checkpoint, verify=True))
    for one, same in zip(train(model, optimizer, range(2, 4)), train(other, resumed, range(2, 4)), strict=True):
        torch.testing.assert_close(one, same, rtol=0, atol=0, equal_nan=True)
    if all(parameter.isfinite().all() for parameter in model.parameters()):
        assert_equal_tensors(model, other)


def check_accumulated(model: GPT) -> None:
    """A step of four parts is that of the whole batch, unless a loss balances the experts of the batch, or with dropout."""
    settings = [field for component in model.spec.components() for field in component.model_dump().items()]
    if any(value for name, value in settings if name in ("dropout", "balance_loss", "bias_rate")):
        return
    whole, parts = copy.deepcopy(model).double(), copy.deepcopy(model).double()
    (expected,) = train(whole, build_optimizer(whole, {"name": "sgd"}), range(1))
    (actual,) = train(parts, build_optimizer(parts, {"name": "sgd"}), range(1), accumulation=4)
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-9)
    for (name, one), other in zip(whole.named_parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-6, atol=1e-8, msg=lambda text, name=name: f"{name}: {text}")


def check_short_texts(model: GPT) -> None:
    for length in (1, 2):
        inputs_BT, targets_BT, _ = batch(0, length)
        loss = copy.deepcopy(model).train()(inputs_BT, targets_BT).loss
        assert loss is not None
        assert loss.isfinite()
        loss.backward()


def check_adapters(spec: ModelSpec, seed: int, projections: list[str]) -> None:
    """Merged adapters have the same logits, and a step changes them alone."""
    data, linear = spec.model_dump(mode="json"), {"name": "low-rank", "rank": 2, "projections": projections}
    data["linear"] = linear
    for layer in data["layers"] or []:
        layer["linear"] = linear
    try:
        model = varied(GPT(validate_data(data, ModelSpec), V, seed=1), seed)
    except SpecError as error:  # such a model has no projections in its attention
        assert error.problems
        return
    inputs_BT, _, _ = batch(0)
    with torch.no_grad():
        double = copy.deepcopy(model).double()
        expected, actual = double(inputs_BT).logits, merged_model(double)(inputs_BT).logits
    assert expected is not None
    if expected.abs().max() < LARGE:
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5 * max(1.0, float(expected.abs().max())))
    if not adapter_names(model):
        return
    freeze(model, None)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    train(model, build_optimizer(model, {"name": "muon"}), range(2))
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert changed <= adapter_names(model)
