"""Calibration of a precision on a model: smaller errors, an unchanged model, and matrices that have too few inputs."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from gptkit.components.precision.bf16 import BF16Spec
from gptkit.components.precision.int4 import Int4Spec
from gptkit.components.precision.int8 import Int8Spec
from gptkit.core.errors import GptkitError
from gptkit.model.calibration import calibrate
from gptkit.model.gpt import GPT
from gptkit.model.packing import apply_precision, slots
from gptkit.testing.subject import stirred_matrices
from tests.support.looped import LoopedSpec, OneBlockSpec

V = 99
INT4 = Int4Spec(activations="fp32")
EXPERTS = {"name": "experts", "n_experts": 4, "expert": {"name": "gated", "d_hidden": 40, "bias": True}}


def made(**changes: Any) -> GPT:
    model: GPT = stirred_matrices(GPT({"d_model": 48, "n_layers": 2, "context_length": 64, **changes}, V)).eval()
    return model


def ids(rows: int, length: int = 64, seed: int = 1) -> Tensor:
    return torch.randint(V, (rows, length), generator=torch.Generator().manual_seed(seed))


def error(model: GPT, other: GPT) -> float:
    logits, wanted = (each(ids(4, seed=2)).logits for each in (other, model))
    assert logits is not None
    assert wanted is not None
    return float((logits - wanted).norm() / wanted.norm())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"feedforward": EXPERTS},
        {"attention": {"name": "gated-delta"}, "position": "none"},
        {"linear": {"name": "low-rank", "rank": 2}},
        {"block": LoopedSpec(times=2)},
        {"block": OneBlockSpec(times=1)},
    ],
    ids=["plain", "experts", "gated-delta", "low-rank", "looped", "one-block"],
)
@torch.no_grad()
def test_calibrated_model_is_nearer_to_the_original(changes: dict[str, Any]) -> None:
    model = made(**changes)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    logits = model(ids(1)).logits
    calls: list[tuple[int, int]] = []
    calibration = calibrate(model, INT4, ids(60), progress=lambda done, total: calls.append((done, total)))
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert torch.equal(model(ids(1)).logits, logits)
    assert [done for done, _ in calls] == list(range(1, calls[-1][1] + 1))
    plain, calibrated = copy.deepcopy(model), copy.deepcopy(model)
    apply_precision(plain, INT4)
    apply_precision(calibrated, INT4, stored=calibration.stored)
    assert error(model, calibrated) < 0.95 * error(model, plain)
    assert calibration.tokens == 60 * 64
    assert set(calibration.rounded) == {"embedding.table.weight", "head.weight"}
    assert {*calibration.stored, *calibration.rounded} == {slot.parameter for slot in slots(model)}


@torch.no_grad()
def test_later_blocks_have_the_inputs_that_quantized_blocks_compute() -> None:
    model = made()
    calibration = calibrate(model, INT4, ids(60))
    # The second block by itself, after a first block that is quantized already.
    half = copy.deepcopy(model)
    spec = INT4.for_matrix("blocks.0")
    for slot in slots(half):
        if slot.name.startswith("blocks.0."):
            stored = calibration.stored[slot.parameter]
            slot.module.get_parameter("weight").copy_(spec.dequantize(stored, slot.shape[-1]))
    inputs: list[Tensor] = []
    module = half.get_submodule("blocks.1.feedforward.down")
    module.register_forward_pre_hook(lambda _, args: inputs.append(args[0].flatten(0, -2)))
    half(ids(60))
    x_MI = torch.cat(inputs)
    weight_OI = module.get_parameter("weight")
    expected = INT4.calibrate(weight_OI, x_MI.T @ x_MI / len(x_MI))
    actual = calibration.stored["blocks.1.feedforward.down.weight"]
    # Sums in another order may round a few weights the other way.
    assert (actual["values"] == expected["values"]).float().mean() > 0.97
    torch.testing.assert_close(actual["scale"], expected["scale"], atol=1e-3, rtol=0.02)


@torch.no_grad()
def test_experts_with_few_inputs_are_rounded_to_nearest() -> None:
    model = made(feedforward={**EXPERTS, "n_experts": 8, "router": {"name": "softmax-top-k", "k": 1}})
    calibration = calibrate(model, INT4, ids(3, 20))
    name = "blocks.0.feedforward.experts.down.weight"
    assert "of 8 experts had fewer than 20 inputs" in calibration.rounded[name]
    weight_XOI = model.get_parameter(name)
    plain = INT4.quantize(weight_XOI.flatten(0, 1))["values"].view(8, 48, -1)
    same = [
        torch.equal(one, other) for one, other in zip(calibration.stored[name]["values"].view(8, 48, -1), plain, strict=True)
    ]
    assert any(same)
    few = calibration.rounded[name].split()[0]
    assert sum(same) == int(few)


def test_model_is_restored_after_an_interruption() -> None:
    model = made()
    wanted = model(ids(1)).logits

    def interrupt(done: int, total: int) -> None:
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        calibrate(model, INT4, ids(60), progress=interrupt)
    assert torch.equal(model(ids(1)).logits, wanted)
    assert not any("forward" in module.__dict__ or module._forward_pre_hooks for module in model.modules())


@torch.no_grad()
def test_misuse_is_refused() -> None:
    model = made()
    with pytest.raises(GptkitError, match="precision 'bf16' has no calibration"):
        calibrate(model, BF16Spec(), ids(4))
    model.get_parameter("blocks.1.attention.output.weight")[0, 0] = torch.nan
    with pytest.raises(GptkitError, match=r"inputs of blocks\.1\.feedforward\.\w+\.weight are not finite"):
        calibrate(model, INT4, ids(4))
    apply_precision(model, Int8Spec())
    with pytest.raises(GptkitError, match="already in precision 'int8'"):
        calibrate(model, INT4, ids(4))
