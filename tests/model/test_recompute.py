"""Activation checkpointing: gradients equal those without it, for every attention × position pair and every component."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from gptkit.core.errors import GptkitError, StateError
from gptkit.core.registry import default_registry
from gptkit.kinds.block import BlockSpec
from gptkit.kinds.context import BuildContext
from gptkit.model.gpt import GPT
from gptkit.model.plan import plan
from gptkit.nn.block import Block
from gptkit.nn.exchange import check_declarations
from gptkit.nn.forward import Forward
from tests.model.test_pairs import V, component, ids, pairs, variants

PLUGIN = Path(__file__).parents[2] / "plugins" / "gptkit-research"


@pytest.fixture(scope="module", autouse=True)
def research() -> Iterator[None]:
    sys.path.insert(0, str(PLUGIN))
    yield
    sys.path.remove(str(PLUGIN))


def model(**parts: Any) -> GPT:
    spec = {"d_model": 32, "n_layers": 3, "context_length": 40, "feedforward": {"name": "mlp", "d_hidden": 24}, **parts}
    built = GPT(spec, V)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return built.double().train()


def gradients(built: GPT, recompute: Any, **call: Any) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    built.recompute = recompute
    built.zero_grad()
    torch.manual_seed(5)
    out = built(ids(2, 20), ids(2, 20, seed=1), **call)
    out.loss.backward()
    found = {name: p.grad.clone() for name, p in built.named_parameters() if p.grad is not None}
    return {**found, "loss": out.loss.detach()}, {name: loss.detach() for name, loss in out.losses.items()}


def assert_recomputes(built: GPT, **call: Any) -> None:
    plain, plain_losses = gradients(built, "none", **call)
    again, again_losses = gradients(built, "blocks", **call)
    assert plain.keys() == again.keys()
    assert plain_losses == again_losses
    largest = max(float(gradient.abs().max()) for gradient in plain.values())
    for name, gradient in plain.items():
        error = float((again[name] - gradient).abs().max())
        assert error <= 1e-6 * largest, f"{name}: {error:.3g} of {largest:.3g}"


@pytest.mark.parametrize(("attention", "position"), pairs())
def test_every_pair_has_equal_gradients(attention: dict[str, Any], position: dict[str, Any]) -> None:
    uses, accepts = component("position", position).uses - {"embed"}, component("attention", attention).accepts
    if not uses <= accepts:
        pytest.skip("the attention does not accept this position")
    built = model(attention=attention, position=position)
    assert_recomputes(built)
    assert_recomputes(built, documents_BT=torch.tensor([[0] * 9 + [1] * 11, [4] * 4 + [2] * 16]))


OTHERS: list[dict[str, Any]] = [
    *({"block": {"name": name}} for name in default_registry().names("block")),
    *({"norm": {"name": name}} for name in default_registry().names("norm")),
    *({"feedforward": variant} for variant in variants("feedforward")),
    *(
        {"feedforward": {"name": "experts", "n_experts": 4, "expert": {"name": "mlp", "d_hidden": 8}, "router": router}}
        for router in variants("router")
    ),
    {
        "block": {"name": "pre-norm", "dropout": 0.3},
        "attention": {"name": "multi-head", "n_heads": 4, "dropout": 0.2},
        "embedding": {"name": "token", "dropout": 0.1},
    },
]


@pytest.mark.parametrize("parts", OTHERS, ids=str)
def test_every_other_part_has_equal_gradients(parts: dict[str, Any]) -> None:
    assert_recomputes(model(**parts))


def research_parts() -> list[tuple[str, dict[str, Any]]]:
    sys.path.insert(0, str(PLUGIN))
    from gptkit_research.plugin import gptkit_components

    sys.path.remove(str(PLUGIN))
    found: list[tuple[str, dict[str, Any]]] = []
    for cls in gptkit_components():
        for example in cls.examples or ({},):
            spec = cls.model_validate({"name": cls.component_name(), **example})
            found.append((f"{spec.kind}-{spec.name}-{example}", {spec.kind: spec}))
    return found


@pytest.mark.parametrize("parts", [pytest.param(parts, id=label) for label, parts in research_parts()])
def test_every_research_component_has_equal_gradients(parts: dict[str, Any]) -> None:
    assert_recomputes(model(**parts))


class TwoLossesSpec(BlockSpec):
    """A block that publishes its output, reads that of the first, and adds losses of one name: for tests."""

    name: str = "two-losses"

    def build(self, context: BuildContext) -> Block:
        return TwoLosses(context)


class TwoLosses(Block):
    def __init__(self, context: BuildContext) -> None:
        super().__init__()
        self.first = context.parts.index == 0
        self.publishes = (("two-losses", context.parts.index),)
        self.reads = () if self.first else (("two-losses", 0),)
        self.inner = nn.Linear(context.d_model, context.d_model)

    def forward(self, x_BTE: torch.Tensor, forward: Forward) -> torch.Tensor:
        y_BTE = torch.tanh(self.inner(x_BTE))
        forward.publish(self, self.publishes[0], y_BTE)
        forward.add_loss("size", y_BTE.square().mean())
        if self.first:
            assert forward.carried("count") is None
            forward.carry("count", y_BTE)
            return x_BTE + y_BTE
        carried = forward.carried("count")
        assert carried is not None
        forward.carry("count", carried + y_BTE)
        return x_BTE + forward.read(self, ("two-losses", 0)) * carried


def test_published_carried_and_added_values_reach_the_gradients_once() -> None:
    assert_recomputes(model(block=TwoLossesSpec()))


def test_context_rejects_undeclared_missing_and_duplicate_values() -> None:
    built = model(block=TwoLossesSpec())
    first, second = built.blocks[0], built.blocks[1]
    x_BTE = torch.zeros(1, 4, 32, dtype=torch.float64)
    forward = Forward(ids(1, 4))
    with pytest.raises(StateError, match="does not declare 'other'"):
        forward.publish(first, "other", 1)
    with pytest.raises(StateError, match="no earlier module published"):
        forward.read(second, ("two-losses", 0))
    first(x_BTE, forward)
    with pytest.raises(StateError, match="a second time"):
        first(x_BTE, forward)
    first.publishes = ()
    with pytest.raises(GptkitError, match=r"blocks\.1 .*TwoLosses.* reads .*which no module before it publishes"):
        check_declarations(built)
    second.publishes = (("two-losses", 2),)
    first.publishes = (("two-losses", 0),)
    with pytest.raises(GptkitError, match="both publish"):
        check_declarations(built)


def test_carried_value_reaches_the_next_block_only() -> None:
    forward = Forward(ids(1, 4))
    forward.carry("streams", 1)
    assert forward.carried("streams") is None
    with pytest.raises(StateError, match="twice"):
        forward.carry("streams", 2)
    forward.next_block()
    assert forward.carried("streams") == 1
    forward.next_block()
    assert forward.carried("streams") is None


def test_recomputation_saves_memory_and_does_not_change_generation() -> None:
    built = model(n_layers=6)

    def kept(recompute: Any) -> int:
        built.recompute = recompute
        sizes: dict[int, int] = {}
        held = []

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            held.append(tensor)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            built(ids(2, 20), ids(2, 20, seed=1))
        return sum(sizes.values())

    assert kept("blocks") < kept("none") / 2
    spec = built.spec
    assert plan(spec, V, recompute="blocks").activation_bytes < plan(spec, V).activation_bytes / 2
    built.eval()
    with torch.no_grad():
        cached = built(ids(2, 5), cache=built.new_cache(2)).logits
        torch.testing.assert_close(cached, built(ids(2, 5)).logits)


def test_recomputed_training_step_compiles_as_one_graph() -> None:
    built = model(attention={"name": "multi-head", "n_heads": 2}, position="t5-bias").float()
    expected, _ = gradients(built, "none")
    built.zero_grad()
    built.recompute = "blocks"
    loss = torch.compile(built, backend="aot_eager", fullgraph=True)(ids(2, 20), ids(2, 20, seed=1)).loss
    loss.backward()
    for name, parameter in built.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], atol=1e-5, rtol=1e-4)
