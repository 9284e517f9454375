"""`short-conv`: against transformers' LFM2, its formula, and a training that learns to repeat the previous token."""

from __future__ import annotations

import pytest
import torch

from gptkit.model.gpt import GPT
from gptkit.nn.forward import Forward

SPEC = {
    "d_model": 16,
    "n_layers": 1,
    "context_length": 32,
    "position": "none",
    "attention": {"name": "short-conv", "width": 3, "bias": True},
}


def randomized(model: torch.nn.Module) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return model.eval()


@torch.no_grad()
def test_equals_its_formula() -> None:
    layer = randomized(GPT(SPEC, 11)).blocks[0].attention
    h = torch.randn(2, 7, 16, generator=torch.Generator().manual_seed(1))
    b, c, x = layer.input(h).chunk(3, dim=-1)
    u, weight = b * x, layer.conv.weight[:, 0]
    mixed = layer.conv.bias + sum(weight[:, 2 - i] * torch.nn.functional.pad(u, (0, 0, i, 0))[:, :7] for i in range(3))
    expected = layer.output(c * mixed)
    torch.testing.assert_close(layer(h, Forward(torch.zeros(2, 7, dtype=torch.long))), expected)


@torch.no_grad()
def test_equals_transformers() -> None:
    modeling = pytest.importorskip("transformers.models.lfm2.modeling_lfm2")
    from transformers import Lfm2Config

    config = Lfm2Config(hidden_size=16, num_hidden_layers=1, conv_bias=True, conv_L_cache=3, layer_types=["conv"])
    reference = randomized(modeling.Lfm2ShortConv(config, 0))
    layer = GPT(SPEC, 11).eval().blocks[0].attention
    names = {"input": "in_proj", "conv": "conv", "output": "out_proj"}
    for own, external in names.items():
        layer.get_submodule(own).load_state_dict(reference.get_submodule(external).state_dict())
    h = torch.randn(2, 9, 16, generator=torch.Generator().manual_seed(2))
    expected = reference(h)
    torch.testing.assert_close(layer(h, Forward(torch.zeros(2, 9, dtype=torch.long))), expected, rtol=1e-5, atol=1e-5)


def test_learns_to_repeat_the_token_before_the_last() -> None:
    torch.manual_seed(0)
    model = GPT({**SPEC, "d_model": 32}, 6).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(150):
        ids = torch.randint(6, (16, 24))
        loss = model(ids[:, 1:], ids[:, :-1]).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.5  # at chance it is ln 6 = 1.79; the first token of a row cannot be known
