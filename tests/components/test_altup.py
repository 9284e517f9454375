"""Blocks `altup` and `laurel`, and sparse gates, against their formulas; decoding and training."""

from __future__ import annotations

from statistics import NormalDist
from typing import Any

import pytest
import torch
from torch import Tensor

import gptkit
from gptkit.core.errors import SpecError
from gptkit.ejection.writing import write_source
from gptkit.kinds.written import NotWrittenError
from gptkit.nn.forward import Forward

V, E, LAYERS = 31, 16, 3
RMS = {"name": "rms", "eps": 1e-6}
SPEC = {
    "d_model": E,
    "n_layers": LAYERS,
    "context_length": 32,
    "attention": {"name": "multi-head", "n_heads": 2},
    "feedforward": {"name": "gated", "d_hidden": 24},
    "norm": RMS,
}
GEMMA = {"d_embedding": 6, "norm": RMS, "projection": True, "block": {"name": "laurel", "rank": 5}}


def make(block: Any, **changes: Any) -> gptkit.GPT:
    model = gptkit.GPT({**SPEC, "block": block, **changes}, V).double().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith(("blocks.", "shared.")):
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
    return model


def random_ids(rows: int = 2, length: int = 9) -> Tensor:
    return torch.randint(V, (rows, length), generator=torch.Generator().manual_seed(1))


def normed(x: Tensor, norm: Any) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * norm.weight


def resized(y: Tensor, x: Tensor) -> Tensor:
    return y * (x.square().mean(-1, keepdim=True) / y.square().mean(-1, keepdim=True).clamp(min=1e-5)).sqrt()


@torch.no_grad()
@pytest.mark.parametrize("fields", [{"streams": 2}, GEMMA, {"streams": 3, **GEMMA, "correct_scale": False}])
def test_streams_equal_their_formula(fields: dict[str, Any]) -> None:
    model, ids = make({"name": "altup", **fields}), random_ids()
    n = fields.get("streams", 4)
    forward = Forward(ids)
    x = model.embedding(ids, forward)
    blocks: Any = list(model.blocks)
    streams = [x, *(resized(x @ blocks[0].expand[i].weight.T, x) for i in range(n - 1))]
    inputs = None if "d_embedding" not in fields else model.shared["per-layer-embedding"](ids, x)
    for index, layer in enumerate(blocks):

        def modalities(v: Tensor, layer: Any = layer) -> Tensor:
            return torch.tanh(normed(v, layer.router_norm) @ layer.router.weight.T / E)

        maps = (modalities(streams[0]) @ layer.prediction.weight.T).unflatten(-1, (n, n))
        predicted = [streams[j] + sum(maps[..., j, i, None] * streams[i] for i in range(n)) for j in range(n)]
        y = layer.block(predicted[0], Forward(ids))
        factors = 1 + modalities(y) @ layer.correction.weight.T
        streams = [predicted[j] + factors[..., j, None] * (y - predicted[0]) for j in range(n)]
        if inputs is not None:
            scale = layer.correct_scale if layer.correct_scale is not None else 1.0
            gate = torch.nn.functional.gelu((streams[0] * scale) @ layer.embedding.gate.weight.T)
            added = normed((gate * inputs[:, :, index]) @ layer.embedding.output.weight.T, layer.embedding.norm)
            streams = [streams[0], *(stream + added for stream in streams[1:])]
    merged = [resized(streams[i + 1] @ blocks[-1].merge[i].weight.T, streams[0]) for i in range(n - 1)]
    y = (streams[0] + sum(merged)) / n
    torch.testing.assert_close(model(ids).logits, model.head(model.final_norm(y), forward), atol=1e-6, rtol=1e-6)


