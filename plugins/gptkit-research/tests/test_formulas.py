"""Every formula against an independent, naive form of it: loops over heads, queries and keys."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gptkit
from gptkit.kinds.context import BuildContext, LayerParts
from gptkit.kinds.position import HeadShape
from gptkit.nn.forward import Forward

E, T = 12, 9


def spec(**parts: Any) -> gptkit.ModelSpec:
    return gptkit.ModelSpec.model_validate({"d_model": E, "context_length": 32, "position": "none", **parts})


def build(model: gptkit.ModelSpec, part: str, layers: int = 1) -> list[Any]:
    """The part of each layer, with weights that are not what training starts with."""
    context = BuildContext(E, 32, layers, position=model.position)
    built = []
    for index in range(layers):
        parts = LayerParts(index, model.position, model.attention, model.norm, model.feedforward)
        built.append(getattr(model, part).build(context.replace(layer=parts)))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for module in built:
            for parameter in module.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return [module.double() for module in built]


def forward(rows: int = 1) -> Forward:
    return Forward(torch.zeros(rows, T, dtype=torch.long))


def inputs(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@torch.no_grad()
def test_differential() -> None:
    layers = build(
        spec(attention={"name": "differential", "n_heads": 2, "norm": {"name": "rms", "eps": 1e-5}}), "attention", 3
    )
    module, x = layers[2], inputs(T, E)
    d = 3
    q, k, v = (x @ module.qkv.weight.T).split(E, dim=1)
    start = 0.8 - 0.6 * math.exp(-0.3 * 2)
    factor = (
        math.exp(float(module.lambda_q1 @ module.lambda_k1)) - math.exp(float(module.lambda_q2 @ module.lambda_k2)) + start
    )
    heads = []
    for h in range(2):
        rows = []
        for t in range(T):
            maps = []
            for half in range(2):
                at = slice((2 * h + half) * d, (2 * h + half + 1) * d)
                maps.append(torch.softmax(torch.stack([q[t, at] @ k[s, at] / math.sqrt(d) for s in range(t + 1)]), dim=0))
            weights = maps[0] - factor * maps[1]
            out = sum(weights[s] * v[s, 2 * d * h : 2 * d * (h + 1)] for s in range(t + 1))
            rows.append(out / (out.square().mean() + 1e-5).sqrt() * module.norm.weight * (1 - start))
        heads.append(torch.stack(rows))
    expected = torch.cat(heads, dim=1) @ module.output.weight.T
    torch.testing.assert_close(module(x[None], forward())[0], expected)


def test_lambda_starts_by_depth() -> None:
    model = gptkit.GPT({"d_model": 16, "n_layers": 3, "attention": {"name": "differential", "n_heads": 2}}, 10)
    starts = [block.attention.lambda_init for block in model.blocks]
    assert [round(start, 3) for start in starts] == [0.2, 0.356, 0.471]
    assert 0.02 < model.blocks[0].attention.lambda_q1.std() < 0.3


@torch.no_grad()
def test_forgetting() -> None:
    (module,) = build(spec(attention={"name": "forgetting", "n_heads": 3}), "attention")
    x, d = inputs(T, E), 4
    q, k, v = (x @ module.qkv.weight.T).split(E, dim=1)
    keep = torch.sigmoid(x @ module.forget.weight.T + module.forget.bias)
    heads = []
    for h in range(3):
        at = slice(h * d, (h + 1) * d)
        rows = []
        for t in range(T):
            scores = []
            for s in range(t + 1):
                kept = math.prod(float(keep[between, h]) for between in range(s + 1, t + 1))
                scores.append(q[t, at] @ k[s, at] / math.sqrt(d) + math.log(kept))
            rows.append(torch.softmax(torch.stack(scores), dim=0) @ v[: t + 1, at])
        heads.append(torch.stack(rows))
    expected = torch.cat(heads, dim=1) @ module.output.weight.T
    torch.testing.assert_close(module(x[None], forward())[0], expected)


def test_forgetting_starts_with_its_bias() -> None:
    attention = {"name": "forgetting", "n_heads": 2, "gate_bias": 3.0}
    model = gptkit.GPT({"d_model": 16, "n_layers": 1, "attention": attention, "position": "none"}, 10)
    assert model.blocks[0].attention.forget.bias.tolist() == [3.0, 3.0]


@torch.no_grad()
def test_value_residual() -> None:
    first, second = build(spec(attention={"name": "value-residual", "n_heads": 2}), "attention", 2)
    shared, x1, x2, d = forward(), inputs(T, E, seed=1), inputs(T, E, seed=2), 6
    assert first.mix is None
    found = [first(x1[None], shared)[0], second(x2[None], shared)[0]]

    def attend(module: nn.Module, x: Tensor, values: Tensor) -> Tensor:
        q, k, _ = (x @ module.qkv.weight.T).split(E, dim=1)
        heads = []
        for h in range(2):
            at = slice(h * d, (h + 1) * d)
            rows = [
                torch.softmax(torch.stack([q[t, at] @ k[s, at] / math.sqrt(d) for s in range(t + 1)]), dim=0)
                @ values[: t + 1, at]
                for t in range(T)
            ]
            heads.append(torch.stack(rows))
        return torch.cat(heads, dim=1) @ module.output.weight.T

    v1, v2 = (x1 @ first.qkv.weight.T)[:, 2 * E :], (x2 @ second.qkv.weight.T)[:, 2 * E :]
    torch.testing.assert_close(found[0], attend(first, x1, v1))
    torch.testing.assert_close(found[1], attend(second, x2, second.mix[0] * v1 + second.mix[1] * v2))


def test_value_residual_starts_with_its_factors_and_can_keep_them() -> None:
    attention = {"name": "value-residual", "n_heads": 2, "first": 0.25, "own": 0.75}
    model = gptkit.GPT({"d_model": 16, "n_layers": 3, "attention": attention}, 10)
    assert [None if block.attention.mix is None else block.attention.mix.tolist() for block in model.blocks] == [
        None,
        [0.25, 0.75],
        [0.25, 0.75],
    ]
    fixed = gptkit.GPT({"d_model": 16, "n_layers": 3, "attention": {**attention, "learned": False}}, 10)
    assert not any("mix" in name for name, _ in fixed.named_parameters())


def position(fields: dict[str, Any], n_heads: int, d_head: int) -> Any:
    context = BuildContext(E, 32, 1)
    module = spec(position=fields).position.build(context, heads=HeadShape(n_heads, n_heads, d_head)).double()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.7)
    return module


@torch.no_grad()
def test_cope() -> None:
    module = position({"name": "cope", "n_positions": 4}, 2, 5)
    q, k = inputs(1, 2, 3, 5, seed=1), inputs(1, 2, T, 5, seed=2)  # the last three tokens of nine
    found = module.content_bias(q, k, torch.arange(6, T), torch.arange(T))
    e = module.table.weight
    for h in range(2):
        for t in range(3):
            for s in range(6 + t + 1):
                counted = sum(torch.sigmoid(q[0, h, t] @ k[0, h, between]) for between in range(s, 6 + t + 1))
                p = min(float(counted), 3.0)
                low, high = math.floor(p), math.ceil(p)
                vector = (1 - (p - low)) * e[low] + (p - low) * e[high]
                torch.testing.assert_close(found[0, h, t, s], q[0, h, t] @ vector)


@torch.no_grad()
def test_fire() -> None:
    module = position({"name": "fire", "threshold": 5, "width": 7}, 3, 4)
    found = module.bias(torch.arange(T), torch.arange(T))
    c, threshold = abs(float(module.c)), abs(float(module.stretch)) * 5
    assert 1 < threshold < T - 1, "both sides of the threshold are to be tested"
    for t in range(T):
        for s in range(t + 1):
            share = math.log(c * (t - s) + 1) / (math.log(c * max(t, threshold) + 1) + 1e-6)
            hidden = F.relu(module.inner.weight[:, 0] * share + module.inner.bias)
            torch.testing.assert_close(found[0, :, t, s], module.outer.weight @ hidden + module.outer.bias)


@torch.no_grad()
def test_kerple() -> None:
    for form in ("log", "power"):
        module = position({"name": "kerple", "form": form}, 3, 4)
        found = module.bias(torch.arange(T), torch.arange(T))
        for h in range(3):
            r1 = math.exp(float(module.r1[h]))
            for t in range(T):
                for s in range(t + 1):
                    if form == "log":
                        expected = -r1 * math.log(1 + math.exp(float(module.r2[h])) * (t - s))
                    else:
                        expected = -r1 * (t - s) ** (2 / (1 + math.exp(-float(module.r2[h]))))
                    torch.testing.assert_close(float(found[0, h, t, s]), expected)


def test_kerple_starts_where_the_paper_does() -> None:
    for form, top in (("log", 1.0), ("power", 1.0)):
        model = gptkit.GPT({"d_model": 64, "n_layers": 1, "attention": {"name": "multi-head", "n_heads": 32},
                            "position": {"name": "kerple", "form": form}}, 10)  # fmt: skip
        found = model.blocks[0].attention.position
        r2 = found.r2.exp() if form == "log" else 2 * found.r2.sigmoid()
        assert 0 < r2.min() < 0.3 < 0.7 < r2.max() <= top
        assert 0 < found.r1.exp().min() < 0.6 < 1.4 < found.r1.exp().max() <= 2


@torch.no_grad()
def test_dynamic_tanh() -> None:
    module = spec(norm={"name": "dynamic-tanh", "alpha": 0.8}).norm.build(BuildContext(E, 32, 1), dim=E).double()
    x = inputs(2, 3, E)
    assert float(module.alpha) == torch.tensor(0.8)
    module.weight.copy_(inputs(E, seed=2))
    module.bias.copy_(inputs(E, seed=3))
    alpha = float(module.alpha)
    for i in range(E):
        expected = torch.tanh(x[..., i] * alpha) * module.weight[i] + module.bias[i]
        torch.testing.assert_close(module(x)[..., i], expected)


@torch.no_grad()
def test_hyper_connections() -> None:
    n = 3
    fields = {"name": "hyper-connections", "streams": n}
    attention = {"name": "multi-head", "n_heads": 2}
    layers = build(spec(block=fields, attention=attention, norm="layer"), "block", 2)
    context, x = forward(), inputs(1, T, E)
    found = x
    for layer in layers:
        found = layer(found, context)

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
    torch.testing.assert_close(found[0], sum(streams))


@pytest.mark.parametrize("bits", [8, 4, None])
def test_ternary(bits: int | None) -> None:
    model = gptkit.GPT(
        {
            "d_model": E,
            "n_layers": 1,
            "attention": {"name": "multi-head", "n_heads": 2},
            "linear": {"name": "ternary", "bits": bits},
            "head": {"name": "linear", "linear": {"name": "ternary", "bits": bits}},
        },
        20,
    ).double()
    linear = model.blocks[0].attention.qkv
    x = inputs(1, T, E).double().requires_grad_()
    gamma = linear.weight.detach().abs().mean()
    assert set((linear.transformed_weight() / gamma).round(decimals=6).flatten().tolist()) == {-1.0, 0.0, 1.0}

    def used(x: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        scale = weight.abs().mean()
        ternary = torch.stack([((w > 0.5 * scale).double() - (w < -0.5 * scale).double()) * scale for w in weight])
        if bits is None:
            return x, ternary
        largest = 2 ** (bits - 1) - 1
        rows = [(row * largest / row.abs().max()).round() * row.abs().max() / largest for row in x.reshape(-1, E)]
        return torch.stack(rows).view_as(x), ternary

    quantized, ternary = used(x.detach(), linear.weight.detach())
    y = linear(x)
    torch.testing.assert_close(y, quantized @ ternary.T)
    # Straight through: gradients as if the quantized factors were the parameters themselves.
    slope = torch.randn_like(y)
    to_x, to_weight = torch.autograd.grad(y, [x, linear.weight], slope)
    torch.testing.assert_close(to_x, slope @ ternary)
    torch.testing.assert_close(to_weight, torch.einsum("bto,bti->oi", slope, quantized))

    ids = torch.randint(20, (2, T), generator=torch.Generator().manual_seed(0))
    out = model(ids, ids, with_logits=True)
    expected = torch.nn.functional.cross_entropy(out.logits.flatten(0, 1), ids.flatten())
    torch.testing.assert_close(out.loss, expected)
    assert model.head.projection.weight.shape == (20, E)


@torch.no_grad()
def test_hyper_connections_start_as_pre_norm() -> None:
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


@torch.no_grad()
def test_pope() -> None:
    module = position({"name": "pope", "base": 100.0}, 2, 3)
    q, k = inputs(1, 2, T, 3, seed=1), inputs(1, 2, T, 3, seed=2)
    q_wide, k_wide = module.rotate(q, k, module.prepare(torch.arange(T)))
    assert q_wide.shape == k_wide.shape == (1, 2, T, 6)
    for h in range(2):
        for t in range(T):
            for s in range(T):
                score = 0.0
                for c in range(3):
                    delta = min(max(float(module.delta[h, c]), -2 * math.pi), 0.0)
                    lengths = math.log1p(math.exp(q[0, h, t, c])) * math.log1p(math.exp(k[0, h, s, c]))
                    score += lengths * math.cos((s - t) * 100.0 ** (-c / 3) + delta)
                assert math.isclose(float(q_wide[0, h, t] @ k_wide[0, h, s]), score, rel_tol=1e-5, abs_tol=1e-6)


@torch.no_grad()
def test_talking_heads() -> None:
    (module,) = build(spec(attention={"name": "talking-heads", "n_heads": 3}), "attention")
    x, d = inputs(T, E), 4
    q, k, v = (part.view(T, 3, d) for part in (x @ module.qkv.weight.T).split(E, dim=1))
    out = torch.zeros(T, 3, d, dtype=torch.float64)
    for t in range(T):
        scores = torch.stack([k[: t + 1, g] @ q[t, g] / 2 for g in range(3)])
        mixed = torch.stack([sum(module.mix_score[h, g] * scores[g] for g in range(3)) for h in range(3)])
        weights = mixed.softmax(dim=-1)
        for h in range(3):
            weight = sum(module.mix_weight[h, g] * weights[g] for g in range(3))
            out[t, h] = weight @ v[: t + 1, h]
    torch.testing.assert_close(module(x[None], forward())[0], out.flatten(1) @ module.output.weight.T)


def test_mixing_heads_is_refused_by_a_backend_that_holds_no_scores() -> None:
    with pytest.raises(gptkit.SpecError, match="'sdpa' cannot compute mixing of heads"):
        gptkit.GPT({"d_model": E, "attention": {"name": "talking-heads", "n_heads": 3}, "attention_backend": "sdpa"}, 10)


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:.*flex_attention called without torch.compile")
@pytest.mark.parametrize(
    "fields",
    [
        {"name": "fire", "threshold": 4, "width": 6},
        {"name": "fire", "shared": True},
        {"name": "kerple"},
        {"name": "kerple", "form": "power"},
    ],
)
def test_score_functions_equal_the_bias(fields: dict[str, Any]) -> None:
    parts = {"d_model": E, "n_layers": 2, "attention": {"name": "multi-head", "n_heads": 2}, "position": fields}
    ids = torch.randint(20, (2, T), generator=torch.Generator().manual_seed(0))
    models = []
    for backend in ("flex", "eager"):
        model = gptkit.GPT({**parts, "attention_backend": backend, "initializer": "xavier"}, 20).eval()
        assert model.blocks[0].attention.backend_name == backend
        models.append(model)
    for call in ({}, {"left_padding_B": torch.tensor([0, 2])}, {"documents_BT": torch.tensor([[0] * 4 + [1] * 5, [0] * 9])}):
        flex, eager = (model(ids, **call).logits[:, 2:] for model in models)
        torch.testing.assert_close(flex, eager, atol=3e-5, rtol=3e-5)
