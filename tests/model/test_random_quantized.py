"""Random models in a precision compute what the model with the dequantized matrices does, in every way of making them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import gptkit
from gptkit.core.errors import GptkitError
from gptkit.inference import generate
from gptkit.inference.simple import generate_simple
from gptkit.kinds.precision import PrecisionSpec
from gptkit.model.calibration import calibrate
from gptkit.model.gpt import GPT
from gptkit.model.packing import apply_precision, slots
from gptkit.model.spec import ModelSpec
from gptkit.runs.precisions import precision_of
from tests.support.gguf_models import make_run
from tests.support.random_models import CONTEXT, named, random_models, varied

V = 257
PRECISIONS = ("int8", "int4")
LARGE = 1e3
"""Logits of models without norms may be larger; fp32 is too coarse for them."""
SHARE = 9
"""The slow tests take each ninth model."""


def logits(model: GPT, ids_BT: Tensor) -> Tensor:
    result = model(ids_BT).logits
    assert result is not None
    return result


def dequantized(model: GPT, precision: PrecisionSpec, stored: Mapping[str, Mapping[str, Tensor]] | None = None) -> GPT:
    """Return a copy of a model whose matrices are what the precision makes of them."""
    result = copy.deepcopy(model)
    for slot in slots(result):
        spec, weight = precision.for_matrix(slot.name), slot.weight
        tensors = (stored or {}).get(slot.parameter) or spec.quantize(weight.flatten(0, -2).float())
        values = spec.dequantize(tensors, weight.shape[-1]).view(weight.shape)
        result.get_parameter(slot.parameter).copy_(values)
    return result


def close(actual: Tensor, expected: Tensor, what: str) -> None:
    scale = max(1.0, float(expected.abs().max()))
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-4 * scale, msg=lambda text: f"{what}: {text}")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seed", "step"), [(0, SHARE), *(pytest.param(seed, 1, marks=pytest.mark.nightly) for seed in range(4))]
)
@torch.no_grad()
def test_packed_models_equal_dequantized_ones(seed: int, step: int, tmp_path: Path) -> None:
    for index, (name, spec) in enumerate(list(random_models(seed))[::step]):
        with named(name, spec):
            check(spec, seed, tmp_path / f"{index}", PRECISIONS[index % 2])


def check(spec: ModelSpec, seed: int, path: Path, name: str) -> None:
    precision = precision_of({"name": name, "activations": "fp32"})
    directory = make_run(path / "run", spec.model_dump(mode="json"), scale=0.5, train=vary)
    run = gptkit.load(directory)
    model = run.model
    ids_BT = torch.randint(V, (2, CONTEXT), generator=torch.Generator().manual_seed(seed))
    if not logits(model, ids_BT).abs().max() < LARGE:
        return
    packed = copy.deepcopy(model)
    apply_precision(packed, precision)
    expected = logits(dequantized(model, precision), ids_BT)
    close(logits(packed, ids_BT), expected, name)
    saved = gptkit.load(gptkit.quantize_run(run, path / "packed", precision))
    assert torch.equal(logits(saved.model, ids_BT), logits(packed, ids_BT))
    try:
        texts_NT = torch.randint(V, (40, CONTEXT), generator=torch.Generator().manual_seed(seed + 1))
        calibration = calibrate(model, precision, texts_NT)
    except GptkitError as error:
        assert error.hint, error.message
        return
    assert {*calibration.stored, *calibration.rounded} == {slot.parameter for slot in slots(model)}
    written = gptkit.quantize_run(run, path / "calibrated", precision, calibration=calibration)
    expected = logits(dequantized(model, precision, calibration.stored), ids_BT)
    close(logits(gptkit.load(written).model, ids_BT), expected, f"{name}, calibrated")
    prompt = ids_BT[0, :4].tolist()
    for each in (saved, gptkit.load(written)):
        options: dict[str, Any] = {"sampler": ["greedy"], "max_new_tokens": 3, "stop_ids": ()}
        (result,) = generate(each.model, each.tokenizer, [prompt], **options)
        assert list(result.ids) == generate_simple(each.model, ids_BT[:1, :4], 3)[0, 4:].tolist()


def vary(model: GPT) -> None:
    """Change the weights of a run."""
    varied(model, 1)
