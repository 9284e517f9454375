"""Block `hierarchical` against its formula; cycles without gradients, decoding and training."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import gptkit
from gptkit.core.errors import SpecError
from gptkit.model.plan import plan
from gptkit.nn.forward import Forward
from tests.support.learning import N_TOKENS, alternating, assert_learns

V, E = 31, 16
SPEC = {
    "d_model": E,
    "n_layers": 1,
    "context_length": 32,
    "attention": {"name": "multi-head", "n_heads": 2},
    "feedforward": {"name": "gated", "d_hidden": 24},
}


def make(**fields: Any) -> gptkit.GPT:
    model = gptkit.GPT({**SPEC, "block": {"name": "hierarchical", **fields}}, V).double().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.blocks.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
    return model


def random_ids(rows: int = 2, length: int = 9) -> Tensor:
    return torch.randint(V, (rows, length), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
@pytest.mark.parametrize("fields", [{}, {"blocks": 1, "high_cycles": 3, "low_cycles": 1, "block": "sandwich"}])
def test_block_equals_its_formula(fields: dict[str, Any]) -> None:
    model, ids = make(**fields), random_ids()
    block: Any = model.blocks[0]
    x = torch.randn(2, 9, E, dtype=torch.float64, generator=torch.Generator().manual_seed(2))

    def stack(blocks: Any, norm: Any, y: Tensor) -> Tensor:
        for each in blocks:
            y = each(y, Forward(ids))
        return norm(y)

    high, low = x, block.start.expand_as(x)
    for _ in range(fields.get("high_cycles", 2)):
        for _ in range(fields.get("low_cycles", 3)):
            low = stack(block.low, block.low_norm, low + high)
        high = stack(block.high, block.high_norm, high + low)
    torch.testing.assert_close(block(x, Forward(ids)), high)
    assert model.spec.final_norm is None


@torch.no_grad()
@pytest.mark.parametrize("static", [False, True])
def test_pieces_behind_padding_equal_one_call(static: bool) -> None:
    model, ids = make(high_cycles=2, low_cycles=2), random_ids(length=12)
    full, padding = model(ids).logits, torch.tensor([0, 3])
    rows = torch.cat((ids[:1], torch.cat((torch.zeros(1, 3, dtype=torch.long), ids[1:, :9]), dim=1)))
    cache = model.new_cache(2, left_padding_B=padding, static=static)
    cached = torch.cat([model(piece, cache=cache).logits for piece in rows.split([5, 1, 1, 4, 1], dim=1)], dim=1)
    torch.testing.assert_close(cached[0], full[0], atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(cached[1, 3:], full[1, :9], atol=1e-9, rtol=1e-9)


def gradients(model: gptkit.GPT) -> dict[str, Tensor]:
    ids = random_ids()
    loss = model.train()(ids[:, :-1], ids[:, 1:]).loss
    assert loss is not None
    loss.backward()
    return {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in model.named_parameters()}


def test_gradients_stop_before_the_last_low_cycles() -> None:
    """Without gradients in earlier cycles, the low state that the last ones receive is a constant."""
    model = make(high_cycles=1, low_cycles=3, gradient_cycles=[1])
    stopped = gradients(model)
    block: Any = model.blocks[0]
    ids = random_ids()
    with torch.no_grad():
        x = model.embedding(ids[:, :-1], Forward(ids[:, :-1]))
        low = block.start.expand_as(x)
        for _ in range(2):
            low = block.low_norm(block.low[1](block.low[0](low + x, Forward(ids[:, :-1])), Forward(ids[:, :-1])))
    model.zero_grad()
    forward = Forward(ids[:, :-1])
    x = model.embedding(ids[:, :-1], forward)
    low = block.low_norm(block.low[1](block.low[0](low + x, forward), forward))
    high = block.high_norm(block.high[1](block.high[0](x + low, forward), forward))
    model.head.loss(high, ids[:, 1:], forward).backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(stopped[name], parameter.grad, msg=name)


def test_number_of_cycles_with_gradients() -> None:
    changed = make(high_cycles=2, low_cycles=3, gradient_cycles=[2])
    whole = make(high_cycles=2, low_cycles=3)
    assert changed.spec.block.gradient_cycles == (1, 2)  # type: ignore[attr-defined]
    assert whole.spec.block.gradient_cycles == (3, 3)  # type: ignore[attr-defined]
    torch.testing.assert_close(changed(random_ids()).logits, whole(random_ids()).logits)
    one, other = gradients(changed), gradients(whole)
    assert not torch.allclose(one["blocks.0.low.0.attention.qkv.weight"], other["blocks.0.low.0.attention.qkv.weight"])
    with pytest.raises(SpecError, match="3 numbers for 2 high cycles"):
        make(high_cycles=2, gradient_cycles=[1, 1, 1])
    with pytest.raises(SpecError, match="no gradient reaches it"):
        make(gradient_cycles=[1], start="learned")
    with pytest.raises(SpecError, match="from 1 to low_cycles, 3"):
        make(gradient_cycles=[4])


def test_planned_cache_has_the_states_of_all_calls() -> None:
    model = make(blocks=2, high_cycles=2, low_cycles=3).float()
    cache = model.new_cache(1)
    model(random_ids(rows=1), cache=cache)
    sizes = plan(model.spec, V)
    assert sizes.cache_bytes == cache.bytes == 32 * sizes.cache_bytes_per_token
    assert sizes.cache_bytes_per_token == 2 * 2 * (3 + 1) * 2 * E * 4


@pytest.mark.slow
def test_training_learns_the_token_before_the_last() -> None:
    block = {"name": "hierarchical", "blocks": 1, "high_cycles": 2, "low_cycles": 2, "gradient_cycles": [2]}
    model = gptkit.GPT({**SPEC, "block": block}, N_TOKENS, seed=0)
    assert_learns(model, alternating, steps=120)
