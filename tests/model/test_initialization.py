"""Declared initialization: roles, factors of outer modules, slices of packed projections, and what initializers receive."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gptkit.core.errors import GptkitError
from gptkit.core.registry import default_registry
from gptkit.kinds.context import BuildContext, ParameterInfo
from gptkit.kinds.initializer import InitializerSpec
from gptkit.model.gpt import GPT
from gptkit.nn.forward import Forward
from gptkit.nn.initial import projections, scaled_projections
from tests.support.pairs import VARIANTS, V, ids

PARTS: dict[str, Any] = {
    "d_model": 32,
    "n_layers": 3,
    "context_length": 24,
    "attention": {"name": "grouped-query", "n_heads": 4, "n_kv_heads": 2},
    "feedforward": {"name": "gated", "d_hidden": 40},
    "initializer": {"name": "xavier", "scale_outputs": False},
}


RECURRENT = ("gated-delta", "hybrid", "kimi-delta", "lightning", "mamba1", "mamba2", "mlstm", "rg-lru", "rwkv4")


class Recording(InitializerSpec):
    """Initializer that records its arguments."""

    name: Literal["recording"] = "recording"
    seen: ClassVar[dict[str, ParameterInfo]] = {}

    def fill(self, role: Any, shape: torch.Size, generator: torch.Generator, context: BuildContext) -> Tensor:
        assert context.parameter is not None
        self.seen[context.parameter.name] = context.parameter
        return torch.zeros(shape)


class Misshapen(Recording):
    """Initializer whose values have one column too many."""

    def fill(self, role: Any, shape: torch.Size, generator: torch.Generator, context: BuildContext) -> Tensor:
        return torch.zeros(*shape[:-1], shape[-1] + 1)


def test_values_of_another_shape_name_the_parameter() -> None:
    message = r"the initialization of the parameter 'embedding\.table\.weight' returns shape \(\d+, 33\), not \(\d+, 32\)"
    with pytest.raises(GptkitError, match=message):
        GPT({**PARTS, "initializer": Misshapen()}, V)


def test_initializer_receives_name_layer_and_packed_projections() -> None:
    Recording.seen.clear()
    GPT({**PARTS, "initializer": Recording()}, V)
    seen = Recording.seen
    assert seen["embedding.table.weight"].layer is None
    qkv = seen["blocks.2.attention.qkv.weight"]
    assert qkv.layer == 2
    assert qkv.projections == {"query": (slice(0, 32),), "key": (slice(32, 48),), "value": (slice(48, 64),)}


@pytest.mark.parametrize("n_layers", [3, 6])
def test_deep_norm_initializes_beta_times_what_the_initializer_draws(n_layers: int) -> None:
    plain = GPT({**PARTS, "n_layers": n_layers, "block": "post-norm"}, V)
    deep = GPT({**PARTS, "n_layers": n_layers, "block": "deep-norm"}, V)
    beta = (8 * n_layers) ** -0.25
    for (name, before), (same_name, after) in zip(plain.named_parameters(), deep.named_parameters(), strict=True):
        assert name == same_name
        expected = before.detach().clone()
        if name.endswith("qkv.weight"):
            expected[48:] *= beta
        elif name.endswith(("attention.output.weight", "gate_up.weight", "down.weight")):
            expected *= beta
        torch.testing.assert_close(after.detach(), expected, atol=0, rtol=1e-7)


@torch.no_grad()
def test_deep_norm_computes_the_papers_formula() -> None:
    model = GPT({**PARTS, "block": "deep-norm"}, V).double().eval()
    block: Any = model.blocks[1]
    x_BTE = torch.randn(2, 9, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    forward = Forward(ids(2, 9))
    alpha = (2 * 3) ** 0.25
    first = F.rms_norm(alpha * x_BTE + block.attention(x_BTE, forward), (32,), eps=1e-5)
    second = F.rms_norm(alpha * first + block.feedforward(first, forward), (32,), eps=1e-5)
    torch.testing.assert_close(block(x_BTE, Forward(ids(2, 9))), second)
    assert model.spec.final_norm is None


@torch.no_grad()
def test_deep_norm_has_factors_of_its_own_for_the_feedforward() -> None:
    factors = {"alpha": 1.5, "residual_scale": 0.5, "feedforward_alpha": 0.75, "feedforward_residual_scale": 2.0}
    model = GPT({**PARTS, "block": {"name": "deep-norm", **factors}}, V).double().eval()
    block: Any = model.blocks[1]
    x_BTE = torch.randn(2, 9, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    forward = Forward(ids(2, 9))
    first = F.rms_norm(1.5 * x_BTE + 0.5 * block.attention(x_BTE, forward), (32,), eps=1e-5)
    second = F.rms_norm(0.75 * first + 2.0 * block.feedforward(first, forward), (32,), eps=1e-5)
    torch.testing.assert_close(block(x_BTE, Forward(ids(2, 9))), second)


@pytest.mark.parametrize("name", default_registry().names("attention"))
def test_declared_rows_of_projections_are_those_that_the_attention_uses(name: str) -> None:
    """Multiplying the declared value rows by 3 multiplies the output of an attention without biases by 3.

    Recurrences with an activation or a norm behind the projection have tests of their own.
    """
    for fields in VARIANTS.get(name, [{}]):
        attention = {"name": name, **fields}
        if attention.get("qkv_bias") or attention.get("bias") or name in RECURRENT:
            continue
        model = GPT({**PARTS, "attention": attention, "position": "none"}, V).double().eval()
        module: Any = model.blocks[0].attention
        x_BTE = torch.randn(2, 9, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        before = module(x_BTE, Forward(ids(2, 9)))
        clip = attention.get("clip_qkv")
        named = scaled_projections(module, 3.0, "value")
        if name in ("simple", "compressed"):  # no projection of values, or one of keys that are values, with a norm
            assert not named
            continue
        assert named
        if clip:
            continue
        with torch.no_grad():
            for parameter, scaled in named.items():
                scaled.apply_(module.get_parameter(parameter))  # type: ignore[union-attr]
        torch.testing.assert_close(module(x_BTE, Forward(ids(2, 9))), 3 * before, msg=str(attention))


def test_gated_delta_declares_its_rows() -> None:
    attention = {"name": "gated-delta", "n_heads": 2, "n_value_heads": 4, "d_key": 6, "d_value": 10}
    model = GPT({**PARTS, "position": "none", "attention": attention}, V, device="meta")
    rows = projections(model.blocks[0])["attention.qkvz.weight"]
    assert rows["value"] == (slice(24, 64),)
    assert rows["gate"] == (slice(64, 104),)
