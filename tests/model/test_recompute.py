"""Activation checkpointing: gradients equal those without it, for every attention × position pair and every component.

Components of gptkit and of the distributions under plugins/ are combined with each other.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

import gptkit
from gptkit.core.errors import GptkitError, SpecError, StateError
from gptkit.core.registry import default_registry
from gptkit.kinds.block import BlockSpec
from gptkit.kinds.context import BuildContext
from gptkit.model.plan import plan
from gptkit.nn.block import Block, outermost_blocks
from gptkit.nn.exchange import check_declarations
from gptkit.nn.forward import Forward
from gptkit.testing.subject import Subject
from tests.support.model_parts import ELSEWHERE, IN_THE_MODEL, MODULES, OTHERS, PLUGINS, REGISTRY, plugin_components
from tests.support.nested_components import AttendingHeadSpec
from tests.support.pairs import V, ids, pairs
from tests.support.recomputation import assert_recomputes, gradients, model, moved


@pytest.fixture(scope="module", autouse=True)
def plugins() -> Iterator[None]:
    directories = [str(PLUGINS / name.replace("_", "-")) for name in MODULES]
    sys.path[:0] = directories
    yield
    for directory in directories:
        sys.path.remove(directory)


@pytest.mark.parametrize(
    ("attention", "position"),
    [
        pytest.param(*pair.values, marks=pytest.mark.slow if number % 3 == 0 else pytest.mark.nightly, id=pair.id)
        for number, pair in enumerate(pairs(REGISTRY))
    ],
)
def test_every_pair_has_equal_gradients(attention: dict[str, Any], position: dict[str, Any]) -> None:
    try:
        built = model(attention=attention, position=position, n_layers=2)
    except SpecError as error:
        pytest.skip(f"declared: {error.message}")
    assert_recomputes(built)
    assert_recomputes(built, documents_BT=torch.tensor([[0] * 9 + [1] * 11, [4] * 4 + [2] * 16]))


@pytest.mark.parametrize("parts", OTHERS, ids=str)
def test_every_other_part_has_equal_gradients(parts: dict[str, Any]) -> None:
    assert_recomputes(model(**parts))


def test_every_distribution_under_plugins_is_tested() -> None:
    names = {directory.name.replace("-", "_") for directory in PLUGINS.iterdir() if (directory / "pyproject.toml").is_file()}
    assert names - set(MODULES) <= {"gptkit_lm_eval"}  # which registers no component
    kinds = {cls.kind for module in MODULES.values() for cls in module.gptkit_components()}
    assert kinds <= IN_THE_MODEL | ELSEWHERE
    assert set(default_registry().kinds()) == IN_THE_MODEL | ELSEWHERE


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Train a run with the vocabulary of these tests, for distillation heads."""
    spec = {"d_model": 16, "n_layers": 1, "context_length": 48, "attention": {"n_heads": 2}, "vocab_size": V}
    tokenizer = gptkit.open_spec({"tokenizer": "char", "model": spec}).spec.tokenizer.fit(iter(["abcdefghijklmnopqrst"]))
    directory = tmp_path_factory.mktemp("runs") / "teacher"
    return str(gptkit.save_run(directory, gptkit.GPT(spec), tokenizer, {"tokenizer": "char", "model": spec}))


@pytest.mark.parametrize(("cls", "fields"), plugin_components())
def test_every_component_of_the_plugins_has_equal_gradients(cls: Any, fields: dict[str, Any], teacher: str) -> None:
    if cls.kind in ELSEWHERE:
        pytest.skip("it has no part in a training step's graph")
    if "teacher" in fields:
        fields = {**fields, "teacher": teacher}
    subject = Subject(cls.model_validate({"name": cls.component_name(), **fields}, context={"registry": REGISTRY}), REGISTRY)
    for companion in subject.companions():
        assert_recomputes(moved(subject.make(companion, vocab_size=V)))


class TwoLossesSpec(BlockSpec):
    """Block that publishes its output, reads that of the first block, and adds losses of one name."""

    name: str = "two-losses"

    def build(self, context: BuildContext) -> Block:
        return TwoLosses(context)


class TwoLosses(Block):
    def __init__(self, context: BuildContext) -> None:
        super().__init__()
        self.first = context.parts.index == 0
        self.publishes = (("two-losses", context.parts.index),)
        self.reads = () if self.first else (("two-losses", 0),)
        self.carries = ("count",)
        self.inner = nn.Linear(context.d_model, context.d_model)

    def forward(self, x_BTE: torch.Tensor, forward: Forward) -> torch.Tensor:
        y_BTE = torch.tanh(self.inner(x_BTE))
        forward.publish(self, self.publishes[0], y_BTE)
        forward.add_loss("size", y_BTE.square().mean())
        if self.first:
            assert forward.carried(self, "count") is None
            forward.carry(self, "count", y_BTE)
            return x_BTE + y_BTE
        carried = forward.carried(self, "count")
        assert carried is not None
        forward.carry(self, "count", carried + y_BTE)
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
    with pytest.raises(GptkitError, match=r"blocks\.1 .*TwoLosses.* reads .*which no earlier module publishes"):
        check_declarations(built)
    second.publishes = (("two-losses", 2),)
    first.publishes = (("two-losses", 0),)
    with pytest.raises(GptkitError, match="both publish"):
        check_declarations(built)


