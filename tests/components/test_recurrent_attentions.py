"""What all recurrent attentions have in common: their state when decoding, their gradients, and that they learn."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from gptkit.core.errors import SpecError
from gptkit.files import validate_data
from gptkit.model.gpt import GPT
from gptkit.model.plan import plan
from gptkit.model.spec import ModelSpec
from tests.support.learning import assert_learns, repeated
from tests.support.recurrences import RECURRENT, Recurrent, V, ids

CASES = pytest.mark.parametrize("case", RECURRENT.values(), ids=RECURRENT)


@CASES
@torch.no_grad()
def test_long_text_in_pieces_equals_one_call(case: Recurrent) -> None:
    model, ids_BT = case.make().double(), ids(2, case.n_tokens)
    full = model(ids_BT).logits
    cache = model.new_cache(2)
    before = cache.bytes
    for piece in ids_BT.split([1, 2, case.n_tokens - 50, 1, 1, 40, 5], dim=1):
        at = cache.length
        step = model(piece, cache=cache).logits
        torch.testing.assert_close(step, full[:, at : at + piece.shape[1]], atol=1e-9, rtol=1e-9)
    assert cache.length == case.n_tokens
    # The state is allocated once and does not grow: two rows in fp64.
    assert cache.bytes == before == case.n_layers * 2 * 8 * case.n_state


@CASES
@torch.no_grad()
def test_state_is_fp32_in_bf16_models(case: Recurrent) -> None:
    model, ids_BT = case.make(), ids(2, 40)
    wanted = model(ids_BT).logits
    narrow = copy.deepcopy(model).bfloat16()
    cache = narrow.new_cache(2)
    out = torch.cat([narrow(piece, cache=cache).logits for piece in ids_BT.split([20, 1, 19], dim=1)], dim=1)
    assert out.dtype == torch.bfloat16
    state: Any = next(iter(cache.states))
    assert tuple(tensor.dtype for tensor in state.tensors) == case.dtypes
    assert (out - wanted).norm() / wanted.norm() < 0.05


@CASES
def test_gradients_reach_every_parameter_from_the_initialization(case: Recurrent) -> None:
    model = GPT(case.spec, V, seed=3)
    loss = model(ids(2, 20), ids(2, 20, 1)).loss
    assert loss is not None
    loss.backward()
    for name, parameter in model.attentions()[0].named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@pytest.mark.slow
@CASES
def test_training_learns_to_repeat_a_distant_token(case: Recurrent) -> None:
    assert_learns(GPT({**case.spec, "n_layers": 1}, 9, seed=0), repeated(6), steps=100)


@CASES
def test_cache_is_known_on_meta(case: Recurrent) -> None:
    sizes = plan(validate_data(case.spec, ModelSpec), V)
    assert sizes.cache_bytes_per_token == 0
    assert sizes.cache_bytes == case.n_layers * 4 * case.n_state


@CASES
def test_relative_positions_are_rejected(case: Recurrent) -> None:
    with pytest.raises(SpecError, match="does not accept"):
        validate_data({"attention": case.attention}, ModelSpec)
