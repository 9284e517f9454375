"""A precision applied to models: which matrices, what stays, and equality with the dequantized model."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from gptkit.components.precision.bf16 import BF16Spec
from gptkit.components.precision.fp32 import FP32Spec
from gptkit.components.precision.int4 import Int4Spec
from gptkit.components.precision.int8 import Int8Spec
from gptkit.core.errors import GptkitError, StateError
from gptkit.core.registry import default_registry
from gptkit.kinds.precision import PrecisionSpec
from gptkit.model.gpt import GPT
from gptkit.model.packing import activation_dtype, apply_precision, slots
from gptkit.nn.packed import PackedMatrix, for_compiler
from gptkit.nn.packed_modules import PackedLinear, PackedStack
from gptkit.testing.subject import stirred_matrices

LAYOUT = {"d_model": 48, "n_layers": 2, "context_length": 64}
LATENT = {"name": "latent", "n_heads": 3, "kv_rank": 10, "q_rank": 7, "d_nope": 6, "d_rotary": 8, "d_value": 5}
EXPERTS = {"name": "experts", "n_experts": 4, "expert": {"name": "gated", "d_hidden": 40, "bias": True}}
V = 99


def made(**changes: Any) -> GPT:
    model: GPT = stirred_matrices(GPT({**LAYOUT, **changes}, V)).eval()
    return model


def ids(rows: int = 2, length: int = 20) -> torch.Tensor:
    return torch.randint(V, (rows, length), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def rounded(model: GPT, precision: PrecisionSpec) -> GPT:
    """A copy in fp32 with the numbers that the precision represents."""
    model = copy.deepcopy(model)
    for slot in slots(model):
        spec, weight = precision.for_matrix(slot.name), slot.weight
        stored = spec.quantize(weight.flatten(0, -2))
        slot.module.get_parameter("weight").copy_(spec.dequantize(stored, weight.shape[-1]).view(weight.shape))
    return model


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"head": {"name": "linear", "tied": True}},
        {"head": {"name": "linear", "bias": True, "softcap": 5.0}},
        {"embedding": {"name": "token", "d_embedding": 16}, "head": {"name": "linear", "tied": True}},
        {"attention": LATENT},
        {"feedforward": EXPERTS},
        {"block": {"name": "shortcut-experts", "experts": {**EXPERTS, "identity_experts": 3}}},
        {"attention": {"name": "gated-delta"}, "position": "none"},
        {"head": {"name": "multi-token", "head": {"name": "linear", "tied": True}}},
    ],
    ids=["plain", "tied", "head-bias", "narrow", "latent", "experts", "identity-experts", "gated-delta", "multi-token"],
)
@pytest.mark.parametrize("precision", [FP32Spec(), Int8Spec(activations="fp32"), Int4Spec(activations="fp32")], ids=str)
@torch.no_grad()
def test_logits_are_those_of_the_dequantized_model(precision: PrecisionSpec, changes: dict[str, Any]) -> None:
    model = made(**changes)
    reference = rounded(model, precision)
    apply_precision(model, precision)
    wanted = reference(ids()).logits
    torch.testing.assert_close(model(ids()).logits, wanted, atol=3e-5, rtol=3e-5)
    torch.testing.assert_close(model(ids(), ids()).loss, reference(ids(), ids()).loss)
    cache = model.new_cache(2)
    pieces = [model(piece, cache=cache).logits for piece in torch.split(ids(), [18, 1, 1], dim=1)]
    torch.testing.assert_close(torch.cat(pieces, 1), wanted, atol=3e-5, rtol=3e-5)


@pytest.mark.parametrize("precision", [BF16Spec(), Int8Spec(activations="fp32")], ids=str)
@torch.no_grad()
def test_greedy_tokens_are_those_of_the_dequantized_model(precision: PrecisionSpec) -> None:
    model = made(head={"name": "linear", "tied": True})
    reference = rounded(model, precision).to(activation_dtype(precision, model.device))
    apply_precision(model, precision)
    tokens = other = ids(1, 5)
    for _ in range(12):
        tokens = torch.cat((tokens, model(tokens).logits[:, -1:].argmax(-1)), 1)
        other = torch.cat((other, reference(other).logits[:, -1:].argmax(-1)), 1)
    assert torch.equal(tokens, other)


def test_what_is_packed_and_what_stays() -> None:
    model = made(attention=LATENT, feedforward=EXPERTS, head={"name": "linear", "tied": True})
    packed = apply_precision(model, Int4Spec(), measure=True)
    assert [each.precision for each in packed if each.name == "embedding.table.weight"] == ["int8"]
    assert isinstance(model.get_submodule("blocks.0.attention.output"), PackedLinear)
    assert all(0 < (each.error or 0) < 0.1 for each in packed)
    stack = next(module for module in model.modules() if isinstance(module, PackedStack))
    assert len(stack.experts) == 4
    # The scores of the router, and what latent attention absorbs, are read as matrices.
    left = {name.rpartition(".")[0] for name, p in model.named_parameters() if p.ndim >= 2 and not name.endswith("bias")}
    assert {name.rpartition(".")[2] for name in left} == {"scores", "kv_up"}
    assert model.dtype in (torch.bfloat16, torch.float32)
    assert all(parameter.dtype == model.dtype and not parameter.requires_grad for parameter in model.parameters())
    table = model.embedding.packed_table[0]
    assert sum(module is table for module in model.modules()) == 1


@torch.no_grad()
def test_adapters_are_merged() -> None:
    model = made(linear={"name": "low-rank", "rank": 2})
    wanted = model(ids()).logits
    apply_precision(model, FP32Spec())
    torch.testing.assert_close(model(ids()).logits, wanted, atol=3e-5, rtol=3e-5)
    assert not [name for name, _ in model.named_parameters() if "lora" in name]


def test_originals_are_freed() -> None:
    model = made()
    weights = [slot.weight for slot in slots(model)]
    held = {weight.data_ptr() for weight in weights}
    apply_precision(model, Int8Spec())
    assert not held & {tensor.data_ptr() for tensor in model.parameters()}
    sizes = sum(module.n_bytes for module in model.modules() if isinstance(module, PackedMatrix))
    assert sizes < 0.5 * sum(weight.numel() * 4 for weight in weights)


def test_misuse_is_refused() -> None:
    model = made()
    apply_precision(model, Int8Spec())
    with pytest.raises(GptkitError, match="already in precision 'int8'"):
        apply_precision(model, BF16Spec())
    with pytest.raises(StateError, match="cannot be moved"):
        model.double()
    loss = model(ids(), ids()).loss
    assert loss is not None
    assert not loss.requires_grad

    class OnlyOnGPUs(Int8Spec):
        def limitation(self, device: str) -> str | None:
            return None if device == "cuda" else "its kernels need CUDA"

    with pytest.raises(GptkitError, match="cannot be used on the device cpu: its kernels need CUDA"):
        apply_precision(made(), OnlyOnGPUs())


@torch.no_grad()
def test_projections_that_transform_their_input_still_do() -> None:
    ternary = pytest.importorskip("gptkit_research.ternary")
    if "ternary" not in default_registry().names("linear"):
        pytest.skip("the plugin gptkit-research is not installed")
    model = made(linear={"name": "ternary", "bits": 4})
    assert any(isinstance(module, ternary.TernaryLinear) for module in model.modules())
    wanted = model(ids()).logits
    apply_precision(model, FP32Spec())
    torch.testing.assert_close(model(ids()).logits, wanted, atol=3e-5, rtol=3e-5)


@torch.no_grad()
def test_copies_share_the_matrices() -> None:
    model = made()
    apply_precision(model, BF16Spec())
    twin = copy.deepcopy(model)
    torch.testing.assert_close(twin(ids()).logits, model(ids()).logits)


@pytest.mark.slow
@pytest.mark.parametrize("precision", [BF16Spec(), Int8Spec(), Int4Spec()], ids=str)
@torch.no_grad()
def test_decode_step_compiles_to_one_graph(precision: PrecisionSpec) -> None:
    model = made(head={"name": "linear", "tied": True})
    apply_precision(model, precision)
    wanted = model(ids(1, 1)).logits
    for_compiler(model)
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, dynamic=False)
    assert isinstance(compiled, nn.Module)
    torch.testing.assert_close(compiled(ids(1, 1)).logits, wanted, atol=0.05, rtol=0.05)
