"""`differential`: against transformers' DiffLlama, its formula head by head, and its state when decoding."""

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
from tests.support.learning import assert_learns

E, T, D, V = 24, 9, 3, 31


def build(index: int = 0, n_layers: int = 3, position: str = "none", **fields: Any) -> Any:
    """Return the attention of a layer, with weights that are not what training starts with, in fp64."""
    data = {"d_model": E, "n_layers": n_layers, "context_length": 64, "position": position}
    spec = validate_data({**data, "attention": {"name": "differential", "d_head": D, **fields}}, ModelSpec)
    layer = spec.layer_specs()[index]
    parts = LayerParts(index, layer.position, layer.attention, layer.norm, layer.feedforward)
    module: Any = layer.attention.build(BuildContext(E, 64, n_layers, position=spec.position, layer=parts))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return module.double().eval()


def inputs(rows: int = 1, length: int = T) -> Tensor:
    return torch.randn(rows, length, E, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def forward(rows: int = 1, length: int = T) -> Forward:
    return Forward(torch.zeros(rows, length, dtype=torch.long))


@pytest.mark.parametrize(("n_heads", "n_kv_heads"), [(2, 2), (4, 2), (3, 1)])
@torch.no_grad()
def test_module_equals_its_formula(n_heads: int, n_kv_heads: int) -> None:
    module = build(2, n_heads=n_heads, n_kv_heads=n_kv_heads, qkv_bias=True, norm={"name": "rms", "eps": 1e-3})
    x = inputs()[0]
    n_queries, n_keys = 2 * n_heads * D, 2 * n_kv_heads * D
    q, k, v = (x @ module.qkv.weight.T + module.qkv.bias).split([n_queries, n_keys, n_keys], dim=1)
    start = 0.8 - 0.6 * math.exp(-0.3 * 2)
    first, second = (
        math.exp(float(a @ b)) for a, b in ((module.lambda_q1, module.lambda_k1), (module.lambda_q2, module.lambda_k2))
    )
    factor = first - second + start
    heads = []
    for h in range(n_heads):
        kv, rows = h // (n_heads // n_kv_heads), []
        for t in range(T):
            maps = []
            for half in range(2):
                query, key = (slice((2 * at + half) * D, (2 * at + half + 1) * D) for at in (h, kv))
                scores = [q[t, query] @ k[s, key] / math.sqrt(D) for s in range(t + 1)]
                maps.append(torch.softmax(torch.stack(scores), dim=0))
            weights = maps[0] - factor * maps[1]
            out = (weights[:, None] * v[: t + 1, 2 * D * kv : 2 * D * (kv + 1)]).sum(0)
            rows.append(out / (out.square().mean() + 1e-3).sqrt() * module.norm.weight * (1 - start))
        heads.append(torch.stack(rows))
    expected = torch.cat(heads, dim=1) @ module.output.weight.T
    torch.testing.assert_close(module(inputs(), forward())[0], expected)


@torch.no_grad()
def test_equals_the_layer_of_transformers() -> None:
    modeling = pytest.importorskip("transformers.models.diffllama.modeling_diffllama")
    from transformers import DiffLlamaConfig

    config = DiffLlamaConfig(
        hidden_size=E, num_attention_heads=8, num_key_value_heads=4, head_dim=6, attn_implementation="eager"
    )
    reference = modeling.DiffLlamaAttention(config, layer_idx=1).double()
    generator = torch.Generator().manual_seed(5)
    for parameter in reference.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.4)
    module = build(1, n_heads=4, n_kv_heads=2, d_head=6, norm={"name": "rms", "eps": 1e-5, "scale": False})

    def paired(weight: Tensor) -> Tensor:
        return weight.reshape(2, -1, 6, E).transpose(0, 1).reshape(-1, E)

    projections = (reference.q_proj, reference.k_proj, reference.v_proj)
    lambdas = {name: parameter for name, parameter in reference.named_parameters() if "lambda" in name}
    packed = torch.cat([paired(projection.weight) for projection in projections])
    module.load_state_dict({"qkv.weight": packed, "output.weight": reference.o_proj.weight, **lambdas})
    x = inputs(2)
    mask = torch.zeros(T, T, dtype=torch.float64).masked_fill(torch.ones(T, T, dtype=torch.bool).triu(1), -math.inf)
    ones, zeros = torch.ones(2, T, 6, dtype=torch.float64), torch.zeros(2, T, 6, dtype=torch.float64)
    expected, _ = reference(x, (ones, zeros), mask[None, None].expand(2, -1, -1, -1))
    torch.testing.assert_close(module(x, forward(2)), expected, atol=1e-6, rtol=1e-6)


def test_initial_lambda_depends_on_depth() -> None:
    model = GPT({"d_model": 16, "n_layers": 3, "attention": {"name": "differential", "n_heads": 2}}, V)
    attentions: Any = model.attentions()
    assert [round(attention.lambda_init, 3) for attention in attentions] == [0.2, 0.356, 0.471]
    assert 0.02 < attentions[0].lambda_q1.std() < 0.3


@pytest.mark.parametrize("position", ["none", "rotary", "alibi"])
@torch.no_grad()
def test_text_in_pieces_equals_one_call(position: str) -> None:
    attention = {"name": "differential", "n_heads": 4, "n_kv_heads": 2, "d_head": 4, "window": 7}
    data = {"d_model": E, "n_layers": 2, "context_length": 64, "position": position, "attention": attention}
    model = GPT(data, V).double().eval()
    ids = torch.randint(V, (2, 30), generator=torch.Generator().manual_seed(0))
    full = model(ids).logits
    cache, at = model.new_cache(2), 0
    for piece in (5, 1, 1, 20, 1, 2):
        torch.testing.assert_close(model(ids[:, at : at + piece], cache=cache).logits, full[:, at : at + piece])
        at += piece
    padding = torch.tensor([0, 3])
    padded = torch.cat((ids[1:].new_zeros(1, 3), ids[1:, :27]), dim=1)
    both = model(torch.cat((ids[:1], padded)), left_padding_B=padding).logits
    torch.testing.assert_close(both[1, 3:], full[1, :27])
    weights = model(ids[:, :9], keep_weights=True).weights
    assert weights is not None
    assert [tuple(each.shape) for each in weights.values()] == [(2, 8, 9, 9)] * 2


def test_training_learns_to_repeat_a_token() -> None:
    """The target is the token that was three tokens earlier."""
    data = {"d_model": 32, "n_layers": 1, "context_length": 16, "attention": {"name": "differential", "n_heads": 2}}

    def draw(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        ids = torch.randint(9, (16, 13), generator=generator)
        return ids, torch.cat((torch.full((16, 3), -100), ids[:, :-3]), dim=1)

    assert_learns(GPT(data, 9, seed=0), draw, steps=120)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"attention": {"name": "differential", "n_heads": 5}}, "cannot be split into 5 heads of 2 parts each"),
        ({"attention": {"name": "differential", "n_heads": 4, "n_kv_heads": 3}}, "is not a multiple of n_kv_heads 3"),
        ({"attention": {"name": "differential", "n_heads": 2}, "position": "shaw"}, "does not accept"),
        (
            {"attention": {"name": "differential", "n_heads": 2, "d_head": 3}, "position": "rotary"},
            "'rotary' cannot use these",
        ),
    ],
)
def test_errors_are_reported_when_the_spec_is_read(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        validate_data({"d_model": E, **fields}, ModelSpec)
