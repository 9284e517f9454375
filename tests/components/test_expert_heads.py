"""`expert-heads`: against transformers' JetMoE, its formula token by token, and its state when decoding."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from gptkit.core.errors import SpecError
from gptkit.files import validate_data
from gptkit.kinds.context import BuildContext, LayerParts
from gptkit.model.gpt import GPT
from gptkit.model.spec import ModelSpec
from gptkit.nn.forward import Forward

E, T, D, V = 24, 9, 4, 31


def build(**fields: Any) -> Any:
    """Return the attention, with weights that are not what training starts with, in fp64."""
    data = {"d_model": E, "n_layers": 1, "context_length": 64, "position": "none"}
    spec = validate_data({**data, "attention": {"name": "expert-heads", "d_head": D, **fields}}, ModelSpec)
    layer = spec.layer_specs()[0]
    parts = LayerParts(0, layer.position, layer.attention, layer.norm, layer.feedforward)
    module: Any = layer.attention.build(BuildContext(E, 64, 1, position=spec.position, layer=parts))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return module.double().eval()


def inputs(rows: int = 1) -> Tensor:
    return torch.randn(rows, T, E, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def forward(rows: int = 1) -> Forward:
    return Forward(torch.zeros(rows, T, dtype=torch.long))


@pytest.mark.parametrize(("k", "n_kv_heads", "bias"), [(1, 2, False), (2, 3, True), (3, 1, True)])
@torch.no_grad()
def test_module_equals_its_formula(k: int, n_kv_heads: int, bias: bool) -> None:
    router = {"name": "top-k-softmax", "k": k}
    module = build(n_experts=4, router=router, n_kv_heads=n_kv_heads, output_bias=bias)
    x = inputs()[0]
    keys, values = ((x @ part.T).view(T, n_kv_heads, D) for part in module.kv.weight.chunk(2))
    expected = []
    for t in range(T):
        scores, chosen = (module.router.scores.weight @ x[t]).topk(k)
        y = torch.zeros(E, dtype=torch.float64)
        for weight, expert in zip(scores.softmax(0), chosen, strict=True):
            queries = (module.query.weight[expert] @ x[t]).view(n_kv_heads, D)
            heads = []
            for j in range(n_kv_heads):
                weights = (keys[: t + 1, j] @ queries[j] / math.sqrt(D)).softmax(0)
                heads.append(weights @ values[: t + 1, j])
            y += weight * (module.output.weight[expert] @ torch.cat(heads))
        expected.append(y + module.output_bias if bias else y)
    torch.testing.assert_close(module(inputs(), forward())[0], torch.stack(expected))


@torch.no_grad()
def test_equals_the_layer_of_transformers() -> None:
    modeling = pytest.importorskip("transformers.models.jetmoe.modeling_jetmoe")
    from transformers import JetMoeConfig

    config = JetMoeConfig(hidden_size=E, num_key_value_heads=3, kv_channels=D, num_local_experts=5, num_experts_per_tok=2)
    config._attn_implementation = "eager"
    reference = modeling.JetMoeAttention(config, layer_idx=0).float().eval()
    generator = torch.Generator().manual_seed(5)
    for parameter in reference.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
    module = build(n_experts=5, n_kv_heads=3, output_bias=True).float()
    module.load_state_dict(
        {
            "router.scores.weight": reference.experts.router.layer.weight,
            "query.weight": reference.experts.input_linear.weight,
            "output.weight": reference.experts.output_linear.weight,
            "output_bias": reference.experts.bias,
            "kv.weight": reference.kv_proj.weight,
        }
    )
    x = inputs(2).float()
    mask = torch.zeros(T, T).masked_fill(torch.ones(T, T, dtype=torch.bool).triu(1), -math.inf)
    rotation = torch.ones(2, T, D), torch.zeros(2, T, D)
    expected = reference(x, mask[None, None].expand(2, -1, -1, -1), rotation)[0]
    torch.testing.assert_close(module(x, forward(2)), expected, atol=2e-5, rtol=1e-5)


@torch.no_grad()
def test_text_in_pieces_equals_one_call() -> None:
    attention = {"name": "expert-heads", "n_experts": 4, "n_kv_heads": 2, "d_head": 4, "window": 7}
    model = GPT({"d_model": E, "n_layers": 2, "context_length": 64, "attention": attention}, V).double().eval()
    ids = torch.randint(V, (2, 30), generator=torch.Generator().manual_seed(0))
    full = model(ids).logits
    cache, at = model.new_cache(2), 0
    for piece in (5, 1, 1, 20, 1, 2):
        torch.testing.assert_close(model(ids[:, at : at + piece], cache=cache).logits, full[:, at : at + piece])
        at += piece
    padded = torch.cat((ids[1:].new_zeros(1, 3), ids[1:, :27]), dim=1)
    both = model(torch.cat((ids[:1], padded)), left_padding_B=torch.tensor([0, 3])).logits
    torch.testing.assert_close(both[1, 3:], full[1, :27])
    weights = model(ids[:, :9], keep_weights=True).weights
    assert weights is not None
    assert [tuple(each.shape) for each in weights.values()] == [(2, 4, 9, 9)] * 2


def test_training_learns_to_repeat_a_token() -> None:
    """The target is the token that was three tokens earlier; every expert and the router receive gradients."""
    attention = {"name": "expert-heads", "n_experts": 4, "n_kv_heads": 2, "router": {"balance_loss": 0.01}}
    model = GPT({"d_model": 32, "n_layers": 1, "context_length": 16, "attention": attention}, 9, seed=0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    generator = torch.Generator().manual_seed(0)
    losses = []
    for _ in range(150):
        ids = torch.randint(9, (16, 13), generator=generator)
        targets = torch.cat((torch.full((16, 3), -100), ids[:, :-3]), dim=1)
        result = model(ids, targets)
        optimizer.zero_grad()
        result.loss.backward()
        optimizer.step()
        losses.append(result.loss.item())
    for name, parameter in model.attentions()[0].named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.flatten(1).any(dim=1).all() if parameter.dim() == 3 else parameter.grad.any(), name
    assert losses[0] > 2
    assert sum(losses[-5:]) / 5 < 0.6


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"n_experts": 2, "router": {"k": 3}}, "k is 3, but the layer has 2 experts"),
        ({"n_kv_heads": 2, "d_head": 3}, "'rotary' cannot use these"),
    ],
)
def test_errors_are_reported_when_the_spec_is_read(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        validate_data({"d_model": E, "position": "rotary", "attention": {"name": "expert-heads", **fields}}, ModelSpec)
