"""Attention against independent references: torch's modules, and explicit sums."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor, nn

from gptkit.kinds.context import BuildContext, LayerParts
from gptkit.model.spec import ModelSpec
from gptkit.nn.attention.base import Attention
from gptkit.nn.forward import Forward

B, T, E = 2, 11, 24


def build(attention: dict[str, Any], position: Any = "none") -> Attention:
    spec = ModelSpec.model_validate(
        {"d_model": E, "n_layers": 1, "context_length": 64, "attention": attention, "position": position}
    )
    layer = spec.layer_specs()[0]
    parts = LayerParts(0, layer.position, layer.attention, layer.norm, layer.feedforward)
    module = layer.attention.build(BuildContext(E, 64, 1, position=spec.position, layer=parts))
    randomize(module)
    return module.eval()


def randomize(module: nn.Module, seed: int = 3) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)


def inputs(seed: int = 0) -> tuple[Tensor, Forward]:
    x = torch.randn(B, T, E, generator=torch.Generator().manual_seed(seed))
    return x, Forward(torch.zeros(B, T, dtype=torch.long))


def causal() -> Tensor:
    return torch.ones(T, T, dtype=torch.bool).tril()


def softmax_attention(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor, scale: float) -> Tensor:
    scores = (q @ k.transpose(-1, -2) * scale).masked_fill(~allowed, float("-inf"))
    return scores.softmax(-1) @ v


def heads(x: Tensor, count: int) -> Tensor:
    return x.view(B, T, count, -1).transpose(1, 2)


def test_multi_head_equals_torchs_module() -> None:
    actual: Any = build({"name": "multi-head", "n_heads": 4, "qkv_bias": True, "output_bias": True})
    reference = nn.MultiheadAttention(E, 4, bias=True, batch_first=True)
    with torch.no_grad():
        reference.in_proj_weight.copy_(actual.qkv.weight)
        reference.in_proj_bias.copy_(actual.qkv.bias)
        reference.out_proj.weight.copy_(actual.output.weight)
        reference.out_proj.bias.copy_(actual.output.bias)
    x, forward = inputs()
    expected, _ = reference(x, x, x, attn_mask=~causal(), need_weights=False)
    torch.testing.assert_close(actual(x, forward), expected, atol=1e-5, rtol=1e-5)


def test_grouped_query_equals_repeated_heads() -> None:
    actual: Any = build({"name": "grouped-query", "n_heads": 6, "n_kv_heads": 2, "d_head": 5, "scale": 0.3})
    x, forward = inputs()
    q, k, v = F.linear(x, actual.qkv.weight).split([30, 10, 10], -1)
    k, v = (heads(t, 2).repeat_interleave(3, 1) for t in (k, v))
    out = F.scaled_dot_product_attention(heads(q, 6), k, v, is_causal=True, scale=0.3)
    expected = F.linear(out.transpose(1, 2).flatten(2), actual.output.weight)
    torch.testing.assert_close(actual(x, forward), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("gated", [False, True])
def test_output_norm_is_applied_to_all_heads_together(gated: bool) -> None:
    norm = {"name": "rms", "eps": 1e-3}
    actual: Any = build({"name": "multi-head", "n_heads": 4, "d_head": 5, "output_norm": norm, "output_gate": gated})
    x, forward = inputs()
    q, k, v, *gates = F.linear(x, actual.qkv.weight).chunk(4 if gated else 3, -1)
    out = F.scaled_dot_product_attention(heads(q, 4), heads(k, 4), heads(v, 4), is_causal=True).transpose(1, 2).flatten(2)
    out = out * gates[0].sigmoid() if gated else out
    normed = F.rms_norm(out, (20,), actual.output_norm.weight, 1e-3)
    torch.testing.assert_close(actual(x, forward), F.linear(normed, actual.output.weight), atol=1e-5, rtol=1e-5)


def test_single_head_equals_the_formula() -> None:
    actual: Any = build({"name": "single-head", "d_head": 7, "qkv_bias": True})
    x, forward = inputs()
    q, k, v = (x @ layer.weight.T + layer.bias for layer in (actual.W_query, actual.W_key, actual.W_value))
    expected = softmax_attention(q, k, v, causal(), 1 / math.sqrt(7)) @ actual.W_output.weight.T
    torch.testing.assert_close(actual(x, forward), expected, atol=1e-5, rtol=1e-5)


def test_stacked_heads_are_single_heads_side_by_side() -> None:
    actual: Any = build({"name": "stacked-heads", "n_heads": 4, "qkv_bias": True})
    x, forward = inputs()
    outputs = []
    for head in actual.stack:
        q, k, v = (x @ layer.weight.T + layer.bias for layer in (head.W_query, head.W_key, head.W_value))
        outputs.append(softmax_attention(q, k, v, causal(), 1 / math.sqrt(E // 4)))
    torch.testing.assert_close(actual(x, forward), torch.cat(outputs, dim=-1), atol=1e-5, rtol=1e-5)


def test_multi_head_has_the_matrices_of_stacked_heads_in_one() -> None:
    stacked: Any = build({"name": "stacked-heads", "n_heads": 4})
    multi: Any = build({"name": "multi-head", "n_heads": 4})
    names = ("W_query", "W_key", "W_value")
    with torch.no_grad():
        multi.qkv.weight.copy_(torch.cat([getattr(head, name).weight for name in names for head in stacked.stack]))
        multi.output.weight.copy_(torch.eye(E))
    x, forward = inputs()
    torch.testing.assert_close(stacked(x, forward), multi(x, forward), atol=1e-5, rtol=1e-5)


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(ValidationError, match=f"d_model {E} cannot be split into 5 heads; choose a divisor"):
        build({"name": "stacked-heads", "n_heads": 5})


@pytest.mark.parametrize("scaled", [False, True])
def test_simple_attention_averages_the_inputs(scaled: bool) -> None:
    actual = build({"name": "simple", "scaled": scaled})
    x, forward = inputs()
    expected = softmax_attention(x, x, x, causal(), 1 / math.sqrt(E) if scaled else 1.0)
    torch.testing.assert_close(actual(x, forward), expected, atol=1e-5, rtol=1e-5)
    assert not list(actual.parameters())


@pytest.mark.parametrize("gate_bias", [False, True])
def test_window_softcap_sinks_gate_and_clip_equal_the_formula(gate_bias: bool) -> None:
    fields = {"window": 4, "softcap": 3.0, "sinks": True, "output_gate": True, "clip_qkv": 1.0, "qkv_bias": True}
    actual: Any = build({"name": "grouped-query", "n_heads": 4, "n_kv_heads": 2, **fields, "gate_bias": gate_bias})
    x, forward = inputs()
    q, k, v, gate = F.linear(x, actual.qkv.weight, actual.qkv.bias).split([24, 12, 12, 24], -1)
    q, k, v = (t.clamp(-1, 1) for t in (q, k, v))
    q, gate = heads(q, 4), heads(gate, 4)
    k, v = (heads(t, 2).repeat_interleave(2, 1) for t in (k, v))
    back = torch.arange(T)[:, None] - torch.arange(T)[None]
    scores = 3 * torch.tanh(q @ k.transpose(-1, -2) / math.sqrt(6) / 3)
    scores = scores.masked_fill(~((back >= 0) & (back < 4)), float("-inf"))
    exps = scores.exp()
    weights = exps / (exps.sum(-1, keepdim=True) + actual.sinks.exp().view(1, 4, 1, 1))
    out = (weights @ v) * torch.sigmoid(gate + actual.gate_bias.view(1, 4, 1, 1) if gate_bias else gate)
    expected = F.linear(out.transpose(1, 2).flatten(2), actual.output.weight)
    torch.testing.assert_close(actual(x, forward), expected, atol=1e-5, rtol=1e-5)


def test_sinks_in_fused_attention_equal_the_explicit_formula() -> None:
    actual: Any = build({"name": "multi-head", "n_heads": 4, "sinks": True})
    x, forward = inputs()
    kept = Forward(torch.zeros(B, T, dtype=torch.long), keep_weights=True)
    torch.testing.assert_close(actual(x, forward), actual(x, kept), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("width", ["head", "full"])
def test_qk_norm_before_and_after_rotation_equals_the_formula(width: str) -> None:
    fields = {"n_heads": 4, "n_kv_heads": 2, "qk_norm": {"name": "rms", "eps": 1e-6}, "qk_norm_width": width}
    actual: Any = build({"name": "grouped-query", **fields}, "rotary")
    x, forward = inputs()
    q, k, v = F.linear(x, actual.qkv.weight).split([24, 12, 12], -1)
    norm_q, norm_k = actual.q_norm.weight, actual.k_norm.weight
    if width == "full":
        q, k = F.rms_norm(q, (24,), norm_q, 1e-6), F.rms_norm(k, (12,), norm_k, 1e-6)
        q, k = heads(q, 4), heads(k, 2)
    else:
        q, k = F.rms_norm(heads(q, 4), (6,), norm_q, 1e-6), F.rms_norm(heads(k, 2), (6,), norm_k, 1e-6)
    q, k = turn(q), turn(k)
    k, v = k.repeat_interleave(2, 1), heads(v, 2).repeat_interleave(2, 1)
    out = softmax_attention(q, k, v, causal(), 1 / math.sqrt(6))
    expected = F.linear(out.transpose(1, 2).flatten(2), actual.output.weight)
    torch.testing.assert_close(actual(x, forward), expected, atol=1e-5, rtol=1e-5)


def turn(x: Tensor) -> Tensor:
    """Half-split rotation, through complex numbers."""
    half = x.shape[-1] // 2
    rates = 10000.0 ** (-torch.arange(half) / half)
    angles = torch.arange(x.shape[2])[:, None] * rates
    turned = torch.complex(x[..., :half], x[..., half:]) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat((turned.real, turned.imag), -1)


def test_rotation_is_applied_between_both_norms() -> None:
    fields = {"n_heads": 4, "qk_norm": {"name": "rms", "eps": 1e-6}, "qk_norm_order": "after"}
    actual: Any = build({"name": "multi-head", **fields}, "rotary")
    x, forward = inputs()
    q, k, v = (heads(t, 4) for t in F.linear(x, actual.qkv.weight).split(24, -1))
    q = F.rms_norm(turn(q), (6,), actual.q_norm.weight, 1e-6)
    k = F.rms_norm(turn(k), (6,), actual.k_norm.weight, 1e-6)
    out = softmax_attention(q, k, v, causal(), 1 / math.sqrt(6))
    expected = F.linear(out.transpose(1, 2).flatten(2), actual.output.weight)
    torch.testing.assert_close(actual(x, forward), expected, atol=1e-5, rtol=1e-5)


def test_requested_weights_sum_to_one() -> None:
    actual: Any = build({"name": "multi-head", "n_heads": 4})
    x, _ = inputs()
    forward = Forward(torch.zeros(B, T, dtype=torch.long), keep_weights=True)
    actual(x, forward)
    assert forward.weights is not None
    weights = forward.weights[0, 0]
    assert weights.shape == (B, 4, T, T)
    torch.testing.assert_close(weights.sum(-1), torch.ones(B, 4, T))
    assert (weights[..., ~causal()] == 0).all()


def test_dropout_drops_weights_in_training_only() -> None:
    actual: Any = build({"name": "multi-head", "n_heads": 4, "dropout": 0.5})
    x, forward = inputs()
    assert torch.equal(actual(x, forward), actual(x, forward))
    actual.train()
    torch.manual_seed(0)
    kept = Forward(torch.zeros(B, T, dtype=torch.long), keep_weights=True)
    actual(x, kept)
    assert kept.weights is not None
    share = (kept.weights[0, 0][..., causal()] == 0).float().mean().item()
    assert 0.4 < share < 0.6
