"""Blocks against explicit compositions, and the effect of residual connections on gradients."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import pytest
import torch
from torch import Tensor, nn

from gptkit.components.block.output_norm import OutputNormSpec
from gptkit.components.block.parallel import ParallelSpec
from gptkit.components.block.post_norm import PostNormSpec
from gptkit.components.block.pre_norm import PreNormSpec
from gptkit.components.block.sandwich import SandwichSpec
from gptkit.components.block.single_branch import SingleBranchSpec
from gptkit.components.feedforward.mlp import MLPSpec
from gptkit.components.norm.affine import AffineNormSpec
from gptkit.components.norm.layer import LayerNormSpec
from gptkit.components.norm.rms import RMSNormSpec
from gptkit.core.errors import SpecError
from gptkit.core.registry import default_registry
from gptkit.files import validate_data
from gptkit.kinds.attention import AttentionSpec
from gptkit.kinds.block import BlockSpec
from gptkit.kinds.context import BuildContext, LayerParts
from gptkit.model.spec import ModelSpec
from gptkit.nn.attention.base import Attention
from gptkit.nn.block import Block
from gptkit.nn.forward import Forward
from gptkit.ops import dropout

B, T, E = 2, 5, 12


class Running(Attention):
    """Attention that computes the running mean of a projection, which has a simple explicit form."""

    def __init__(self, context: BuildContext) -> None:
        super().__init__()
        self.value = nn.Linear(context.d_model, context.d_model)

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        steps = torch.arange(1, x_BTE.shape[1] + 1, device=x_BTE.device)[:, None]
        mixed: Tensor = self.value(x_BTE).cumsum(1) / steps.to(x_BTE.dtype)
        return mixed


class RunningSpec(AttentionSpec):
    """Attention of these tests."""

    name: Literal["running"] = "running"
    examples: ClassVar[Any] = ()

    def build(self, context: BuildContext) -> Attention:
        return Running(context)


def context(index: int = 0) -> BuildContext:
    none = default_registry().component("position", "none").model_validate({})
    parts = LayerParts(index, none, RunningSpec(), LayerNormSpec(eps=0.1), MLPSpec(expansion=2))  # type: ignore[arg-type]
    return BuildContext(d_model=E, context_length=T, n_layers=2, layer=parts)


def built(spec: BlockSpec) -> Block:
    block = spec.build(context())
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for _, parameter in sorted(block.named_parameters()):
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return block


def inputs() -> Tensor:
    return torch.randn(B, T, E, generator=torch.Generator().manual_seed(0))


FORWARD = Forward(torch.zeros(B, T, dtype=torch.long))


def pre_norm(block: Any, x: Tensor, a: Callable[[Tensor], Tensor], f: Callable[[Tensor], Tensor], s: float) -> Tensor:
    x = x + s * a(block.attention_norm(x))
    return x + s * f(block.feedforward_norm(x))


def no_shortcut(block: Any, x: Tensor, a: Callable[[Tensor], Tensor], f: Callable[[Tensor], Tensor], s: float) -> Tensor:
    return s * f(block.feedforward_norm(s * a(block.attention_norm(x))))


def post_norm(block: Any, x: Tensor, a: Callable[[Tensor], Tensor], f: Callable[[Tensor], Tensor], s: float) -> Tensor:
    x = block.attention_norm(x + s * a(x))
    return block.feedforward_norm(x + s * f(x))


def parallel_1(block: Any, x: Tensor, a: Callable[[Tensor], Tensor], f: Callable[[Tensor], Tensor], s: float) -> Tensor:
    h = block.attention_norm(x)
    return x + s * (a(h) + f(h))


def parallel_2(block: Any, x: Tensor, a: Callable[[Tensor], Tensor], f: Callable[[Tensor], Tensor], s: float) -> Tensor:
    return x + s * (a(block.attention_norm(x)) + f(block.feedforward_norm(x)))


def sandwich(block: Any, x: Tensor, a: Callable[[Tensor], Tensor], f: Callable[[Tensor], Tensor], s: float) -> Tensor:
    x = x + s * block.attention_output_norm(a(block.attention_norm(x)))
    return x + s * block.feedforward_output_norm(f(block.feedforward_norm(x)))


def output_norm(block: Any, x: Tensor, a: Callable[[Tensor], Tensor], f: Callable[[Tensor], Tensor], s: float) -> Tensor:
    x = x + s * block.attention_output_norm(a(x))
    return x + s * block.feedforward_output_norm(f(x))


CASES = [
    (PreNormSpec(), pre_norm, 2),
    (PreNormSpec(residual_scale=0.3), pre_norm, 2),
    (PreNormSpec(shortcut=False), no_shortcut, 2),
    (PreNormSpec(shortcut=False, residual_scale=0.3), no_shortcut, 2),
    (PostNormSpec(), post_norm, 2),
    (PostNormSpec(residual_scale=0.3), post_norm, 2),
    (ParallelSpec(), parallel_1, 1),
    (ParallelSpec(norms=2, residual_scale=0.3), parallel_2, 2),
    (SandwichSpec(), sandwich, 4),
    (SandwichSpec(residual_scale=0.3), sandwich, 4),
    (OutputNormSpec(), output_norm, 2),
    (OutputNormSpec(residual_scale=0.3), output_norm, 2),
]


@pytest.mark.parametrize("scale", [1.0, 0.3])
@pytest.mark.parametrize("branch", ["attention", "feedforward"])
def test_single_branch_has_one_norm_and_one_part(branch: Any, scale: float) -> None:
    block: Any = built(SingleBranchSpec(branch=branch, residual_scale=scale))
    assert {name for name, _ in block.named_children()} == {branch, f"{branch}_norm"}
    x, part = inputs(), getattr(block, branch)
    wanted = x + scale * part(getattr(block, f"{branch}_norm")(x), FORWARD)
    torch.testing.assert_close(block(x, FORWARD), wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_single_branch_without_a_shortcut_replaces_its_input(scale: float) -> None:
    block: Any = built(SingleBranchSpec(branch="feedforward", shortcut=False, residual_scale=scale))
    x = inputs()
    wanted = scale * block.feedforward(block.feedforward_norm(x), FORWARD)
    torch.testing.assert_close(block(x, FORWARD), wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("scale", [1.0, 0.3])
@pytest.mark.parametrize("index", [0, 3])
def test_depth_scaled_terms_of_the_stream_have_equal_shares(index: int, scale: float) -> None:
    spec = SandwichSpec(depth_scaled=True, residual_scale=scale)
    block: Any = spec.build(context(index))
    block.load_state_dict(built(spec).state_dict())
    earlier = torch.randn(2 * index + 1, B, T, E, generator=torch.Generator().manual_seed(2))  # with the embedding
    x = earlier.sum(0) / len(earlier) ** 0.5
    mixed = block.attention_output_norm(block.attention(block.attention_norm(x), FORWARD))
    middle = (earlier.sum(0) + scale * mixed) / (len(earlier) + 1) ** 0.5
    fed = block.feedforward_output_norm(block.feedforward(block.feedforward_norm(middle), FORWARD))
    wanted = (earlier.sum(0) + scale * (mixed + fed)) / (len(earlier) + 2) ** 0.5
    torch.testing.assert_close(block(x, FORWARD), wanted, rtol=1e-5, atol=1e-5)


def test_pre_norm_without_a_norm_of_attentions_input() -> None:
    block: Any = built(PreNormSpec(attention_input_norm=False))
    x = inputs()
    mixed = x + block.attention(x, FORWARD)
    wanted = mixed + block.feedforward(block.feedforward_norm(mixed), FORWARD)
    torch.testing.assert_close(block(x, FORWARD), wanted, rtol=1e-6, atol=1e-6)
    assert [name for name, _ in block.named_parameters() if "norm" in name] == [
        "feedforward_norm.weight",
        "feedforward_norm.bias",
    ]


def test_pre_norm_with_a_norm_of_its_own_for_the_feedforward() -> None:
    block: Any = built(PreNormSpec(feedforward_norm=RMSNormSpec(eps=0.2)))
    assert [type(each).__name__ for each in (block.attention_norm, block.feedforward_norm)] == ["LayerNorm", "RMSNorm"]
    x = inputs()
    mixed = x + block.attention(block.attention_norm(x), FORWARD)
    normed = mixed / (mixed.square().mean(-1, keepdim=True) + 0.2).sqrt() * block.feedforward_norm.weight
    torch.testing.assert_close(block(x, FORWARD), mixed + block.feedforward(normed, FORWARD), rtol=1e-5, atol=1e-5)


def test_pre_norm_with_norms_of_stream_and_branches() -> None:
    spec = PreNormSpec(output_norm=RMSNormSpec(eps=0.2), stream_norm=AffineNormSpec(bias="before"), residual_scale=0.5)
    block: Any = built(spec)
    x = y = inputs()
    for name, branch in (("attention", block.attention), ("feedforward", block.feedforward)):
        output, stream = (getattr(block, f"{name}_{place}_norm") for place in ("output", "stream"))
        out = branch(getattr(block, f"{name}_norm")(y), FORWARD)
        out = out / (out.square().mean(-1, keepdim=True) + 0.2).sqrt() * output.weight
        y = stream.weight * (y + stream.bias) + 0.5 * out
    torch.testing.assert_close(block(x, FORWARD), y, rtol=1e-5, atol=1e-5)
    assert len({id(each) for each in block.parameters()}) == len(list(block.named_parameters()))
    with pytest.raises(SpecError, match="nothing is added to the stream without a shortcut"):
        validate_data({"block": {"name": "pre-norm", "stream_norm": "affine", "shortcut": False}}, ModelSpec)


@pytest.mark.parametrize(
    ("spec", "by_hand", "norms"), CASES, ids=lambda value: str(value) if isinstance(value, BlockSpec) else ""
)
def test_block_equals_its_composition(spec: Any, by_hand: Any, norms: int) -> None:
    block = built(spec)
    x = inputs()
    wanted = by_hand(
        block, x, lambda y: block.attention(y, FORWARD), lambda y: block.feedforward(y, FORWARD), spec_scale(spec)
    )
    torch.testing.assert_close(block(x, FORWARD), wanted, rtol=1e-6, atol=1e-6)
    result = [name for name, module in block.named_children() if name.endswith("_norm")]
    assert len(result) == norms
    assert len({id(parameter) for name in result for parameter in getattr(block, name).parameters()}) == 2 * norms
    assert isinstance(block.attention, Running)
    twin = copy.deepcopy(block)
    assert torch.equal(twin(x, FORWARD), block(x, FORWARD))
    narrow = twin.bfloat16()(x.bfloat16(), FORWARD)
    assert (narrow.float() - wanted).norm() / wanted.norm() < 0.05


def spec_scale(spec: Any) -> float:
    return float(spec.residual_scale)


@pytest.mark.parametrize("spec", [case[0] for case in CASES], ids=str)
def test_dropout_is_applied_to_both_branches(spec: BlockSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Tensor] = []

    def recorded(x: Tensor, probability: float) -> Tensor:
        calls.append(torch.dropout(x, probability, True))
        return calls[-1]

    monkeypatch.setattr(dropout._Dropout, "apply", recorded)
    block = built(spec.replace(dropout=0.5))
    block(inputs(), FORWARD)
    assert len(calls) == 2
    assert all(0.2 < (call == 0).float().mean() < 0.8 for call in calls)
    evaluated = block.eval()(inputs(), FORWARD)
    assert torch.equal(evaluated, built(spec)(inputs(), FORWARD))
    assert len(calls) == 2


def test_only_post_norm_needs_no_final_norm() -> None:
    assert {spec.name for spec, _, _ in CASES if not spec.final_norm} == {"post-norm"}


def test_post_norm_output_is_normalized() -> None:
    block = PostNormSpec().build(context())
    y = block(inputs() * 100, FORWARD)
    torch.testing.assert_close(y.var(-1, unbiased=False), torch.ones(B, T), rtol=0, atol=0.15)


def first_gradient(shortcut: bool, n_blocks: int = 12) -> float:
    """Return the mean absolute gradient of the first block's first weight, with small initial weights."""
    torch.manual_seed(0)
    blocks = [PreNormSpec(shortcut=shortcut).build(context(index)) for index in range(n_blocks)]
    for block in blocks:
        for name, parameter in block.named_parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)
    x = inputs()
    for block in blocks:
        x = block(x, FORWARD)
    x.sum(0).square().sum().backward()
    gradient = blocks[0].get_parameter("attention.value.weight").grad
    assert gradient is not None
    return float(gradient.abs().mean())


def test_residual_connections_carry_gradients_to_the_first_block() -> None:
    with_shortcuts, without = first_gradient(True), first_gradient(False)
    assert with_shortcuts > 1e-3
    assert without < 1e-6 * with_shortcuts


@pytest.mark.parametrize("spec", [case[0] for case in CASES], ids=str)
def test_builds_without_memory(spec: BlockSpec) -> None:
    with torch.device("meta"):
        block = spec.build(context())
        assert all(parameter.is_meta for parameter in block.parameters())
        y = block(torch.empty(B, T, E), Forward(torch.zeros(B, T, dtype=torch.long)))
    assert y.shape == (B, T, E)
    assert not list(block.buffers())
