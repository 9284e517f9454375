"""Block `gated-hyper-connections` against transformers' Qwen 4 Exp, and its streams."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import gptkit
from gptkit.core.errors import SpecError
from gptkit.nn.forward import Forward
from tests.support.learning import N_TOKENS, alternating, assert_learns

E, N, R, T = 12, 3, 5, 9
BLOCK = {"name": "gated-hyper-connections", "streams": N, "rank": R}
NORM = {"name": "rms", "eps": 1e-4, "offset": 1, "cast": "after"}
PARTS = {"d_model": E, "n_layers": 2, "attention": {"name": "multi-head", "n_heads": 2}, "norm": NORM, "position": "none"}


def randomized(model: gptkit.GPT) -> gptkit.GPT:
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return model.eval()


def inputs(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1)) * 2


def external(gates: Any) -> Any:
    """Return the module of transformers with the weights of one of gptkit."""
    modeling = pytest.importorskip("transformers.models.qwen4_exp.modeling_qwen4_exp")
    from transformers.models.qwen4_exp import Qwen4ExpTextConfig

    config = Qwen4ExpTextConfig(hidden_size=E, hc_count=N, hc_lowrank=R, rms_norm_eps=1e-4, num_hidden_layers=1)
    reference = modeling.Qwen4ExpTextGatedResidual(config, use_combine=gates.write is not None)
    weights = {
        "hc_norm.weight": gates.norm.weight.flatten(),
        "input_mix_weight_down.weight": gates.down.weight,
        "input_mix_weight_up.weight": gates.up.weight,
    }
    if gates.write is not None:
        weights["block_inject_weight.weight"] = gates.write.weight
    reference.load_state_dict(weights)
    return reference


@torch.no_grad()
def test_blocks_equal_those_of_transformers_around_other_branches() -> None:
    model = randomized(gptkit.GPT({**PARTS, "block": BLOCK}, 20))
    x, context = inputs(2, T, E), Forward(torch.zeros(2, T, dtype=torch.long))
    result = x
    for block in model.blocks:
        result = block(result, context)

    streams = x.repeat(1, 1, N)
    for block in model.blocks:
        layer: Any = block
        for gates, branch in (
            (layer.attention_gates, lambda h, layer=layer: layer.attention(h, context)),
            (layer.feedforward_gates, lambda h, layer=layer: layer.feedforward(h, context)),
        ):
            h, streams, weights = external(gates)(streams)
            streams = streams + (branch(h).unsqueeze(-2) * weights.unsqueeze(-1)).flatten(-2)
    last: Any = model.blocks[-1]
    torch.testing.assert_close(result, external(last.collapse)(streams), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_output_of_a_layer_before_others_is_the_mean_of_its_streams() -> None:
    model = randomized(gptkit.GPT({**PARTS, "block": BLOCK}, 20))
    first, last = model.blocks
    layer: Any = first
    assert layer.collapse is None
    assert last.collapse is not None
    x, context = inputs(1, T, E), Forward(torch.zeros(1, T, dtype=torch.long))
    kept: list[Tensor] = []
    layer.register_forward_hook(lambda *_: kept.append(context._block.carried[layer.key]))  # type: ignore[union-attr]
    torch.testing.assert_close(layer(x, context), kept[0].mean(dim=2))


@torch.no_grad()
def test_gates_of_one_half_and_one_stream_equal_pre_norm_with_halved_norms() -> None:
    """With zero weights, gates are 1/2, and the weight of a branch is 1."""
    model = randomized(gptkit.GPT({**PARTS, "norm": "rms", "block": {**BLOCK, "streams": 1}}, 20))
    plain = gptkit.GPT({**PARTS, "norm": "rms", "block": "pre-norm"}, 20).eval()
    names = {"attention_norm": "attention_gates.norm", "feedforward_norm": "feedforward_gates.norm"}
    names["final_norm"] = "blocks.1.collapse.norm"
    weights = dict(model.named_parameters())
    for name, weight in weights.items():
        if ("gates." in name or "collapse." in name) and "norm" not in name:
            weight.zero_()
    for name, weight in plain.named_parameters():
        own = name
        for old, new in names.items():
            own = own.replace(old, new)
        weight.copy_(weights[own].reshape(weight.shape) * (0.5 if "norm" in name else 1.0))
    ids = torch.randint(20, (2, T), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model(ids).logits, plain(ids).logits)


def test_model_has_no_final_norm() -> None:
    model = gptkit.GPT({**PARTS, "block": BLOCK}, 20)
    assert isinstance(model.final_norm, torch.nn.Identity)


def test_norms_that_contain_another_one_are_refused() -> None:
    with pytest.raises(SpecError, match="norm 'gated' contains another one and cannot be stacked over streams"):
        gptkit.GPT({**PARTS, "norm": "gated", "block": BLOCK}, 20)


def test_training_learns_the_token_before_the_last() -> None:
    parts = {"d_model": 16, "n_layers": 2, "context_length": 16, "attention": {"name": "multi-head", "n_heads": 2}}
    model = gptkit.GPT({**parts, "block": {**BLOCK, "dropout": 0.01}}, N_TOKENS, seed=0)
    assert_learns(model, alternating, steps=100)
