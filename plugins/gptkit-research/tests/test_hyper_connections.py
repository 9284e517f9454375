"""Hyper-connections against a naive form of their formula, and their streams from block to block."""

from __future__ import annotations

from typing import Any

import torch
from research_parts import E, T, build, forward, inputs, spec

import gptkit
from gptkit.nn.forward import Forward
from gptkit.nn.parameters import parameter_options


@torch.no_grad()
def test_hyper_connections_equal_their_formula() -> None:
    n = 3
    fields = {"name": "hyper-connections", "streams": n}
    attention = {"name": "multi-head", "n_heads": 2}
    layers = build(spec(block=fields, attention=attention, norm="layer"), "block", 2)
    context, x = forward(), inputs(1, T, E)
    result = x
    for layer in layers:
        result = layer(result, context)

    streams = [x[0].clone() for _ in range(n)]
    for layer in layers:
        for branch in ("attention", "feedforward"):
            connection = getattr(layer, f"{branch}_connection")
            normed = [connection.norm(stream) for stream in streams]
            mix = [
                connection.mix[j] + connection.mix_scale * torch.tanh(normed[j] @ connection.mix_by_token.weight.T)
                for j in range(n)
            ]  # for each stream: (T, n + 1)
            write = [
                connection.write[j] + connection.write_scale * torch.tanh(normed[j] @ connection.write_by_token.weight[0])
                for j in range(n)
            ]
            h = sum(mix[j][:, 0, None] * streams[j] for j in range(n))
            out = getattr(layer, branch)(getattr(layer, f"{branch}_norm")(h)[None], forward())[0]
            streams = [
                sum(mix[j][:, 1 + i, None] * streams[j] for j in range(n)) + write[i][:, None] * out for i in range(n)
            ]
    torch.testing.assert_close(result[0], sum(streams))


@torch.no_grad()
def test_initial_hyper_connections_equal_pre_norm() -> None:
    parts = {"d_model": E, "n_layers": 3, "attention": {"name": "multi-head", "n_heads": 2}, "initializer": "xavier"}
    parts["norm"] = {"name": "rms", "eps": 1e-12}
    plain = gptkit.GPT(parts, 20).double()
    ids = torch.randint(20, (2, T), generator=torch.Generator().manual_seed(0))
    for dynamic in (True, False):
        block = {"name": "hyper-connections", "streams": 4, "dynamic": dynamic}
        hyper = gptkit.GPT({**parts, "block": block}, 20).double()
        hyper.load_state_dict({**hyper.state_dict(), **plain.state_dict()})
        torch.testing.assert_close(hyper(ids).logits, plain(ids).logits)


@torch.no_grad()
def test_streams_restart_after_another_block() -> None:
    entries = [
        {"block": {"name": name}} for name in ("hyper-connections", "hyper-connections", "pre-norm", "hyper-connections")
    ]
    model = gptkit.GPT({"d_model": E, "attention": {"name": "multi-head", "n_heads": 2}, "layers": entries}, 20)
    received = []

    def record(block: Any, args: tuple[torch.Tensor, Forward]) -> None:
        received.append(args[1].carried(block, ("hyper-connections", 4)) is not None)

    for block in model.blocks:
        block.carries = (("hyper-connections", 4),)
        block.register_forward_pre_hook(record)
    model(torch.zeros(1, T, dtype=torch.long))
    assert received == [False, True, True, False]


@torch.no_grad()
def test_streams_of_the_last_block_do_not_reach_the_block_of_a_head() -> None:
    """A module of multi-token prediction has an input of its own, which the streams of the stack must not replace."""
    parts = {"d_model": E, "n_layers": 2, "attention": {"name": "multi-head", "n_heads": 2}, "block": "hyper-connections"}
    head = {"name": "multi-token", "depth": 2, "block": "hyper-connections"}
    model = gptkit.GPT({**parts, "head": head, "initializer": "xavier"}, 20).double().train()
    ids = torch.randint(20, (1, T), generator=torch.Generator().manual_seed(0))
    inputs: list[torch.Tensor] = []
    for module in model.head.modules_after:
        module.block.attention_connection.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
        module.block.register_forward_pre_hook(lambda block, args: inputs.append(args[0]))
    model(ids, ids)
    assert len(inputs) == 4
    for x_BTE, streams_BTNE in (inputs[:2], inputs[2:]):
        torch.testing.assert_close(streams_BTNE, x_BTE[:, :, None].expand_as(streams_BTNE))


def test_static_weights_of_streams_are_not_hidden_matrices() -> None:
    model = gptkit.GPT({"d_model": E, "attention": {"name": "multi-head", "n_heads": 2}, "block": "hyper-connections"}, 20)
    options = parameter_options(model)
    name = "blocks.0.attention_connection."
    assert not options[f"{name}mix"].hidden
    assert not options[f"{name}mix"].decay
    assert options[f"{name}mix_by_token.weight"].hidden
