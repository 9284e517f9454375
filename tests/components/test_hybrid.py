"""`hybrid`: two attentions side by side, their positions, their states, and their weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from gptkit.core.errors import SpecError
from gptkit.files import validate_data
from gptkit.kinds.written import NotWrittenError
from gptkit.model.gpt import GPT
from gptkit.model.spec import ModelSpec
from gptkit.nn.forward import Forward
from tests.support.ejected import source_of
from tests.support.learning import assert_learns, repeated

V = 31
ATTENTION: dict[str, Any] = {
    "name": "hybrid",
    "attention": {"name": "grouped-query", "n_heads": 4, "n_kv_heads": 2, "d_head": 6, "window": 7},
    "recurrence": {"name": "mamba2", "n_heads": 4, "d_head": 6, "d_state": 5},
    "attention_scale": 0.7,
    "attention_input_scale": 1.2,
    "recurrence_scale": 1.3,
    "recurrence_input_scale": 0.8,
}
LAYOUT: dict[str, Any] = {"d_model": 24, "n_layers": 2, "context_length": 80, "attention": ATTENTION}


def ids(rows: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(V, (rows, length), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def test_output_is_the_scaled_sum_of_both() -> None:
    model = GPT(LAYOUT, V).double().eval()
    hybrid: Any = model.blocks[1].attention
    x = torch.randn(2, 20, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    forward = Forward(ids(2, 20), left_padding_B=torch.tensor([0, 3]))
    alone = GPT({**LAYOUT, "attention": ATTENTION["attention"]}, V).double().eval()
    attention: Any = alone.blocks[1].attention
    attention.load_state_dict(hybrid.attention.state_dict())
    recurrent = GPT({**LAYOUT, "position": "none", "attention": ATTENTION["recurrence"]}, V).double().eval()
    mamba: Any = recurrent.blocks[1].attention
    mamba.load_state_dict(hybrid.recurrence.state_dict())
    wanted = 0.7 * attention(1.2 * x, forward) + 1.3 * mamba(0.8 * x, forward)
    torch.testing.assert_close(hybrid(x, forward), wanted)


@torch.no_grad()
def test_decoding_in_pieces_equals_one_call() -> None:
    model = GPT(LAYOUT, V).double().eval()
    tokens = ids(2, 60)
    full = model(tokens).logits
    for static in (False, True):
        cache, at = model.new_cache(2, static=static), 0
        for piece in (9, 1, 1, 30, 1, 18):
            step = model(tokens[:, at : at + piece], cache=cache).logits
            torch.testing.assert_close(step, full[:, at : at + piece], atol=1e-9, rtol=1e-9)
            at += piece


@torch.no_grad()
def test_weights_are_those_of_the_attention() -> None:
    model = GPT(LAYOUT, V).eval()
    weights = model(ids(1, 12), keep_weights=True).weights
    assert weights is not None
    assert {tuple(each.shape) for each in weights.values()} == {(1, 4, 12, 12)}
    assert len(weights) == 2


def test_recurrence_has_no_position() -> None:
    validate_data(LAYOUT, ModelSpec)  # rotary, which mamba2 does not accept
    swapped = {**ATTENTION, "attention": ATTENTION["recurrence"]}
    with pytest.raises(SpecError, match="mamba2' does not accept"):
        validate_data({**LAYOUT, "attention": swapped}, ModelSpec)
    validate_data({**LAYOUT, "attention": swapped, "position": "none"}, ModelSpec)


def test_problem_of_a_part_names_its_field() -> None:
    wrong = {**ATTENTION, "recurrence": {**ATTENTION["recurrence"], "n_groups": 3}}
    with pytest.raises(SpecError, match=r"attention\.recurrence\.n_groups"):
        validate_data({**LAYOUT, "attention": wrong}, ModelSpec)


def test_two_recurrences_cannot_be_written_out() -> None:
    both = {**ATTENTION, "attention": {"name": "lightning", "n_heads": 3, "d_head": 6}}
    with pytest.raises(NotWrittenError, match="both keep state"):
        source_of(GPT({**LAYOUT, "position": "none", "attention": both}, V))


def test_training_learns_to_repeat_a_distant_token() -> None:
    """Beyond the window of the attention."""
    assert_learns(GPT({**LAYOUT, "n_layers": 1}, 9, seed=0), repeated(9), steps=160)
