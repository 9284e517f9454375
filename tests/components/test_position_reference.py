"""Positions against transformers' code and explicit loops."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from gptkit.core.registry import default_registry
from gptkit.kinds.context import BuildContext
from gptkit.kinds.position import HeadShape, PositionSpec
from gptkit.nn.position import Position

E, LENGTH = 24, 64


def spec(name: str, **fields: Any) -> PositionSpec:
    cls = default_registry().component("position", name)
    made = cls.model_validate({"name": name, **fields})
    assert isinstance(made, PositionSpec)
    return made


def build(name: str, n_heads: int = 4, d_head: int = 8, n_kv_heads: int | None = None, **fields: Any) -> Position:
    context = BuildContext(E, LENGTH, 2)
    return spec(name, **fields).build(context, heads=HeadShape(n_heads, n_kv_heads or n_heads, d_head))


def turned(position: Position, q: torch.Tensor, k: torch.Tensor, at: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return position.rotate(q, k, position.prepare(at))


@pytest.mark.parametrize("base", [10000.0, 500000.0])
def test_rotary_half_equals_llama(base: float) -> None:
    llama = pytest.importorskip("transformers.models.llama.modeling_llama")
    from transformers import LlamaConfig

    config = LlamaConfig(
        hidden_size=32,
        num_attention_heads=4,
        max_position_embeddings=64,
        rope_parameters={"rope_type": "default", "rope_theta": base},
    )
    reference = llama.LlamaRotaryEmbedding(config)
    q, k = torch.randn(2, 4, 20, 8), torch.randn(2, 2, 20, 8)
    at = torch.arange(5, 25)
    cos, sin = reference(q, at[None])
    expected = llama.apply_rotary_pos_emb(q, k, cos, sin)
    actual = turned(build("rotary", n_kv_heads=2, base=base), q, k, at)
    for mine, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-5)


def test_rotary_interleaved_and_partial_equal_gptj() -> None:
    gptj = pytest.importorskip("transformers.models.gptj.modeling_gptj")
    table = gptj.create_sinusoidal_positions(64, 6)
    q, k = torch.randn(2, 20, 4, 12), torch.randn(2, 20, 4, 12)
    at = torch.arange(20)
    sin, cos = table[at][None].chunk(2, -1)
    expected = [torch.cat((gptj.apply_rotary_pos_emb(x[..., :6], sin, cos), x[..., 6:]), -1).transpose(1, 2) for x in (q, k)]
    actual = turned(build("rotary", d_head=12, layout="interleaved", fraction=0.5), q.transpose(1, 2), k.transpose(1, 2), at)
    for mine, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("layout", ["half", "interleaved"])
def test_reverse_rotary_multiplies_complex_pairs_by_negative_angles(layout: str) -> None:
    q, k, at = torch.randn(2, 4, 9, 8), torch.randn(2, 2, 9, 8), torch.arange(3, 12)
    rates = 100.0 ** (-torch.arange(0, 8, 2) / 8)
    phases = torch.polar(torch.ones(9, 4), -at[:, None] * rates)

    def rotated(x: torch.Tensor) -> torch.Tensor:
        pairs = x.unflatten(-1, (2, 4)).transpose(-1, -2) if layout == "half" else x.unflatten(-1, (4, 2))
        turned_pairs = torch.view_as_real(torch.view_as_complex(pairs.contiguous()) * phases)
        return (turned_pairs.transpose(-1, -2) if layout == "half" else turned_pairs).flatten(-2)

    actual = turned(build("rotary", n_kv_heads=2, base=100.0, layout=layout, reverse=True), q, k, at)
    for mine, other in zip(actual, (rotated(q), rotated(k)), strict=True):
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-5)


def test_reverse_rotary_equals_nanochats_formula() -> None:
    """`apply_rotary_emb` of karpathy/nanochat: y1 = x1 cos + x2 sin, y2 = -x1 sin + x2 cos."""
    q, at = torch.randn(2, 4, 9, 8), torch.arange(9)
    angles = torch.outer(at.float(), 1.0 / (10000 ** (torch.arange(0, 8, 2) / 8)))
    x1, x2 = q[..., :4], q[..., 4:]
    expected = torch.cat((x1 * angles.cos() + x2 * angles.sin(), x1 * -angles.sin() + x2 * angles.cos()), 3)
    actual, _ = turned(build("rotary", reverse=True), q, q, at)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(actual, turned(build("rotary"), q, q, at)[0])


SCALINGS = {
    "linear": ({"factor": 3.0}, {"rope_type": "linear", "factor": 3.0}),
    "dynamic": (
        {"factor": 2.0, "original_context_length": 32},
        {"rope_type": "dynamic", "factor": 2.0},
    ),
    "yarn": (
        {"factor": 8.0, "original_context_length": 32},
        {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 32},
    ),
    "yarn-untruncated": (
        {"factor": 8.0, "original_context_length": 32, "truncate": False, "beta_fast": 4.0, "beta_slow": 0.5},
        {
            "rope_type": "yarn",
            "factor": 8.0,
            "original_max_position_embeddings": 32,
            "truncate": False,
            "beta_fast": 4.0,
            "beta_slow": 0.5,
        },
    ),
    "llama3": (
        {"factor": 8.0, "original_context_length": 32},
        {
            "rope_type": "llama3",
            "factor": 8.0,
            "original_max_position_embeddings": 32,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
        },
    ),
    "llama3-unblended": (  # Llama 4
        {
            "factor": 8.0,
            "original_context_length": 32,
            "low_frequency_factor": 1.5,
            "high_frequency_factor": 1.5,
        },
        {
            "rope_type": "llama3",
            "factor": 8.0,
            "original_max_position_embeddings": 32,
            "low_freq_factor": 1.5,
            "high_freq_factor": 1.5,
        },
    ),
    "longrope": (
        {
            "short": tuple(1 + i / 10 for i in range(8)),
            "long": tuple(2.0 + i for i in range(8)),
            "original_context_length": 32,
        },
        {
            "rope_type": "longrope",
            "short_factor": [1 + i / 10 for i in range(8)],
            "long_factor": [2.0 + i for i in range(8)],
            "original_max_position_embeddings": 32,
        },
    ),
    "proportional": (
        {"fraction": 0.4, "factor": 2.0},
        {"rope_type": "proportional", "partial_rotary_factor": 0.4, "factor": 2.0},
    ),
}


@pytest.mark.parametrize("length", [20, 50])
@pytest.mark.parametrize("name", list(SCALINGS))
def test_rotary_scaling_equals_transformers(name: str, length: int) -> None:
    llama = pytest.importorskip("transformers.models.llama.modeling_llama")
    from transformers import LlamaConfig

    mine, other = SCALINGS[name]
    config = LlamaConfig(
        hidden_size=64,
        num_attention_heads=4,
        max_position_embeddings=32 if name == "dynamic" else LENGTH,
        rope_parameters={"rope_theta": 10000.0, **other},
    )
    reference = llama.LlamaRotaryEmbedding(config)
    q = torch.randn(1, 4, length, 16)
    at = torch.arange(length)
    cos, sin = reference(q, at[None])
    expected, _ = llama.apply_rotary_pos_emb(q, q, cos, sin)
    actual, _ = turned(build("rotary", d_head=16, scaling={"name": name.split("-")[0], **mine}), q, q, at)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("layout", ["half", "interleaved"])
def test_rotary_scores_depend_on_the_distance_only(layout: str) -> None:
    position = build("rotary", layout=layout)
    q, k = torch.randn(1, 4, 9, 8).double(), torch.randn(1, 4, 9, 8).double()
    scores = []
    for shift in (0, 17):
        a, b = turned(position, q, k, torch.arange(9) + shift)
        scores.append(a @ b.transpose(-1, -2))
    torch.testing.assert_close(scores[0], scores[1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("n_heads", [1, 2, 4, 6, 8, 12, 20])
def test_alibi_equals_bloom_up_to_a_constant_per_row(n_heads: int) -> None:
    bloom = pytest.importorskip("transformers.models.bloom.modeling_bloom")
    reference = bloom.build_alibi_tensor(torch.ones(1, 10, dtype=torch.long), n_heads, torch.float32).view(n_heads, 1, 10)
    at = torch.arange(10)
    actual = build("alibi", n_heads=n_heads).bias(at, at)
    assert actual is not None
    # BLOOM adds slope · s instead of the paper's -slope · (t - s), which gives the same softmax.
    torch.testing.assert_close(
        actual[0] - actual[0][:, :, :1], (reference - reference[:, :, :1]).expand(-1, 10, -1), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("n_heads", [4, 6, 12])
def test_alibi_strided_equals_mpt(n_heads: int) -> None:
    mpt = pytest.importorskip("transformers.models.mpt.modeling_mpt")
    reference = mpt.build_mpt_alibi_tensor(n_heads, 10)
    at = torch.arange(10)
    actual = build("alibi", n_heads=n_heads, slope_order="strided").bias(at, at)
    assert actual is not None
    torch.testing.assert_close(actual[0, :, -1:], reference.reshape(n_heads, 1, 10), atol=1e-5, rtol=1e-5)


def test_t5_buckets_equal_transformers() -> None:
    t5 = pytest.importorskip("transformers.models.t5.modeling_t5")
    distance = torch.arange(0, 300)
    expected = t5.T5Attention._relative_position_bucket(-distance, bidirectional=False, num_buckets=32, max_distance=128)
    position: Any = build("t5-bias")
    assert torch.equal(position.buckets(distance), expected)
    position = build("t5-bias", n_buckets=16, max_distance=40)
    expected = t5.T5Attention._relative_position_bucket(-distance, bidirectional=False, num_buckets=16, max_distance=40)
    assert torch.equal(position.buckets(distance), expected)
    nn.init.normal_(position.table.weight)
    at = torch.arange(12)
    bias = position.bias(at, at)
    assert bias.shape == (1, 4, 12, 12)
    assert bias[0, 3, 7, 2] == position.table.weight[position.buckets(torch.tensor(5)), 3]


def test_shaw_equals_the_papers_sum() -> None:
    position: Any = build("shaw", max_distance=3)
    nn.init.normal_(position.keys.weight)
    nn.init.normal_(position.values.weight)
    q, weights = torch.randn(2, 4, 7, 8), torch.rand(2, 4, 7, 7)
    at = torch.arange(7)
    bias = position.content_bias(q, q, at, at)
    extra = position.value_bias(weights, at, at)
    for t in range(7):
        for s in range(t + 1):
            vector = position.keys.weight[min(t - s, 3)]
            torch.testing.assert_close(bias[:, :, t, s], q[:, :, t] @ vector)
        expected = sum(weights[:, :, t, s, None] * position.values.weight[min(max(t - s, 0), 3)] for s in range(7))
        torch.testing.assert_close(extra[:, :, t], expected, atol=1e-5, rtol=1e-5)


def test_sinusoidal_equals_the_papers_table() -> None:
    position = spec("sinusoidal", scale=0.5).build_embedding(BuildContext(E, LENGTH, 2))
    assert position is not None
    table = position.embed(torch.zeros(1, 9, E), torch.arange(9))[0]
    for t in range(9):
        for i in range(E // 2):
            angle = t / 10000 ** (2 * i / E)
            assert table[t, 2 * i].item() == pytest.approx(0.5 * math.sin(angle), abs=1e-5)
            assert table[t, 2 * i + 1].item() == pytest.approx(0.5 * math.cos(angle), abs=1e-5)


def test_sinusoidal_in_halves_equals_ctrl() -> None:
    ctrl = pytest.importorskip("transformers.models.ctrl.modeling_ctrl")
    position = spec("sinusoidal", layout="half").build_embedding(BuildContext(E, LENGTH, 2))
    assert position is not None
    table = position.embed(torch.zeros(1, 9, E), torch.arange(9))[0]
    torch.testing.assert_close(table, ctrl.positional_encoding(9, E, torch.float))


def test_sinusoidal_with_endpoint_and_offset_equals_xglm() -> None:
    xglm = pytest.importorskip("transformers.models.xglm.modeling_xglm")
    position = spec("sinusoidal", layout="half", offset=2, endpoint=True).build_embedding(BuildContext(E, LENGTH, 2))
    assert position is not None
    table = position.embed(torch.zeros(1, 9, E), torch.arange(9))[0]
    torch.testing.assert_close(table, xglm.XGLMSinusoidalPositionalEmbedding.get_embedding(11, E)[2:])


def test_sinusoidal_endpoint_needs_two_wavelengths() -> None:
    problems = list(spec("sinusoidal", endpoint=True).problems(BuildContext(2, LENGTH, 1)))
    assert [each.path for each in problems] == [("endpoint",)]


def test_learned_positions_start_at_the_offset() -> None:
    position: Any = spec("learned", size=10, offset=2).build_embedding(BuildContext(E, 10, 2))
    x = torch.randn(2, 4, E)
    at = torch.tensor([3, 4, 5, 6])
    torch.testing.assert_close(position.embed(x, at), x + position.table.weight[5:9])
    assert position.table.weight.shape == (12, E)


def test_equal_rotary_specs_share_one_table_and_t5_layers_share_weights() -> None:
    context, heads = BuildContext(E, LENGTH, 2), HeadShape(4, 4, 8)
    assert spec("rotary").build(context, heads=heads) is spec("rotary").build(context, heads=heads)
    assert spec("rotary").build(context, heads=heads) is not spec("rotary", base=5e5).build(context, heads=heads)
    assert spec("t5-bias").build(context, heads=heads) is spec("t5-bias").build(context, heads=heads)
    lone = spec("t5-bias", shared=False)
    assert lone.build(context, heads=heads) is not lone.build(context, heads=heads)
