"""Components that require another part of the model, which the kit adds."""

from __future__ import annotations

from types import ModuleType
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gptkit import hookimpl
from gptkit.components.block.modules.pre_norm import PreNorm
from gptkit.components.block.pre_norm import PreNormSpec
from gptkit.kinds.context import BuildContext
from gptkit.kinds.head import HeadSpec
from gptkit.nn.embedding import Embedding
from gptkit.nn.forward import Forward
from gptkit.nn.head import IGNORED, Head
from gptkit.testing import run_checks
from tests.support.plugin_registry import registry_of


def key(index: int) -> tuple[str, int]:
    return ("publishing", index)


class Publishing(PreNorm):
    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        y_BTE = super().forward(x_BTE, forward)
        forward.publish(self, self.publishes[0], y_BTE)
        return y_BTE


class PublishingSpec(PreNormSpec):
    """Pre-norm block that publishes its output."""

    name: Literal["publishing"] = "publishing"  # type: ignore[assignment]

    def build(self, context: BuildContext) -> Any:
        made: Any = super().build(context)
        made.__class__ = Publishing
        made.publishes = (key(context.parts.index),)
        return made


class Supervised(Head):
    """Head whose training loss includes that of every layer."""

    def __init__(self, context: BuildContext) -> None:
        super().__init__()
        self.reads = tuple(key(index) for index in range(context.n_layers))
        self.weight = nn.Parameter(torch.empty(context.vocab_size, context.d_model))

    def initial(self) -> dict[str, Any]:
        return {"weight": "weight"}

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        return F.linear(x_BTE, self.weight)

    def loss(self, x_BTE: Tensor, targets_BT: Tensor, forward: Forward) -> Tensor:
        if self.training:
            for each in (each for each in self.reads if forward.published(each)):
                forward.add_loss("layers", 0.1 * self.cross_entropy(forward.read(self, each), targets_BT))
        return self.cross_entropy(x_BTE, targets_BT)

    def cross_entropy(self, x_BTE: Tensor, targets_BT: Tensor) -> Tensor:
        logits = F.linear(x_BTE, self.weight).float().flatten(0, -2)
        total = F.cross_entropy(logits, targets_BT.flatten(), ignore_index=IGNORED, reduction="sum")
        return total / (targets_BT != IGNORED).sum().clamp_min(1)


class UndeclaredSpec(HeadSpec):
    """Head with a loss of every layer, and without a block."""

    name: Literal["undeclared"] = "undeclared"

    def build(self, context: BuildContext, *, embedding: Embedding) -> Head:
        return Supervised(context)


class SupervisedSpec(UndeclaredSpec):
    """Head with a loss of every layer."""

    name: Literal["supervised"] = "supervised"  # type: ignore[assignment]
    checked_with: ClassVar[dict[str, Any]] = {"block": "publishing"}


PLUGIN: Any = ModuleType("layers")
PLUGIN.gptkit_components = hookimpl(lambda: [PublishingSpec, SupervisedSpec, UndeclaredSpec])
REGISTRY = registry_of(layers=lambda: PLUGIN)


def test_head_is_checked_with_the_block_that_it_reads() -> None:
    results = run_checks(SupervisedSpec(), registry=REGISTRY)
    assert {result.check.name: result.message for result in results if not result.ok} == {}
    assert sum(result.outcome == "passed" for result in results) > 30


def test_missing_block_is_reported_once() -> None:
    failed = [result for result in run_checks(UndeclaredSpec(), registry=REGISTRY) if not result.ok]
    assert len(failed) == 1
    assert failed[0].message.endswith('in the spec class: checked_with = {"block": "name-of-a-block"}')
    assert "which no earlier module publishes" in failed[0].message
