"""Experts beside a dense feed-forward, each between norms, against transformers' Gemma 4."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from gptkit.components.feedforward.experts import ExpertsSpec
from gptkit.components.feedforward.modules.experts import Experts
from gptkit.kinds.context import BuildContext
from gptkit.nn.forward import Forward

B, T, E, F, X = 2, 7, 16, 12, 8
NORM = {"name": "rms", "eps": 1e-6}
FORWARD = Forward(torch.zeros(B, T, dtype=torch.long))


def inputs() -> Tensor:
    return torch.randn(B, T, E, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def gemma(values: Tensor, layer: Any) -> Tensor:
    """Return the sum of both branches of a layer of Gemma 4, from its own modules."""
    rows = values.flatten(0, 1)
    _, weights, chosen = layer.router(rows)
    routed = layer.experts(layer.pre_feedforward_layernorm_2(rows), chosen, weights).view_as(values)
    dense = layer.post_feedforward_layernorm_1(layer.mlp(layer.pre_feedforward_layernorm(values)))
    return dense + layer.post_feedforward_layernorm_2(routed)


@torch.no_grad()
def gemma_pair() -> tuple[Any, Experts]:
    """Return a layer of Gemma 4 with random weights, and the mixture with the same ones."""
    transformers = pytest.importorskip("transformers")
    from transformers.models.gemma4.modeling_gemma4 import Gemma4TextDecoderLayer

    sizes = {"hidden_size": E, "intermediate_size": 2 * F, "num_hidden_layers": 2, "layer_types": ["full_attention"] * 2}
    experts = {"enable_moe_block": True, "num_experts": X, "top_k_experts": 3, "moe_intermediate_size": F}
    layer: Any = Gemma4TextDecoderLayer(transformers.Gemma4TextConfig(**sizes, **experts), 0)
    generator = torch.Generator().manual_seed(1)
    for tensor in layer.parameters():
        tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.5)
    expert = {"name": "gated", "d_hidden": F, "activation": "gelu-tanh"}
    spec = ExpertsSpec.model_validate(
        {
            "n_experts": X,
            "router": {"name": "softmax-top-k", "k": 3, "norm": NORM, "score_scale": E**-0.5, "expert_scale": True},
            "expert": expert,
            "shared": {**expert, "d_hidden": 2 * F},
            "branch_norm": NORM,
        }
    )
    mixture: Any = spec.build(BuildContext(d_model=E, context_length=8, n_layers=2))
    mixture.router.scores.weight.copy_(layer.router.proj.weight)
    mixture.router.norm.weight.copy_(layer.router.scale)
    mixture.router.expert_scale.copy_(layer.router.per_expert_scale)
    mixture.experts.gate_up.weight.copy_(layer.experts.gate_up_proj)
    mixture.experts.down.weight.copy_(layer.experts.down_proj)
    mixture.shared.gate_up.weight.copy_(torch.cat((layer.mlp.gate_proj.weight, layer.mlp.up_proj.weight)))
    mixture.shared.down.weight.copy_(layer.mlp.down_proj.weight)
    pairs = (
        (mixture.routed_norm, layer.pre_feedforward_layernorm_2),
        (mixture.routed_output_norm, layer.post_feedforward_layernorm_2),
        (mixture.shared_norm, layer.pre_feedforward_layernorm),
        (mixture.shared_output_norm, layer.post_feedforward_layernorm_1),
    )
    for own, other in pairs:
        own.weight.copy_(other.weight)
    return layer.eval(), mixture.eval()


def test_experts_between_norms_equal_gemma4() -> None:
    layer, mixture = gemma_pair()
    torch.testing.assert_close(mixture(inputs(), FORWARD), gemma(inputs(), layer), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "mutation",
    ["router.norm", "router.expert_scale", "router.score_scale", "routed_norm", "routed_output_norm", "shared_norm"],
)
def test_each_norm_and_factor_of_gemma4_matters(mutation: str) -> None:
    layer, mixture = gemma_pair()
    path, _, name = mutation.rpartition(".")
    setattr(mixture.get_submodule(path), name, 1.0 if name == "score_scale" else None)
    assert (mixture(inputs(), FORWARD) - gemma(inputs(), layer)).abs().max() > 1e-2
