"""Activation checkpointing: gradients equal those without it, for every attention × position pair and every component.

Components of gptkit and of the distributions under plugins/ are combined with each other.
"""

from __future__ import annotations

import importlib
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

import gptkit
from gptkit.core.errors import GptkitError, SpecError, StateError
from gptkit.core.registry import Registry, default_registry
from gptkit.files import validate_data
from gptkit.kinds.block import BlockSpec
from gptkit.kinds.context import BuildContext
from gptkit.model.gpt import GPT
from gptkit.model.plan import plan
from gptkit.model.spec import ModelSpec
from gptkit.nn.block import Block, outermost_blocks
from gptkit.nn.exchange import check_declarations
from gptkit.nn.forward import Forward
from gptkit.testing.subject import Subject
from tests.model.test_nested_components import AttendingHeadSpec
from tests.model.test_pairs import V, ids, pairs, variants
from tests.support.plugin_registry import registry_of

PLUGINS = Path(__file__).parents[2] / "plugins"
IN_THE_MODEL = {
    *("attention", "position", "rotary-scaling", "block", "norm", "linear", "activation", "feedforward", "router"),
    *("embedding", "head"),
}
"""Kinds of which a model's modules are built."""
ELSEWHERE = {
    *("attention-backend", "initializer", "sampler", "tokenizer", "data", "optimizer", "schedule", "callback", "tracker"),
    *("family", "format", "engine", "precision", "drafter", "decoding"),
}
"""Kinds without a part in a training step's graph, or (backends) without one of their own."""


def plugin_modules() -> dict[str, ModuleType]:
    """Return the plugin module of every distribution under plugins/ that has one."""
    result = {}
    for project in sorted(PLUGINS.glob("*/pyproject.toml")):
        points = tomllib.loads(project.read_text())["project"].get("entry-points", {}).get("gptkit", {})
        sys.path.insert(0, str(project.parent))
        for module in points.values():
            result[project.parent.name.replace("-", "_")] = importlib.import_module(module)
        sys.path.remove(str(project.parent))
    return result


MODULES = plugin_modules()
REGISTRY: Registry = registry_of(**{name: lambda module=module: module for name, module in MODULES.items()})  # type: ignore[misc]


@pytest.fixture(scope="module", autouse=True)
def plugins() -> Iterator[None]:
    directories = [str(PLUGINS / name.replace("_", "-")) for name in MODULES]
    sys.path[:0] = directories
    yield
    for directory in directories:
        sys.path.remove(directory)


def model(**parts: Any) -> GPT:
    spec = {"d_model": 32, "n_layers": 3, "context_length": 40, "feedforward": {"name": "mlp", "d_hidden": 24}, **parts}
    return moved(GPT(validate_data(spec, ModelSpec, REGISTRY), V))


def moved(built: GPT) -> GPT:
    """Return the model in fp64 with weights that differ from their initial values."""
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
    result = {name: p.grad.clone() for name, p in built.named_parameters() if p.grad is not None}
    return {**result, "loss": out.loss.detach()}, {name: loss.detach() for name, loss in out.losses.items()}


def assert_recomputes(built: GPT, **call: Any) -> None:
    plain, plain_losses = gradients(built, "none", **call)
    again, again_losses = gradients(built, "blocks", **call)
    assert plain.keys() == again.keys()
    assert plain_losses == again_losses
    largest = max(float(gradient.abs().max()) for gradient in plain.values())
    for name, gradient in plain.items():
        error = float((again[name] - gradient).abs().max())
        assert error <= 1e-6 * largest, f"{name}: {error:.3g} of {largest:.3g}"


@pytest.mark.parametrize(("attention", "position"), pairs(REGISTRY))
def test_every_pair_has_equal_gradients(attention: dict[str, Any], position: dict[str, Any]) -> None:
    try:
        built = model(attention=attention, position=position, n_layers=2)
    except SpecError as error:
        pytest.skip(f"declared: {error.message}")
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


def plugin_components() -> list[Any]:
    result = []
    for distribution, module in MODULES.items():
        for cls in module.gptkit_components():
            for example in cls.examples or ({},):
                label = f"{distribution}-{cls.kind}-{cls.component_name()}-{example}"
                result.append(pytest.param(cls, dict(example), id=label.replace(" ", "")))
    return result


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


def test_recomputed_training_step_compiles_as_one_graph() -> None:
    built = model(attention={"name": "multi-head", "n_heads": 2}, position="t5-bias").float()
    expected, _ = gradients(built, "none")
    built.zero_grad()
    built.recompute = "blocks"
    loss = torch.compile(built, backend="aot_eager", fullgraph=True)(ids(2, 20), ids(2, 20, seed=1)).loss
    loss.backward()
    for name, parameter in built.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], atol=1e-5, rtol=1e-4)
