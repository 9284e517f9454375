"""Block `per-layer-embedding` against its formula, decoding with it, and training."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import gptkit
from gptkit.core.errors import SpecError
from gptkit.nn.forward import Forward

V, P, LAYERS = 31, 6, 3
SPEC = {"d_model": 16, "n_layers": LAYERS, "context_length": 32, "attention": {"name": "multi-head", "n_heads": 2}}
RMS = {"name": "rms", "eps": 1e-6}
GEMMA = {"norm": RMS, "projection": True, "output_scale": "learned", "block": "sandwich"}


def make(**fields: Any) -> gptkit.GPT:
    block = {"name": "per-layer-embedding", "d_embedding": P, "activation": "silu", **fields}
    model = gptkit.GPT({**SPEC, "block": block}, V).double().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith(("blocks.", "shared.")):
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
    return model


def random_ids(length: int = 9) -> Tensor:
    return torch.randint(V, (2, length), generator=torch.Generator().manual_seed(1))


def normed(x: Tensor, weight: Tensor) -> Tensor:
    return x / (x.square().mean() + 1e-6).sqrt() * weight


@torch.no_grad()
@pytest.mark.parametrize("fields", [{}, {"norm": RMS}, {"n_ids": 9}, {**GEMMA, "n_ids": 20}])
def test_blocks_equal_their_formula(fields: dict[str, Any]) -> None:
    model = make(**fields)
    ids = random_ids()
    x = first = model.embedding(ids, Forward(ids))
    shared: Any = model.shared["per-layer-embedding"]
    modules: Any = model.blocks
    for index, layer in enumerate(modules):
        own = slice(index * P, (index + 1) * P)
        x = layer.block(x, Forward(ids))
        result = torch.empty_like(x)
        for row in range(2):
            for t in range(9):
                token = int(ids[row, t])
                inputs = shared.table.weight[token if token < fields.get("n_ids", V) else 0, own] * P**0.5
                if fields.get("projection"):
                    projected = shared.projection.weight[own] @ first[row, t] / 16**0.5
                    inputs = (inputs + normed(projected, shared.norm.weight)) / 2**0.5
                gate = layer.embedding.gate.weight @ x[row, t]
                added = layer.embedding.output.weight @ (gate / (1 + torch.exp(-gate)) * inputs)
                if layer.embedding.norm is not None:
                    added = normed(added, layer.embedding.norm.weight)
                result[row, t] = x[row, t] + added
        x = result if layer.output_scale is None else result * layer.output_scale
    torch.testing.assert_close(model(ids).logits, model.head(model.final_norm(x), Forward(ids)), atol=1e-6, rtol=1e-6)


@torch.no_grad()
def test_initial_blocks_equal_the_inner_block() -> None:
    model = gptkit.GPT({**SPEC, "block": "per-layer-embedding"}, V).eval()
    plain = gptkit.GPT({**SPEC, "block": "pre-norm"}, V).eval()
    state = {name.replace(".block.", "."): value for name, value in model.state_dict().items()}
    plain.load_state_dict({name: state[name] for name in plain.state_dict()})
    torch.testing.assert_close(model(random_ids()).logits, plain(random_ids()).logits)


def test_the_tables_of_all_layers_are_one() -> None:
    model = make()
    tables = {name: tuple(value.shape) for name, value in model.named_parameters() if name.endswith("table.weight")}
    assert tables == {"embedding.table.weight": (V, 16), "shared.per-layer-embedding.table.weight": (V, LAYERS * P)}


def test_layers_with_other_fields_have_another_table() -> None:
    block = {"name": "per-layer-embedding", "d_embedding": P}
    layers = [{}, {"block": {"d_embedding": 4}}, {"block": {"name": "pre-norm"}}]
    model = gptkit.GPT({**SPEC, "block": block, "layers": layers}, V)
    assert {name: module.table.weight.shape[1] for name, module in model.shared.items()} == {  # type: ignore[union-attr, index]
        "per-layer-embedding": LAYERS * P,
        "per-layer-embedding-2": LAYERS * 4,
    }


@torch.no_grad()
def test_pieces_behind_padding_equal_one_call() -> None:
    model, ids = make(**GEMMA), random_ids(12)
    full, padding = model(ids).logits, torch.tensor([0, 3])
    shifted = torch.cat((torch.zeros(1, 3, dtype=torch.long), ids[1:, :9]), dim=1)
    rows = torch.cat((ids[:1], shifted))
    cache, at, steps = model.new_cache(2, left_padding_B=padding), 0, []
    for piece in (5, 1, 1, 4, 1):
        steps.append(model(rows[:, at : at + piece], cache=cache).logits)
        at += piece
    cached = torch.cat(steps, dim=1)
    torch.testing.assert_close(cached[0], full[0], atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(cached[1, 3:], full[1, :9], atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("scale", ["fixed", "learned"])
def test_only_a_learned_output_scale_is_trained(scale: str) -> None:
    model = make(**{**GEMMA, "output_scale": scale}).train()
    loss = model(random_ids(), random_ids().roll(1, 1)).loss
    assert loss is not None
    loss.backward()
    gradients = [value.grad for name, value in model.named_parameters() if name.endswith("output_scale")]
    assert [gradient is not None for gradient in gradients] == [scale == "learned"] * LAYERS


def test_blocks_of_a_head_are_refused() -> None:
    head = {"name": "multi-token", "block": {"name": "per-layer-embedding"}}
    with pytest.raises(SpecError, match="no embedding for the blocks of a head"):
        gptkit.GPT({**SPEC, "head": head}, V)


EMBEDDED = {"name": "per-layer-embedding", "d_embedding": P, "projection": True}
ALTUP = {"name": "altup", "streams": 2, "d_embedding": P, "projection": True}


@pytest.mark.parametrize("outer", [EMBEDDED, ALTUP])
@pytest.mark.parametrize("inner", [EMBEDDED, {**ALTUP, "streams": 3}])
def test_blocks_within_each_other_have_different_embeddings(outer: dict[str, Any], inner: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match=r"block: has the embedding of the block around it|cannot be within another one"):
        gptkit.GPT({**SPEC, "block": {**outer, "block": inner}}, V)


def test_an_embedding_of_another_width_may_be_within_one() -> None:
    model = gptkit.GPT({**SPEC, "block": {**EMBEDDED, "block": {**EMBEDDED, "d_embedding": P + 1}}}, V)
    assert len(model.shared) == 2


@pytest.mark.parametrize("inner", [EMBEDDED, ALTUP, {"name": "laurel"}])
def test_blocks_in_cycles_have_no_layer_embedding(inner: dict[str, Any]) -> None:
    spec = {**SPEC, "block": {"name": "hierarchical", "block": inner}}
    if inner["name"] == "laurel":
        gptkit.GPT(spec, V)
        return
    with pytest.raises(SpecError, match="a layer has one embedding of each token"):
        gptkit.GPT(spec, V)


def test_training_learns_tokens_that_differ_in_the_layer_embeddings_only() -> None:
    """The model's own embedding is the same for all tokens, so the next token depends on those of the layers."""
    torch.manual_seed(0)
    model = make(projection=True, norm=RMS).float().train()
    with torch.no_grad():
        model.embedding.table_VE.fill_(0.1)
    trained = [parameter for name, parameter in model.named_parameters() if not name.startswith("embedding.")]
    optimizer = torch.optim.AdamW(trained, lr=1e-2)
    ids = torch.randint(V, (8, 16), generator=torch.Generator().manual_seed(2))
    losses = []
    for _ in range(80):
        loss = model(ids, (ids * 3 + 1) % V).loss
        assert loss is not None
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]
