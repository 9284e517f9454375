"""`kimi-delta`: against transformers' Kimi Linear, its formula token by token, and its state when decoding."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from gptkit.model.gpt import GPT
from gptkit.nn.forward import Forward
from gptkit.ops.channel_delta_rule import channel_delta_rule, channel_delta_step
from gptkit.ops.delta_rule import gated_delta_rule
from tests.support.recurrences import RECURRENT, V, check_equal_with_gradients, check_reset_state

CASE = RECURRENT["kimi-delta"]


def rule_inputs(n_tokens: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(n_tokens)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    q, k = (torch.nn.functional.normalize(draw(2, 3, n_tokens, 5), dim=-1) for _ in range(2))
    g = -draw(2, 3, n_tokens, 5).exp()
    return q, k, draw(2, 3, n_tokens, 4), g, draw(2, 3, n_tokens).sigmoid(), draw(2, 3, 5, 4)


def token_by_token(*inputs: Tensor) -> tuple[Tensor, Tensor]:
    *per_token, state = inputs
    outs = []
    for t in range(per_token[0].shape[2]):
        out, state = channel_delta_step(*(x[:, :, t] for x in per_token), state)  # type: ignore[call-arg]
        outs.append(out)
    return torch.stack(outs, dim=2), state


def test_step_equals_its_formula() -> None:
    q, k, v, g, b, state = (x[0, 0] if x.shape[2] == 5 else x[0, 0, 0] for x in rule_inputs(1))
    out, after = channel_delta_step(*(x[None, None] for x in (q, k, v, g, b, state)))
    wanted = torch.diag(g.exp()) @ state
    wanted = wanted + torch.outer(k, b * (v - wanted.T @ k))
    torch.testing.assert_close(after[0, 0], wanted)
    torch.testing.assert_close(out[0, 0], wanted.T @ q)


@pytest.mark.parametrize(("n_tokens", "chunk"), [(1, 4), (4, 4), (11, 4), (12, 4), (9, 64), (130, 64), (37, 20)])
def test_chunks_equal_single_steps(n_tokens: int, chunk: int) -> None:
    inputs = [x.requires_grad_() for x in rule_inputs(n_tokens)]
    out, state = channel_delta_rule(*inputs, chunk=chunk)  # type: ignore[misc]
    wanted, wanted_state = token_by_token(*inputs)
    check_equal_with_gradients((out, state), (wanted, wanted_state), inputs)


def test_equal_decays_of_all_features_are_the_gated_delta_rule() -> None:
    q, k, v, g, b, state = rule_inputs(70)
    same = g[..., :1].expand_as(g)
    for actual, wanted in zip(
        channel_delta_rule(q, k, v, same, b, state), gated_delta_rule(q, k, v, g[..., 0], b, state), strict=True
    ):
        torch.testing.assert_close(actual, wanted)


def test_strong_decay_does_not_overflow() -> None:
    *inputs, g, b, state = (x.requires_grad_() for x in rule_inputs(70))
    strong = g * torch.tensor([1e4, 0, 1, 1e-4, 1e4], dtype=g.dtype)
    out, after = channel_delta_rule(*inputs, strong, b, state)  # type: ignore[misc]
    wanted, wanted_after = token_by_token(*inputs, strong, b, state)
    torch.testing.assert_close(out, wanted)
    torch.testing.assert_close(after, wanted_after)
    assert all(each.isfinite().all() for each in torch.autograd.grad(out.sum(), [*inputs, g, b, state]))


@pytest.mark.parametrize("border", [1, 3, 4, 5, 8, 10])
def test_reset_state_equals_a_new_text(border: int) -> None:
    *inputs, state = rule_inputs(11)
    check_reset_state(channel_delta_rule, inputs, state, border, dim=2)


@pytest.mark.parametrize("fields", [{"decay_floor": -5.0}, {"decay_rank": 4, "gate_rank": 5, "conv_width": 3}])
@torch.no_grad()
def test_module_equals_transformers(fields: dict[str, Any]) -> None:
    """Also with left padding; Ling 3 has no low ranks and a bound, Kimi Linear the reverse."""
    rank = 8 if "decay_rank" in fields else None
    size = {"d_key": 8, "d_value": 8, "decay_rank": rank, "gate_rank": rank}
    model = CASE.make(**{**fields, **size})
    module: Any = model.attentions()[0]
    if "decay_rank" in fields:
        modeling = pytest.importorskip("transformers.models.kimi_linear.modeling_kimi_linear")
        from transformers import KimiLinearConfig as Config

        cls, sizes = modeling.KimiLinearDeltaAttention, {"linear_head_dim": 8, "linear_num_heads": 3}
        sizes["linear_conv_kernel_dim"] = module.width
    else:
        modeling = pytest.importorskip("transformers.models.bailing_hybrid.modeling_bailing_hybrid")
        from transformers import BailingHybridConfig as Config

        cls, sizes = modeling.BailingHybridDeltaAttention, {"head_dim": 8, "num_attention_heads": 3}
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = Config(hidden_size=24, num_hidden_layers=1, layer_types=["linear_attention"], vocab_size=V, **ids, **sizes)
    reference = cls(config, 0).eval()
    gate = reference.forget_gate
    q, k, v = module.qkv.weight.chunk(3)
    pairs = {reference.q_proj.weight: q, reference.k_proj.weight: k, reference.v_proj.weight: v}
    pairs |= {reference.conv1d.weight: module.conv.weight, reference.b_proj.weight: module.strength.weight}
    pairs |= {reference.o_norm.weight: module.norm.weight, reference.o_proj.weight: module.output.weight}
    pairs |= {gate.A_log: module.decay_log.view(gate.A_log.shape), gate.dt_bias: module.decay_bias}
    if "decay_rank" in fields:
        pairs |= {gate.f_a_proj.weight: module.decay_down.weight, gate.f_b_proj.weight: module.decay.weight}
        pairs |= {reference.g_a_proj.weight: module.gate_down.weight, reference.g_b_proj.weight: module.gate.weight}
    else:
        pairs |= {gate.f_proj.weight: module.decay.weight, reference.g_proj.weight: module.gate.weight}
    assert len(pairs) == len(list(reference.parameters()))
    for external, native in pairs.items():
        external.copy_(native)
    module.norm.eps = config.rms_norm_eps
    x = torch.randn(2, 150, 24, generator=torch.Generator().manual_seed(0))
    out = module(x, Forward(torch.zeros(2, 150, dtype=torch.long)))
    torch.testing.assert_close(out, reference(x), rtol=1e-4, atol=2e-5)
    padded = module(x, Forward(torch.zeros(2, 150, dtype=torch.long), left_padding_B=torch.tensor([0, 5])))
    torch.testing.assert_close(padded[1, 5:], reference(x[1:, 5:])[0], rtol=1e-4, atol=2e-5)


def test_initial_values_are_those_of_the_reference() -> None:
    model = GPT(CASE.spec, V, seed=3)
    attention: Any = model.attentions()[0]
    assert ((attention.decay_log.exp() >= 1) & (attention.decay_log.exp() <= 16)).all()
