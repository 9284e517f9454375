"""Block `manifold-hyper-connections` against transformers' DeepSeek-V4, and its streams."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import gptkit
from gptkit.components.block.manifold_hyper_connections import ManifoldHyperConnectionsSpec
from gptkit.components.block.modules.manifold_hyper_connections import (
    StreamCollapse,
    StreamMixing,
    sinkhorn,
    write_streams,
)
from gptkit.nn.forward import Forward
from tests.support.learning import N_TOKENS, alternating, assert_learns

E, T = 12, 9
BLOCK = "manifold-hyper-connections"
ATTENTION = {"name": "multi-head", "n_heads": 2}


def forward(rows: int = 1) -> Forward:
    return Forward(torch.zeros(rows, T, dtype=torch.long))


def inputs(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def external(n: int, iterations: int) -> tuple[Any, Any]:
    """Return the modules of transformers, and their configuration."""
    modeling = pytest.importorskip("transformers.models.deepseek_v4.modeling_deepseek_v4")
    from transformers import DeepseekV4Config

    config = DeepseekV4Config(
        hidden_size=E, hc_mult=n, hc_sinkhorn_iters=iterations, hc_eps=1e-5, rms_norm_eps=1e-4, num_hidden_layers=1
    )
    return modeling, config


@torch.no_grad()
@pytest.mark.parametrize(("n", "iterations"), [(4, 20), (3, 1), (2, 5)])
def test_mixing_equals_transformers(n: int, iterations: int) -> None:
    modeling, config = external(n, iterations)
    mixing = StreamMixing(ManifoldHyperConnectionsSpec(streams=n, iterations=iterations, eps=1e-5, norm_eps=1e-4), E)
    reference = modeling.DeepseekV4HyperConnection(config)
    pairs = [(mixing.weight, reference.fn), (mixing.bias, reference.base), (mixing.scale, reference.scale)]
    for seed, (own, other) in enumerate(pairs):
        own.copy_(inputs(*own.shape, seed=seed) * 0.7)
        other.copy_(own)
    streams = inputs(2, T, n, E, seed=5).float() * 2
    h, write, mix = mixing(streams)
    wanted_write, wanted_mix, wanted_h = reference(streams)
    torch.testing.assert_close(h, wanted_h)
    torch.testing.assert_close(write, wanted_write)
    torch.testing.assert_close(mix, wanted_mix)


@torch.no_grad()
@pytest.mark.parametrize("n", [4, 3])
def test_weights_without_mixing_equal_transformers(n: int) -> None:
    modeling = pytest.importorskip("transformers.models.hy_v4.modeling_hy_v4")
    from transformers import HYV4Config

    fields = {"streams": n, "mixing": "none", "write_scale": 1.5, "write_eps": 1e-3, "eps": 1e-3, "norm_eps": 1e-4}
    mixing = StreamMixing(ManifoldHyperConnectionsSpec.model_validate({"name": BLOCK, **fields}), E)
    config = HYV4Config(hidden_size=E, hc_mult=n, hc_magnitude=1.5, hc_eps=1e-3, rms_norm_eps=1e-4, num_hidden_layers=1)
    reference = modeling.HYV4HyperConnection(config)
    pairs = [(mixing.weight, reference.fn), (mixing.bias, reference.base), (mixing.scale, reference.scale)]
    for seed, (own, other) in enumerate(pairs):
        own.copy_(inputs(*own.shape, seed=seed) * 0.7)
        other.copy_(own)
    streams, branch = inputs(2, T, n, E, seed=5).float() * 2, inputs(2, T, E, seed=6).float()
    h, write, mix = mixing(streams)
    wanted_write, wanted_h = reference(streams)
    torch.testing.assert_close(h, wanted_h)
    torch.testing.assert_close(write, wanted_write)
    assert mix is None
    wanted = streams + write[..., None] * branch[:, :, None]
    torch.testing.assert_close(write_streams(streams, branch, write, None), wanted)


def test_initial_biases_are_those_of_the_spec() -> None:
    block = {"name": BLOCK, "streams": 3, "mixing": "none", "read_bias": -0.7, "gate": 0.01}
    model = gptkit.GPT({"d_model": E, "n_layers": 2, "attention": ATTENTION, "block": block}, 20)
    last: Any = model.blocks[-1]
    assert last.attention_mixing.bias.tolist() == pytest.approx([-0.7] * 3 + [0.0] * 3)
    assert last.collapse.bias.tolist() == pytest.approx([-0.7] * 3)
    assert last.attention_mixing.scale.tolist() == pytest.approx([0.01] * 2)


@torch.no_grad()
def test_collapse_equals_transformers() -> None:
    modeling, config = external(4, 20)
    collapse = StreamCollapse(ManifoldHyperConnectionsSpec(eps=1e-5, norm_eps=1e-4), E)
    reference = modeling.DeepseekV4HyperHead(config)
    pairs = [(collapse.weight, reference.hc_fn), (collapse.bias, reference.hc_base), (collapse.scale, reference.hc_scale)]
    for seed, (own, other) in enumerate(pairs):
        own.copy_(inputs(*own.shape, seed=seed) * 0.7)
        other.copy_(own)
    streams = inputs(2, T, 4, E, seed=5).float() * 2
    torch.testing.assert_close(collapse(streams), reference(streams))


@torch.no_grad()
def test_layer_equals_that_of_transformers_around_other_branches() -> None:
    """The decoder layer of transformers with the attention and the feed-forward of this one."""
    modeling, config = external(3, 4)
    fields = {"name": "manifold-hyper-connections", "streams": 3, "iterations": 4, "eps": 1e-5, "norm_eps": 1e-4}
    parts = {"d_model": E, "context_length": 32, "position": "none", "n_layers": 2}
    model = gptkit.GPT({**parts, "block": fields, "attention": ATTENTION, "norm": "rms"}, 20)
    for seed, parameter in enumerate(model.blocks.parameters()):
        parameter.copy_(inputs(*parameter.shape, seed=seed) * 0.5)
    first, last = model.blocks
    x = inputs(2, T, E).float()
    context = forward(2)
    result = last(first(x, context), context)

    streams = x[:, :, None].expand(-1, -1, 3, -1).contiguous()
    for layer in (first, last):
        reference = modeling.DeepseekV4DecoderLayer.__new__(modeling.DeepseekV4DecoderLayer)
        torch.nn.Module.__init__(reference)
        for name, mixing in (("attn_hc", layer.attention_mixing), ("ffn_hc", layer.feedforward_mixing)):
            other = modeling.DeepseekV4HyperConnection(config)
            other.load_state_dict({"fn": mixing.weight, "base": mixing.bias, "scale": mixing.scale})
            setattr(reference, name, other)

        class Branch(torch.nn.Module):
            def __init__(self, branch: Any, returns: Any) -> None:
                super().__init__()
                self.branch, self.returns = branch, returns

            def forward(self, x: torch.Tensor, **kwargs: Any) -> Any:
                return self.returns(self.branch(x, forward(2)))

        reference.self_attn = Branch(layer.attention, lambda y: (y, None))
        reference.mlp = Branch(layer.feedforward, lambda y: y)
        reference.input_layernorm, reference.post_attention_layernorm = layer.attention_norm, layer.feedforward_norm
        streams = modeling.DeepseekV4DecoderLayer.forward(reference, streams)
    head = modeling.DeepseekV4HyperHead(config)
    state = {"hc_fn": last.collapse.weight, "hc_base": last.collapse.bias, "hc_scale": last.collapse.scale}
    head.load_state_dict(state)
    torch.testing.assert_close(result, head(streams), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_streams_are_mixed_in_their_dtype_under_autocast() -> None:
    streams, branch = inputs(2, T, 3, E).float(), inputs(2, T, E, seed=2)
    write, mix = inputs(2, T, 3, seed=3).float(), inputs(2, T, 3, 3, seed=4).float()
    with torch.autocast("cpu", torch.bfloat16):
        result = write_streams(streams, branch.bfloat16(), write, mix)
    assert torch.equal(result, write_streams(streams, branch.bfloat16(), write, mix))
    wanted = torch.einsum("btjk,btje->btke", mix, streams) + write[..., None] * branch.bfloat16().float()[:, :, None]
    torch.testing.assert_close(result, wanted)


@torch.no_grad()
def test_sinkhorn_makes_matrices_doubly_stochastic() -> None:
    matrix = inputs(5, 4, 4).exp()
    result = sinkhorn(matrix, 50, 1e-9)
    ones = torch.ones(5, 4, dtype=torch.float64)
    torch.testing.assert_close(result.sum(dim=-1), ones)
    torch.testing.assert_close(result.sum(dim=-2), ones)
    # The result is the matrix with scaled rows and columns, so that ratios of products over rectangles stay.
    ratio, wanted = (m[:, 0, 0] * m[:, 1, 1] / (m[:, 0, 1] * m[:, 1, 0]) for m in (result, matrix))
    torch.testing.assert_close(ratio, wanted)


@torch.no_grad()
def test_weights_that_do_not_depend_on_the_token_equal_pre_norm() -> None:
    """Equal streams stay equal: mixing keeps them, and every branch is added to all with weight 1."""
    parts = {"d_model": E, "n_layers": 3, "attention": ATTENTION, "initializer": "xavier"}
    parts["norm"] = {"name": "rms", "eps": 1e-12}
    block = {"name": "manifold-hyper-connections", "gate": 0.0, "eps": 1e-12}
    plain, hyper = gptkit.GPT(parts, 20).double(), gptkit.GPT({**parts, "block": block}, 20).double()
    hyper.load_state_dict({**hyper.state_dict(), **plain.state_dict()})
    ids = torch.randint(20, (2, T), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(hyper(ids).logits, plain(ids).logits)


def test_only_the_last_layer_collapses_by_learned_weights() -> None:
    model = gptkit.GPT({"d_model": E, "n_layers": 3, "attention": ATTENTION, "block": "manifold-hyper-connections"}, 20)
    blocks: Any = model.blocks
    assert [block.collapse is not None for block in blocks] == [False, False, True]


@pytest.mark.parametrize("fields", [{"iterations": 5}, {"mixing": "none", "read_bias": -1.0}])
def test_training_learns_the_token_before_the_last(fields: dict[str, Any]) -> None:
    parts = {"d_model": 16, "n_layers": 2, "context_length": 16, "attention": ATTENTION}
    model = gptkit.GPT({**parts, "block": {"name": BLOCK, **fields}}, N_TOKENS, seed=0)
    assert_learns(model, alternating, steps=100)