class CountingSpec(BlockSpec):
    """Block that counts the preceding blocks of its kind in a carried value."""

    name: str = "counting"

    def build(self, context: BuildContext) -> Block:
        return Counting(context)


class Counting(Block):
    carries = ("count",)

    def __init__(self, context: BuildContext) -> None:
        super().__init__()
        self.inner = nn.Linear(context.d_model, context.d_model)

    def forward(self, x_BTE: torch.Tensor, forward: Forward) -> torch.Tensor:
        count = forward.carried(self, "count")
        count = torch.zeros_like(x_BTE) if count is None else count
        forward.carry(self, "count", count + 1)
        return x_BTE + count * self.inner(x_BTE)


class Twice(Block):
    """Block that calls a block twice and carries no values."""

    def __init__(self, inner: Block) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x_BTE: torch.Tensor, forward: Forward) -> torch.Tensor:
        return self.inner(self.inner(x_BTE, forward), forward)


@pytest.mark.parametrize("recomputes", [False, True])
def test_a_carried_value_accompanies_the_vectors_that_a_block_returned(recomputes: bool) -> None:
    context = BuildContext(8, 16, 1)
    one, two = Counting(context), Counting(context)
    received: list[float | None] = []

    def record(block: nn.Module, args: tuple[torch.Tensor, Forward]) -> None:
        value = args[1].carried(block, "count")
        received.append(None if value is None else float(value[0, 0, 0]))

    for block in (one, two):
        block.register_forward_pre_hook(record)
    forward = Forward(ids(1, 4), recomputes=recomputes)
    x_BTE = torch.zeros(1, 4, 8, requires_grad=True)
    y_BTE = one(x_BTE, forward)
    z_BTE = two(y_BTE, forward)
    assert received == [None, 1]
    one(z_BTE + 0, forward)  # other vectors: a norm, a projection
    one(y_BTE, forward)  # those of an earlier block, which another call has replaced since
    assert received == [None, 1, None, None]
    # Carried through a block that calls others: in, between calls, and out.
    two(Twice(one)(one(x_BTE, forward), forward), forward)
    assert received[4:] == [None, 1, 2, 3]


def test_a_carried_value_is_declared_and_written_once_within_a_block() -> None:
    block, forward = Counting(BuildContext(8, 16, 1)), Forward(ids(1, 4))
    with pytest.raises(StateError, match="outside of a block"):
        forward.carry(block, "count", 1)
    for call, message in (
        (lambda: forward.carry(block, "other", 1), "does not declare 'other' in its attribute 'carries'"),
        (lambda: forward.carried(block, "other"), "does not declare 'other' in its attribute 'carries'"),
        (lambda: forward.carry(block, "count", 1), "carries 'count' twice"),
    ):
        forward.begin_block(torch.zeros(1, 4, 8))
        forward.carry(block, "count", 0)
        with pytest.raises(StateError, match=message):
            call()
    block.carries = "count"  # type: ignore[assignment]
    with pytest.raises(GptkitError, match="'carries' is not a tuple of keys"):
        check_declarations(nn.Sequential(block))


@pytest.mark.parametrize(
    "parts",
    [
        {"head": AttendingHeadSpec()},
        {"head": AttendingHeadSpec(), "block": CountingSpec(), "final_norm": None},
        {"head": {"name": "multi-token", "depth": 2, "block": CountingSpec()}, "block": CountingSpec()},
        {"head": {"name": "multi-token", "depth": 2}, "position": "t5-bias"},
    ],
    ids=["attending", "attending-carried", "multi-token-carried", "multi-token-t5"],
)
def test_blocks_of_a_head_are_recomputed(parts: dict[str, Any]) -> None:
    built = model(**parts)
    assert_recomputes(built)
    runs: dict[int, int] = {}

    def count(block: nn.Module, args: Any) -> None:
        runs[id(block)] = runs.get(id(block), 0) + 1

    blocks = list(outermost_blocks(built))
    assert len(blocks) > len(built.blocks)
    for block in blocks:
        block.register_forward_pre_hook(count)
    gradients(built, "blocks")
    assert list(runs.values()) == [2] * len(blocks)


def test_a_block_within_a_block_is_recomputed_with_it() -> None:
    built = model(block=CountingSpec(), n_layers=2)
    built.blocks[0] = Twice(built.blocks[0])  # type: ignore[arg-type]
    assert_recomputes(built)
    assert len(list(outermost_blocks(built))) == 2


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


@pytest.mark.slow
def test_recomputed_training_step_compiles_as_one_graph() -> None:
    built = model(attention={"name": "multi-head", "n_heads": 2}, position="t5-bias").float()
    expected, _ = gradients(built, "none")
    built.zero_grad()
    built.recompute = "blocks"
    loss = torch.compile(built, backend="aot_eager", fullgraph=True)(ids(2, 20), ids(2, 20, seed=1)).loss
    loss.backward()
    for name, parameter in built.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], atol=1e-5, rtol=1e-4)
