"""`query-temperature`: the formula, and Llama 4's attention without positions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import pytest
import torch

from gptkit.components.position.query_temperature import QueryTemperatureSpec
from gptkit.components.position.rotary import RotarySpec
from gptkit.kinds.context import BuildContext
from gptkit.kinds.position import HeadShape
from gptkit.model.gpt import GPT
from gptkit.nn.forward import Forward

CONTEXT = BuildContext(d_model=8, context_length=32, n_layers=1)


FORMULAS: dict[Literal["logarithm", "power", "smooth"], Callable[[int], float]] = {
    "logarithm": lambda t: 1 + 0.5 * math.log(1 + (t + 1) // 4),
    "power": lambda t: math.sqrt(1 + (t + 1) / 4),
    "smooth": lambda t: 1 + 0.5 * math.log(max(1.0, (t + 1) / 4)),
}


@pytest.mark.parametrize("growth", list(FORMULAS))
def test_query_temperature_equals_its_formula(growth: Literal["logarithm", "power", "smooth"]) -> None:
    position = QueryTemperatureSpec(growth=growth, strength=0.5, interval=4).build(CONTEXT, heads=HeadShape(2, 1, 4))
    q, k = torch.ones(2, 2, 9, 4), torch.ones(2, 1, 9, 4)
    wanted = torch.tensor([FORMULAS[growth](t) for t in range(9)])
    turned, kept = position.rotate(q, k, position.prepare(torch.arange(9)))
    assert torch.equal(kept, k)
    torch.testing.assert_close(turned, wanted[:, None].expand(9, 4).expand_as(q))
    rows = torch.stack((torch.arange(9), (torch.arange(9) - 3).clamp_min(0)))
    shifted, _ = position.rotate(q, k, position.prepare(rows))
    torch.testing.assert_close(shifted[1, :, 3:], turned[1, :, :6])
    torch.testing.assert_close(shifted[0], turned[0])
    assert position.rotate(q.bfloat16(), k, position.prepare(torch.arange(9)))[0].dtype == torch.bfloat16


def test_power_of_the_position_equals_beams_factor() -> None:
    modeling = pytest.importorskip("transformers.models.beam.modeling_beam")
    positions = torch.tensor([0, 1, 2047, 8191, 131071, 1048575])
    position = QueryTemperatureSpec(growth="power", interval=2048).build(CONTEXT, heads=HeadShape(1, 1, 1))
    wanted = modeling.compute_attention_scaling(positions[None])[0, 0]
    torch.testing.assert_close(position.prepare(positions), wanted, rtol=1e-6, atol=0)


@torch.no_grad()
def test_equals_llama_4() -> None:
    modeling = pytest.importorskip("transformers.models.llama4.modeling_llama4")
    from transformers import Llama4TextConfig

    config = Llama4TextConfig(
        hidden_size=16,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        floor_scale=4,
        attn_scale=0.3,
        attn_temperature_tuning=True,
        no_rope_layers=[0],
        num_hidden_layers=1,
    )
    config._attn_implementation = "eager"
    reference = modeling.Llama4TextAttention(config, 0).eval()
    model = GPT(
        {
            "d_model": 16,
            "n_layers": 1,
            "attention": {"name": "grouped-query", "n_heads": 2, "n_kv_heads": 1, "d_head": 8},
            "position": {"name": "query-temperature", "strength": 0.3, "interval": 4},
        },
        7,
    ).eval()
    actual = model.attentions()[0]
    for parameter in reference.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    actual.qkv.weight.copy_(torch.cat([getattr(reference, f"{name}_proj").weight for name in "qkv"]))
    actual.output.weight.copy_(reference.o_proj.weight)
    x = torch.randn(2, 13, 16, generator=torch.Generator().manual_seed(0))
    mask = torch.full((13, 13), float("-inf")).triu(1)[None, None]
    wanted, _ = reference(x, None, mask)
    torch.testing.assert_close(actual(x, Forward(torch.zeros(2, 13, dtype=torch.long))), wanted, rtol=1e-5, atol=1e-5)


def test_temperature_of_rotary_multiplies_rotated_queries() -> None:
    heads = HeadShape(2, 1, 4)
    plain = RotarySpec().build(CONTEXT, heads=heads)
    tempered = RotarySpec(temperature=0.5, temperature_interval=4).build(CONTEXT, heads=heads)
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 2, 9, 4, generator=generator), torch.randn(2, 1, 9, 4, generator=generator)
    for positions in (torch.arange(9), torch.stack((torch.arange(9), torch.arange(9) - 3))):
        q_plain, k_plain = plain.rotate(q, k, plain.prepare(positions))
        q_turned, k_turned = tempered.rotate(q, k, tempered.prepare(positions))
        wanted = (1 + 0.5 * torch.log1p(positions.clamp_min(0) // 4))[..., None]
        wanted = wanted if positions.dim() == 1 else wanted[:, None]
        torch.testing.assert_close(q_turned, q_plain * wanted)
        torch.testing.assert_close(k_turned, k_plain)


def test_latent_attention_scales_unrotated_features_too() -> None:
    attention = {"name": "latent", "n_heads": 2, "kv_rank": 6, "d_nope": 4, "d_rotary": 4, "d_value": 4}
    spec = {"d_model": 8, "n_layers": 1, "context_length": 16, "attention": attention}
    tempered = GPT({**spec, "position": {"name": "rotary", "temperature": 0.5, "temperature_interval": 4}}, 7).eval()
    plain = GPT({**spec, "position": "rotary"}, 7).eval()
    plain.load_state_dict(tempered.state_dict())
    ids = torch.arange(6)[None] % 7
    with torch.no_grad():
        assert torch.allclose(plain(ids).logits[:, :4], tempered(ids).logits[:, :4], atol=1e-6)
        attention_module = plain.blocks[0].attention
        attention_module.q_up.weight.mul_(1 + 0.5 * math.log(2))  # the factor of tokens 4 to 7
        torch.testing.assert_close(plain(ids).logits[:, 4:], tempered(ids).logits[:, 4:])
