"""Norms against torch's modules, and against the modules of model families."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gptkit.components.norm.affine import AffineNormSpec
from gptkit.components.norm.gated import GatedNormSpec
from gptkit.components.norm.l2_clip import L2ClipSpec
from gptkit.components.norm.layer import LayerNormSpec
from gptkit.components.norm.rms import RMSNormSpec
from gptkit.core.errors import SpecError
from gptkit.files import validate_data
from gptkit.kinds.context import BuildContext
from gptkit.kinds.norm import NormSpec
from gptkit.model.spec import ModelSpec

DIM = 24
CONTEXT = BuildContext(d_model=DIM, context_length=8, n_layers=2)
PRECISE = {torch.float32: 1e-5, torch.float64: 1e-12}


def randomized(module: nn.Module, spread: float = 1.0) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread)
    return module


def inputs(dtype: torch.dtype = torch.float32) -> Tensor:
    return (torch.randn(3, 5, DIM, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3 + 1).to(dtype)


@pytest.mark.parametrize("fields", [{}, {"eps": 0.5}, {"shift": False}, {"scale": False}, {"scale": False, "shift": False}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_layer_equals_torch(fields: dict[str, Any], dtype: torch.dtype) -> None:
    norm = randomized(LayerNormSpec(**fields).build(CONTEXT, dim=DIM)).to(dtype)
    x = inputs(dtype)
    reference = nn.LayerNorm(DIM, eps=fields.get("eps", 1e-5), dtype=dtype)
    with torch.no_grad():
        reference.weight.copy_(norm.weight if norm.weight is not None else torch.ones(DIM))
        reference.bias.copy_(norm.bias if norm.bias is not None else torch.zeros(DIM))
    assert set(dict(norm.named_parameters())) == {
        name for name, key in (("weight", "scale"), ("bias", "shift")) if fields.get(key, True)
    }
    torch.testing.assert_close(norm(x), reference(x), rtol=0, atol=PRECISE[dtype])


@torch.no_grad()
@pytest.mark.parametrize("scale", [True, False])
def test_l2_clip_equals_transformers_and_bounds_lengths(scale: bool) -> None:
    modeling = pytest.importorskip("transformers.models.inkling2.modeling_inkling2")
    norm: Any = randomized(L2ClipSpec(bound=9.0, scale=scale).build(CONTEXT, dim=DIM))
    reference = modeling.Inkling2ScaledL2Clip(1, DIM, 9.0) if scale else modeling.Inkling2L2Clip(9.0)
    x = inputs() * torch.tensor([0.1, 1.0, 5.0])[:, None, None]
    wanted = x
    if scale:
        reference.scale.copy_(norm.weight[None])
        wanted = x * norm.weight
    assert torch.equal(norm(x), reference(x))
    lengths = wanted.norm(dim=-1)
    assert bool((lengths < 9).any())
    assert bool((lengths > 9).any())
    torch.testing.assert_close(norm(x).norm(dim=-1), lengths.clamp(max=9.0))


def test_layer_norm_equals_its_formula() -> None:
    norm = randomized(LayerNormSpec(eps=0.1, offset=0.5).build(CONTEXT, dim=DIM))
    x = inputs()
    centered = x - x.mean(-1, keepdim=True)
    by_hand = centered / (centered.square().mean(-1, keepdim=True) + 0.1).sqrt() * (0.5 + norm.weight) + norm.bias
    torch.testing.assert_close(norm(x), by_hand, rtol=0, atol=1e-5)


def test_initial_layer_norm_gives_mean_zero_and_variance_one() -> None:
    for fields in ({}, {"offset": 1.0}, {"scale": False, "shift": False}):
        y = LayerNormSpec(**fields).build(CONTEXT, dim=DIM)(inputs())
        torch.testing.assert_close(y.mean(-1), torch.zeros(3, 5), rtol=0, atol=1e-5)
        torch.testing.assert_close(y.var(-1, unbiased=False), torch.ones(3, 5), rtol=0, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_layer_with_offset_equals_nemotron(dtype: torch.dtype) -> None:
    modeling = pytest.importorskip("transformers.models.nemotron.modeling_nemotron")
    norm = randomized(LayerNormSpec(offset=1.0).build(CONTEXT, dim=DIM)).to(dtype)
    reference = modeling.NemotronLayerNorm1P(DIM, dtype=dtype)
    reference.load_state_dict(norm.state_dict())
    x = inputs(dtype)
    assert torch.equal(norm(x), reference(x))


FAMILIES = {
    "llama": ("LlamaRMSNorm", RMSNormSpec(eps=1e-6)),
    "gemma": ("GemmaRMSNorm", RMSNormSpec(eps=1e-6, offset=1, cast="after")),
    "gpt_oss": ("GptOssRMSNorm", RMSNormSpec(eps=1e-6, cast="after")),
    "olmo2": ("Olmo2RMSNorm", RMSNormSpec(eps=1e-6, cast="after")),
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("spread", [1.0, 0.01])
def test_rms_norm_equals_the_families_exactly(family: str, dtype: torch.dtype, spread: float) -> None:
    modeling = pytest.importorskip(f"transformers.models.{family}.modeling_{family}")
    class_name, spec = FAMILIES[family]
    norm = randomized(spec.build(CONTEXT, dim=DIM), spread).to(dtype)
    reference = getattr(modeling, class_name)(DIM, eps=1e-6).to(dtype)
    reference.load_state_dict(norm.state_dict())
    x = inputs(dtype)
    with torch.no_grad():
        y = norm(x)
        assert y.dtype == dtype
        assert torch.equal(y, reference(x))
    # In training, the kernel with the fast backward pass is used: equal up to rounding.
    torch.testing.assert_close(
        norm(x.requires_grad_()), reference(x), rtol=1e-2 if dtype == torch.bfloat16 else 1e-6, atol=1e-6
    )


def test_the_two_casts_differ_in_bf16() -> None:
    x = inputs(torch.bfloat16)
    before, after = (
        randomized(RMSNormSpec(cast=cast).build(CONTEXT, dim=DIM)).bfloat16()(x) for cast in ("before", "after")
    )
    assert not torch.equal(before, after)


@pytest.mark.parametrize("fields", [{}, {"scale": False}, {"offset": 1}, {"cast": "after"}, {"eps": 0.5}])
def test_rms_norm_equals_its_formula(fields: dict[str, Any]) -> None:
    norm = randomized(RMSNormSpec(**fields).build(CONTEXT, dim=DIM))
    x = inputs()
    by_hand = x / (x.square().mean(-1, keepdim=True) + fields.get("eps", 1e-5)).sqrt()
    if norm.weight is not None:
        by_hand = by_hand * (fields.get("offset", 0) + norm.weight)
    torch.testing.assert_close(norm(x), by_hand, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "spec",
    [
        *(LayerNormSpec(), LayerNormSpec(offset=1.0), RMSNormSpec(), RMSNormSpec(offset=1, cast="after"), GatedNormSpec()),
        *(AffineNormSpec(), AffineNormSpec(bias="before")),
    ],
)
def test_norm_keeps_the_dtype_of_its_input(spec: NormSpec) -> None:
    norm = spec.build(CONTEXT, dim=DIM)
    for dtype in (torch.float32, torch.bfloat16):
        assert norm(inputs(dtype)).dtype == dtype
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert norm(inputs(torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize("spec", [LayerNormSpec(), LayerNormSpec(offset=0.25), RMSNormSpec(), RMSNormSpec(offset=1)])
def test_initial_weights_are_neutral(spec: NormSpec) -> None:
    norm = spec.build(CONTEXT, dim=DIM)
    built = {name: parameter.clone() for name, parameter in norm.named_parameters()}
    for name, start in norm.initial().items():
        shape = built[name].shape
        if callable(start):
            value = start(shape, torch.Generator())
        else:
            value = torch.ones(shape) if start == "ones" else torch.zeros(shape)
        assert torch.equal(value, built[name])
    x = inputs()
    plain = F.layer_norm(x, (DIM,)) if spec.name == "layer" else F.rms_norm(x, (DIM,), eps=1e-5)
    torch.testing.assert_close(norm(x), plain, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_gated_norm_equals_that_of_axk2(dtype: torch.dtype) -> None:
    modeling = pytest.importorskip("transformers.models.axk2.modeling_axk2")
    config = modeling.AXK2Config(hidden_size=DIM, gated_norm_rank=5, rms_norm_eps=1e-3)
    norm = randomized(GatedNormSpec(norm=RMSNormSpec(eps=1e-3), rank=5).build(CONTEXT, dim=DIM)).to(dtype)
    reference = modeling.AXK2GatedRMSNorm(config).to(dtype)
    names = {"norm.weight": "norm.weight", "down.weight": "mlp.fc1.weight", "up.weight": "mlp.fc2.weight"}
    reference.load_state_dict({names[name]: value for name, value in norm.state_dict().items()})
    y = norm(inputs(dtype))
    assert y.dtype == dtype
    torch.testing.assert_close(y, reference(inputs(dtype)), rtol=1e-6, atol=1e-6)


def test_gates_multiply_the_output_of_any_norm() -> None:
    norm = randomized(GatedNormSpec(norm=LayerNormSpec(eps=0.1), rank=3).build(CONTEXT, dim=DIM))
    x = inputs()
    centered = x - x.mean(-1, keepdim=True)
    n = centered / (centered.square().mean(-1, keepdim=True) + 0.1).sqrt() * norm.norm.weight + norm.norm.bias
    hidden = n @ norm.down.weight.T
    hidden = hidden / (1 + torch.exp(-hidden))
    by_hand = n / (1 + torch.exp(-(hidden @ norm.up.weight.T)))
    torch.testing.assert_close(norm(x), by_hand, rtol=0, atol=1e-4)


def test_a_norm_within_a_norm_is_not_stacked_over_heads() -> None:
    attention = {"name": "multi-head", "qk_norm": "gated", "qk_norm_width": "each-head"}
    with pytest.raises(SpecError, match=r"qk_norm_width: norm 'gated' contains another one.*set qk_norm_width: head"):
        validate_data({"d_model": 64, "n_layers": 1, "attention": attention}, ModelSpec)


@pytest.mark.parametrize("bias", ["after", "before", "none"])
@torch.no_grad()
def test_affine_norm_equals_its_formula(bias: Any) -> None:
    norm: Any = randomized(AffineNormSpec(bias=bias).build(CONTEXT, dim=DIM))
    x = inputs()
    wanted = norm.weight * (x + norm.bias) if bias == "before" else norm.weight * x + (norm.bias if bias == "after" else 0)
    torch.testing.assert_close(norm(x), wanted)
    assert (norm.bias is None) == (bias == "none")
    fresh = AffineNormSpec(bias=bias).build(CONTEXT, dim=DIM)
    assert torch.equal(fresh(x), x)


def test_shared_affine_norm_has_one_weight() -> None:
    norm: Any = randomized(AffineNormSpec(shared=True).build(CONTEXT, dim=DIM))
    assert norm.weight.shape == norm.bias.shape == (1,)
    x = inputs()
    torch.testing.assert_close(norm(x), norm.weight.item() * x + norm.bias.item())


def test_vectors_are_independent() -> None:
    x = inputs()
    for spec in (LayerNormSpec(), RMSNormSpec(), GatedNormSpec()):
        norm = randomized(spec.build(CONTEXT, dim=DIM))
        torch.testing.assert_close(norm(x)[1, 2], norm(x[1, 2]), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "fields", [{"scale": False}, {"shift": False}, {}, {"offset": 1.0}, {"scale": False, "shift": False}]
)
def test_layer_norm_of_a_branch_is_trained_in_bf16(fields: dict[str, Any]) -> None:
    """Under autocast a branch returns bf16; the norm's weights are in fp32."""
    norm: Any = randomized(LayerNormSpec(**fields).build(CONTEXT, dim=8))
    x = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0)).bfloat16().requires_grad_()
    weights_BTE = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(1))
    with torch.autocast("cpu", torch.bfloat16):
        y = norm(x)
    assert y.dtype == torch.bfloat16
    (y * weights_BTE).sum().backward()
    expected = x.detach().float().requires_grad_()
    parameters = [(each, each.grad.clone()) for each in norm.parameters()]
    norm.zero_grad()
    (norm(expected) * weights_BTE).sum().backward()
    assert expected.grad is not None
    assert x.grad is not None
    torch.testing.assert_close(x.grad.float(), expected.grad, atol=0.05, rtol=0.02)
    for parameter, gradient in parameters:
        torch.testing.assert_close(gradient, parameter.grad, atol=0.1, rtol=0.02)
