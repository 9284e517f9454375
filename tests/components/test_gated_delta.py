"""`gated-delta`: against transformers' Qwen3-Next, the recurrence token by token, and its state when decoding."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from gptkit.core.errors import SpecError, StateError
from gptkit.files import validate_data
from gptkit.model.gpt import GPT
from gptkit.model.plan import plan
from gptkit.model.spec import ModelSpec
from gptkit.nn.forward import Forward
from gptkit.ops.causal_conv import causal_conv
from gptkit.ops.delta_rule import gated_delta_rule, gated_delta_step
from tests.support.recurrences import RECURRENT, V, check_equal_with_gradients, check_reset_state, ids

CASE = RECURRENT["gated-delta"]


def rule_inputs(n_tokens: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(n_tokens)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    q, k = (torch.nn.functional.normalize(draw(2, 3, n_tokens, 5), dim=-1) for _ in range(2))
    g = -draw(2, 3, n_tokens).exp()
    return q, k, draw(2, 3, n_tokens, 4), g, draw(2, 3, n_tokens).sigmoid(), draw(2, 3, 5, 4)


def token_by_token(*inputs: Tensor) -> tuple[Tensor, Tensor]:
    *per_token, state = inputs
    outs = []
    for t in range(per_token[0].shape[2]):
        out, state = gated_delta_step(*(x[:, :, t] for x in per_token), state)  # type: ignore[call-arg]
        outs.append(out)
    return torch.stack(outs, dim=2), state


@pytest.mark.parametrize(("n_tokens", "chunk"), [(1, 4), (4, 4), (11, 4), (12, 4), (9, 64), (130, 64)])
def test_chunks_equal_single_steps(n_tokens: int, chunk: int) -> None:
    inputs = [x.requires_grad_() for x in rule_inputs(n_tokens)]
    out, state = gated_delta_rule(*inputs, chunk=chunk)  # type: ignore[misc]
    wanted, wanted_state = token_by_token(*inputs)
    check_equal_with_gradients((out, state), (wanted, wanted_state), inputs)


def test_strong_decay_does_not_overflow() -> None:
    *inputs, g, b, state = rule_inputs(70)
    out, after = gated_delta_rule(*inputs, g * 1e4, b, state)  # type: ignore[misc]
    wanted, wanted_after = token_by_token(*inputs, g * 1e4, b, state)
    torch.testing.assert_close(out, wanted)
    torch.testing.assert_close(after, wanted_after)


@pytest.mark.parametrize("border", [1, 3, 4, 5, 8, 10])
def test_reset_state_equals_a_new_text(border: int) -> None:
    *inputs, state = rule_inputs(11)
    check_reset_state(gated_delta_rule, inputs, state, border, dim=2)


def test_convolution_equals_its_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(1, 9, 2, generator=generator), torch.randn(2, 1, 3, generator=generator)
    by_hand = torch.zeros_like(x)
    for t in range(9):
        for back in range(3):
            if t >= back:
                by_hand[0, t] += weight[:, 0, 2 - back] * x[0, t - back]
    torch.testing.assert_close(causal_conv(x, weight), by_hand)
    torch.testing.assert_close(causal_conv(x[:, 4:], weight, x[:, 2:4]), by_hand[:, 4:])
    torch.testing.assert_close(causal_conv(x, weight, None, torch.arange(9)[None]), by_hand)


@torch.no_grad()
def test_equals_qwen3_next() -> None:
    modeling = pytest.importorskip("transformers.models.qwen3_next.modeling_qwen3_next")
    from transformers import Qwen3NextConfig

    config = Qwen3NextConfig(
        hidden_size=24,
        linear_num_key_heads=2,
        linear_num_value_heads=4,
        linear_key_head_dim=6,
        linear_value_head_dim=10,
        linear_conv_kernel_dim=4,
        num_hidden_layers=1,
        layer_types=["linear_attention"],
        rms_norm_eps=1e-6,
    )
    reference = modeling.Qwen3NextGatedDeltaNet(config, 0).eval()
    generator = torch.Generator().manual_seed(1)
    for parameter in reference.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    model = CASE.make(norm={"name": "rms", "eps": 1e-6})
    actual: Any = model.attentions()[0]
    # transformers groups the rows by key head, together with those of its value heads.
    grouped = reference.in_proj_qkvz.weight.view(2, -1, 24).split([6, 6, 20, 20], dim=1)
    actual.qkvz.weight.copy_(torch.cat([part.reshape(-1, 24) for part in grouped]))
    grouped = reference.in_proj_ba.weight.view(2, -1, 24).split([2, 2], dim=1)
    actual.rates.weight.copy_(torch.cat([part.reshape(-1, 24) for part in grouped]))
    actual.conv.weight.copy_(reference.conv1d.weight)
    actual.decay_log.copy_(reference.A_log)
    actual.decay_bias.copy_(reference.dt_bias)
    actual.norm.weight.copy_(reference.norm.weight)
    actual.output.weight.copy_(reference.out_proj.weight)
    x = torch.randn(2, 150, 24, generator=generator)
    wanted = reference(x)
    out = actual(x, Forward(torch.zeros(2, 150, dtype=torch.long)))
    torch.testing.assert_close(out, wanted, rtol=1e-4, atol=1e-5)
    mask = torch.ones(2, 150)
    mask[1, :5] = 0
    padded = actual(x, Forward(torch.zeros(2, 150, dtype=torch.long), left_padding_B=torch.tensor([0, 5])))
    wanted = reference(x, attention_mask=mask)
    torch.testing.assert_close(padded[1, 5:], wanted[1, 5:], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(padded[0], wanted[0], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_state_returns_to_a_mark_and_reorders() -> None:
    model = CASE.make().double()
    tokens = ids(3, 30)
    full = model(tokens).logits
    cache = model.new_cache(3)
    model(tokens[:, :12], cache=cache)
    cache.mark()
    model(ids(3, 3, seed=5), cache=cache)
    with pytest.raises(StateError, match="not marked"):
        copy.deepcopy(cache).truncate(13)
    cache.truncate(12)
    torch.testing.assert_close(model(tokens[:, 12:14], cache=cache).logits, full[:, 12:14], atol=1e-9, rtol=1e-9)
    cache.truncate(12)  # the mark is still valid
    cache.reorder([2, 0])
    step = model(tokens[[2, 0], 12:13], cache=cache).logits
    torch.testing.assert_close(step, full[[2, 0], 12:13], atol=1e-9, rtol=1e-9)
    cache.truncate(0)
    step = model(tokens[[1, 0], :9], cache=cache).logits
    torch.testing.assert_close(step, full[[1, 0], :9], atol=1e-9, rtol=1e-9)


def test_initial_values_are_those_of_the_reference() -> None:
    spec = {"d_model": 24, "n_layers": 1, "context_length": 20, "position": "none", "attention": CASE.attention}
    model = GPT(spec, V, seed=3)
    attention: Any = model.attentions()[0]
    assert ((attention.decay_log.exp() >= 0.01) & (attention.decay_log.exp() <= 16)).all()
    rate = torch.nn.functional.softplus(attention.decay_bias)
    assert ((rate >= 0.00099) & (rate <= 0.101)).all()
    assert attention.conv.weight.abs().max() <= 0.5


def test_operations_are_known_on_meta() -> None:
    sizes = plan(validate_data(CASE.spec, ModelSpec), V)
    projections = 24 * (64 + 40) + 24 * 8 + 40 * 24
    assert sizes.flops_per_token > 2 * 2 * projections


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"attention": {**CASE.attention, "n_value_heads": 3}, "position": "none"}, "multiple"),
    ],
)
def test_invalid_fields_are_rejected(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(SpecError, match=says):
        validate_data(fields, ModelSpec)


def test_negative_eigenvalues_reverse_what_the_state_has_of_a_key() -> None:
    # With β = 2, no decay and no value, a step reflects the state along the key: I - 2 k kᵀ has the eigenvalue -1.
    key, state = torch.tensor([[[0.6, 0.8]]]), torch.tensor([[[[3.0], [4.0]]]])
    zero, doubled = torch.zeros(1, 1), torch.full((1, 1), 2.0)
    _, after = gated_delta_step(key, key, torch.zeros(1, 1, 1), zero, doubled, state)
    torch.testing.assert_close(after, -state)


def test_negative_eigenvalues_double_the_write_strength() -> None:
    plain, doubled = CASE.make(), CASE.make(negative_eigenvalues=True)
    doubled.load_state_dict(plain.state_dict())
    text = ids(1, 12)
    first = [model(text[:, :1]).logits for model in (plain, doubled)]
    assert not torch.allclose(*first, atol=1e-4)
    cache = doubled.new_cache(1)
    steps = [
        doubled(text[:, :5], cache=cache).logits,
        *(doubled(text[:, t : t + 1], cache=cache).logits for t in range(5, 12)),
    ]
    torch.testing.assert_close(torch.cat(steps, 1), doubled(text).logits, rtol=1e-4, atol=1e-4)
