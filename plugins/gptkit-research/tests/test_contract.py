"""Contracts of kinds, for models of these components: causality, caches, padding and documents."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import gptkit

V = 61
ATTENTIONS: list[dict[str, Any]] = [
    {"name": "forgetting", "n_heads": 4},
    {"name": "forgetting", "n_heads": 2, "window": 5, "qk_norm": "rms", "output_gate": True, "gate_bias": 2.0},
    {"name": "value-residual", "n_heads": 4, "n_kv_heads": 2},
    {"name": "value-residual", "n_heads": 2, "window": 5, "learned": False},
    {"name": "value-embedding", "n_heads": 4, "n_kv_heads": 2, "gate_features": 5},
    {"name": "value-embedding", "n_heads": 2, "window": 5, "table": "one"},
    {"name": "talking-heads", "n_heads": 4},
    {"name": "talking-heads", "n_heads": 2, "window": 5},
    {"name": "multi-head", "n_heads": 4},
    {"name": "grouped-query", "n_heads": 4, "n_kv_heads": 2},
    {"name": "multi-head", "n_heads": 4, "window": 5, "softcap": 5.0},
]
POSITIONS: list[dict[str, Any]] = [
    {"name": "cope", "n_positions": 5},
    {"name": "fire", "threshold": 4, "width": 6},
    {"name": "fire", "shared": True},
    {"name": "kerple"},
    {"name": "kerple", "form": "power", "shared": True},
    {"name": "pope"},
    {"name": "rotary"},
    {"name": "none"},
]
PAIRS = [
    pytest.param({"attention": attention, "position": position}, id=f"{i}-{attention['name']}-{position['name']}")
    for i, (attention, position) in enumerate((a, p) for a in ATTENTIONS for p in POSITIONS)
]
RWKV7 = {"name": "rwkv7", "n_heads": 2, "d_head": 6, "decay_rank": 3, "rate_rank": 4, "value_rank": 5, "gate_rank": 6}
OTHERS = [
    pytest.param({"block": {"name": "hyper-connections", "streams": 3}}, id="hyper-connections"),
    pytest.param({"block": {"name": "hyper-connections", "streams": 2, "dynamic": False}}, id="hyper-connections-static"),
    pytest.param({"block": "token-shift"}, id="token-shift"),
    pytest.param({"attention": RWKV7, "block": "token-shift", "position": "none"}, id="rwkv7"),
    pytest.param({"block": "skips", "n_layers": 5}, id="skips"),
    pytest.param({"embedding": {"name": "smear", "gate_features": 5}}, id="smear"),
    pytest.param({"norm": "dynamic-tanh"}, id="dynamic-tanh"),
]


def make(**parts: Any) -> gptkit.GPT:
    spec = {"d_model": 16, "n_layers": 2, "context_length": 32, "feedforward": {"name": "gated", "d_hidden": 8}, **parts}
    model = gptkit.GPT(spec, V)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model.eval().double()


def tokens(rows: int, length: int) -> torch.Tensor:
    return torch.randint(V, (rows, length), generator=torch.Generator().manual_seed(0))


def same(one: torch.Tensor, other: torch.Tensor) -> None:
    torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("parts", [*PAIRS, *OTHERS])
@torch.no_grad()
def test_no_future_leak_and_caches_padding_and_documents(parts: dict[str, Any]) -> None:
    model = make(**parts)
    ids = tokens(2, 16)
    full = model(ids).logits
    assert full is not None
    assert full.isfinite().all()

    changed = ids.clone()
    changed[:, 10:] = (changed[:, 10:] + 1) % V
    other = model(changed).logits
    same(other[:, :10], full[:, :10])
    assert not torch.allclose(other[:, 10:], full[:, 10:], atol=1e-6)

    cache, at = model.new_cache(2), 0
    for piece in (6, 1, 1, 4, 1, 1, 1, 1):
        step = model(ids[:, at : at + piece], cache=cache).logits
        same(step, full[:, at : at + piece])
        at += piece

    padding = 3
    alone = model(ids[1:, : 16 - padding]).logits
    padded = torch.cat((torch.zeros(1, padding, dtype=torch.long), ids[1:, : 16 - padding]), dim=1)
    batch, starts = torch.cat((ids[:1], padded)), torch.tensor([0, padding])
    together = model(batch, left_padding_B=starts).logits
    same(together[1, padding:], alone[0])
    same(together[0], full[0])
    cache = model.new_cache(2, left_padding_B=starts)
    model(batch[:, :10], cache=cache)
    for at in range(10, 16):
        same(model(batch[:, at : at + 1], cache=cache).logits[:, 0], together[:, at])

    documents = torch.tensor([[0] * 9 + [1] * 7, [4] * 3 + [2] * 9 + [7] * 4])
    packed = model(ids, documents_BT=documents).logits
    for row, (begin, end) in ((0, (0, 9)), (0, (9, 16)), (1, (0, 3)), (1, (3, 12)), (1, (12, 16))):
        same(packed[row, begin:end], model(ids[row : row + 1, begin:end]).logits[0])


@pytest.mark.parametrize("parts", [*PAIRS[::3], *OTHERS])
def test_gradients_reach_every_parameter(parts: dict[str, Any]) -> None:
    model = make(**parts).train()
    ids = tokens(2, 16)
    loss = model(ids[:, :-1], ids[:, 1:]).loss
    assert loss is not None
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        # A position past the last that was counted, or past the threshold, has no share in this text. A constant, which is
        # all that the last bias of FIRE's network adds to the scores, does not change the softmax.
        without = (".stretch", "position.table.weight", "position.outer.bias")
        assert parameter.grad.abs().sum() > 0 or name.endswith(without), name


@pytest.mark.parametrize("attention", ATTENTIONS[:6])
@torch.no_grad()
def test_a_cache_rolls_back_and_reorders(attention: dict[str, Any]) -> None:
    model = make(attention=attention, position="rotary")
    ids = tokens(3, 20)
    cache = model.new_cache(3)
    model(ids[:, :12], cache=cache)
    model(ids[:, :3], cache=cache)
    cache.truncate(12)
    cache.reorder([2, 0])
    same(model(ids[[2, 0], 12:13], cache=cache).logits[:, -1], model(ids[[2, 0], :13]).logits[:, -1])


@pytest.mark.parametrize("attention", ATTENTIONS[:6])
@torch.no_grad()
def test_asking_for_the_weights_changes_nothing(attention: dict[str, Any]) -> None:
    model = make(attention=attention, position="kerple")
    ids = tokens(2, 9)
    out = model(ids, keep_weights=True)
    same(out.logits, model(ids).logits)
    assert out.weights is not None
    assert list(out.weights) == [(0, 0), (1, 0)]
    assert [tuple(weights.shape) for weights in out.weights.values()] == [(2, attention["n_heads"], 9, 9)] * 2


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"attention": {"name": "forgetting", "n_heads": 5}}, "cannot be split into 5 heads;"),
        ({"attention": {"name": "value-residual", "n_heads": 4, "n_kv_heads": 3}}, "is not a multiple of n_kv_heads 3"),
        (
            {"attention": {"name": "forgetting", "n_heads": 2, "d_head": 3}, "position": "rotary"},
            "'rotary' cannot use these heads",
        ),
    ],
)
def test_errors_are_reported_when_the_spec_is_read(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(gptkit.SpecError, match=message):
        make(**fields)


def test_every_component_is_documented_with_formula_and_paper() -> None:
    registry = gptkit.default_registry()
    kinds = ("attention", "position", "norm", "block", "embedding")
    result = [registry.component(kind, name) for kind in kinds for name in registry.names(kind)]
    specs = [spec for spec in result if spec.__module__.startswith("gptkit_research.")]
    assert len(specs) == 17
    for spec in specs:
        assert all(section in (spec.__doc__ or "") for section in ("Formula:", "Shapes:", "Paper:\n")), spec