@torch.no_grad()
def test_laurel_equals_its_formula() -> None:
    model, ids = make({"name": "laurel", "rank": 5}), random_ids()
    block: Any = model.blocks[0]
    x = torch.randn(2, 9, E, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    a = normed(x, block.attention_norm)
    low = normed(a @ block.left.weight.T @ block.right.weight.T, block.laurel_norm)
    y = (x + normed(block.attention(a, Forward(ids)), block.attention_output_norm) + a + low) / 2**0.5
    fed = block.feedforward(normed(y, block.feedforward_norm), Forward(ids))
    expected = y + normed(fed, block.feedforward_output_norm)
    torch.testing.assert_close(block(x, Forward(ids)), expected, atol=1e-6, rtol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("sparsity", [0.3, 0.5, 0.9])
def test_sparse_gates_are_zero_below_the_cutoff(sparsity: float) -> None:
    feedforward = {"name": "gated", "d_hidden": 4000, "sparsity": sparsity, "activation": "relu"}
    module: Any = make("pre-norm", feedforward=feedforward).blocks[0].feedforward  # type: ignore[union-attr]
    x = torch.randn(1, 5, E, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    gate, up = (x @ module.gate_up.weight.T).chunk(2, dim=-1)
    cutoff = gate.mean(-1, keepdim=True) + NormalDist().inv_cdf(sparsity) * gate.std(-1, correction=0, keepdim=True)
    kept = (gate - cutoff).clamp(min=0)
    assert (kept == 0).double().mean().item() == pytest.approx(sparsity, abs=0.03)
    torch.testing.assert_close(module(x, Forward(random_ids(1, 5))), (kept * up) @ module.down.weight.T)


@torch.no_grad()
def test_initial_streams_follow_the_block() -> None:
    """All streams initially change by what the block adds, so the first one is that of the block alone."""
    model = gptkit.GPT({**SPEC, "block": {"name": "altup", "streams": 3, "block": "pre-norm"}}, V).eval()
    plain = gptkit.GPT({**SPEC, "block": "pre-norm"}, V).eval()
    state = {name.replace(".block.", "."): value for name, value in model.state_dict().items()}
    plain.load_state_dict({name: state[name] for name in plain.state_dict()})
    seen: list[Tensor] = []
    for each in (model, plain):
        each.blocks[1].register_forward_hook(lambda module, inputs, output: seen.append(output))
        each(random_ids())
    torch.testing.assert_close(*seen)


@torch.no_grad()
def test_pieces_behind_padding_equal_one_call() -> None:
    model, ids = make({"name": "altup", "streams": 3, **GEMMA}), random_ids(length=12)
    full, padding = model(ids).logits, torch.tensor([0, 3])
    rows = torch.cat((ids[:1], torch.cat((torch.zeros(1, 3, dtype=torch.long), ids[1:, :9]), dim=1)))
    cache, at, steps = model.new_cache(2, left_padding_B=padding), 0, []
    for piece in (5, 1, 1, 4, 1):
        steps.append(model(rows[:, at : at + piece], cache=cache).logits)
        at += piece
    cached = torch.cat(steps, dim=1)
    torch.testing.assert_close(cached[0], full[0], atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(cached[1, 3:], full[1, :9], atol=1e-9, rtol=1e-9)


def test_maps_are_bounded_in_training_only() -> None:
    model = make({"name": "altup", "streams": 2, "clip": 0.01})
    evaluated = model(random_ids()).logits
    trained = model.train()(random_ids(), random_ids()).loss
    unbounded = make({"name": "altup", "streams": 2, "clip": None})
    torch.testing.assert_close(unbounded(random_ids()).logits, evaluated)
    loss = unbounded.train()(random_ids(), random_ids()).loss
    assert trained is not None
    assert loss is not None
    assert abs(trained.item() - loss.item()) > 1e-4


def test_blocks_of_a_head_are_refused() -> None:
    head = {"name": "multi-token", "block": {"name": "altup"}}
    with pytest.raises(SpecError, match="no streams for the blocks of a head"):
        gptkit.GPT({**SPEC, "head": head}, V)


def test_streams_within_streams_are_refused() -> None:
    block = {"name": "altup", "block": {"name": "per-layer-embedding", "block": "altup"}}
    with pytest.raises(SpecError, match="a block with streams cannot be within another one"):
        gptkit.GPT({**SPEC, "block": block}, V)


def test_streams_within_a_layer_embedding_are_not_written_out() -> None:
    model = make({"name": "per-layer-embedding", "block": "altup"})
    with pytest.raises(NotWrittenError, match="around 'altup', which returns one of several streams"):
        write_source(model.spec, V, name="streams", parameters=0)


@pytest.mark.slow
@pytest.mark.parametrize("block", [{"name": "altup", **GEMMA}, {"name": "laurel", "rank": 4}])
def test_training_learns_the_previous_token(block: dict[str, Any]) -> None:
    """The target is the token before each, which a model must find by attention."""
    torch.manual_seed(0)
    feedforward = {"name": "gated", "d_hidden": 24, "sparsity": 0.5}
    model = gptkit.GPT({**SPEC, "n_layers": 2, "position": "rotary", "feedforward": feedforward, "block": block}, V).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    generator = torch.Generator().manual_seed(1)
    losses = []
    for _ in range(300):
        ids = torch.randint(V, (16, 16), generator=generator)
        logits = model(ids).logits[:, 1:]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, :-1].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) / 10 < 0.3 * losses[0]
