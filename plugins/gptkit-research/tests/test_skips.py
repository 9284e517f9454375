"""Block `skips` against its formula."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import gptkit
from gptkit.nn.forward import Forward

V = 31
SPEC = {"d_model": 16, "context_length": 32, "attention": {"name": "multi-head", "n_heads": 2}}


def sources(model: gptkit.GPT) -> list[int | None]:
    blocks: Any = model.blocks
    return [block.reads[0][1] if block.reads else None for block in blocks]


@torch.no_grad()
@pytest.mark.parametrize(
    ("n_layers", "expected"),
    [(1, [None]), (2, [None, 0]), (5, [None, None, None, 1, 0]), (6, [None, None, None, 2, 1, 0])],
)
def test_blocks_equal_their_formula(n_layers: int, expected: list[int | None]) -> None:
    model = gptkit.GPT({**SPEC, "n_layers": n_layers, "block": {"name": "skips", "weight": 0.75}}, V).double().eval()
    assert sources(model) == expected
    blocks: Any = model.blocks
    for index, block in enumerate(blocks):
        if block.weight is not None:
            assert block.weight.tolist() == [0.75]
            block.weight.fill_(0.3 + index)
    ids = torch.randint(V, (2, 9), generator=torch.Generator().manual_seed(0))
    x = model.embedding(ids, Forward(ids))
    outputs: list[torch.Tensor] = []
    for index, block in enumerate(blocks):
        source = expected[index]
        if source is not None:
            x = x + (0.3 + index) * outputs[source]
        x = x + block.block.attention(block.block.attention_norm(x), Forward(ids))
        x = x + block.block.feedforward(block.block.feedforward_norm(x), Forward(ids))
        outputs.append(x)
    torch.testing.assert_close(model(ids).logits, model.head(model.final_norm(x), Forward(ids)), atol=1e-6, rtol=1e-6)


@torch.no_grad()
def test_weight_of_zero_equals_the_inner_block() -> None:
    model = gptkit.GPT({**SPEC, "n_layers": 4, "block": {"name": "skips", "weight": 0.0, "block": "parallel"}}, V).eval()
    plain = gptkit.GPT({**SPEC, "n_layers": 4, "block": "parallel"}, V).eval()
    state = {name.replace(".block.", "."): value for name, value in model.state_dict().items()}
    plain.load_state_dict({name: state[name] for name in plain.state_dict()})
    ids = torch.randint(V, (2, 9), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model(ids).logits, plain(ids).logits)


def test_source_may_be_chosen_by_layer() -> None:
    layers = [{"block": {"name": "skips", "source": source}} for source in (None, None, None)]
    layers += [{"block": "pre-norm"}, {"block": {"name": "skips", "source": 1}}, {"block": {"name": "skips", "source": 1}}]
    assert sources(gptkit.GPT({**SPEC, "layers": layers[:3]}, V)) == [None, None, 0]
    model = gptkit.GPT({**SPEC, "layers": layers[:2] + layers[3:]}, V)
    blocks: Any = model.blocks
    assert [getattr(block, "reads", ()) for block in blocks] == [(), (), (), (("skips", 1),), (("skips", 1),)]


def test_source_that_does_not_precede_the_layer_is_rejected() -> None:
    layers = [{"block": "skips"}, {"block": {"name": "skips", "source": 1}}]
    with pytest.raises(gptkit.SpecError, match="layer 1 does not precede layer 1; choose an earlier layer"):
        gptkit.GPT({**SPEC, "layers": layers}, V)


def test_source_without_this_block_is_rejected() -> None:
    with pytest.raises(gptkit.GptkitError, match="no earlier module publishes"):
        gptkit.GPT({**SPEC, "layers": [{"block": "pre-norm"}, {"block": "skips"}]}, V)


def test_blocks_of_a_head_have_no_source() -> None:
    head = {"name": "multi-token", "depth": 2, "block": "skips"}
    model = gptkit.GPT({**SPEC, "n_layers": 2, "block": "skips", "head": head}, V).train()
    ids = torch.randint(V, (2, 9), generator=torch.Generator().manual_seed(0))
    assert model(ids, ids).loss.isfinite()
    modules: Any = model.head.modules_after
    assert [module.block.weight for module in modules] == [None, None]
