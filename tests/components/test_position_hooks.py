"""A position that declares a hook and does not define it is an error that names both."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import pytest
from torch import Tensor

from gptkit.core.errors import GptkitError
from gptkit.kinds.context import BuildContext
from gptkit.kinds.position import HeadShape, PositionSpec
from gptkit.model.gpt import GPT
from gptkit.nn.position import Position


class Forgetful(Position):
    """Rotates, and has no bias."""

    def rotate(self, q_BHTD: Tensor, k_BKTD: Tensor, prepared: Any) -> tuple[Tensor, Tensor]:
        return q_BHTD, k_BKTD


class ForgetfulSpec(PositionSpec):
    name: Literal["forgetful"] = "forgetful"
    uses: ClassVar[frozenset[str]] = frozenset({"rotate", "bias"})

    def build(self, context: BuildContext, *, heads: HeadShape) -> Position:
        return Forgetful()


class UnscoredSpec(ForgetfulSpec):
    name: Literal["unscored"] = "unscored"  # type: ignore[assignment]
    uses: ClassVar[frozenset[str]] = frozenset({"rotate"})
    score_function: ClassVar[bool] = True


class UnbuiltSpec(PositionSpec):
    name: Literal["unbuilt"] = "unbuilt"
    uses: ClassVar[frozenset[str]] = frozenset({"bias"})


class UnbuiltAbsoluteSpec(PositionSpec):
    name: Literal["unbuilt-absolute"] = "unbuilt-absolute"
    uses: ClassVar[frozenset[str]] = frozenset({"embed"})


class WithoutEmbedSpec(UnbuiltAbsoluteSpec):
    name: Literal["without-embed"] = "without-embed"  # type: ignore[assignment]

    def build_embedding(self, context: BuildContext) -> Position:
        return Forgetful()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (ForgetfulSpec(), r"position 'forgetful' declares 'bias' \(in 'uses'\), but Forgetful does not define bias"),
        (
            UnscoredSpec(),
            r"'unscored' declares 'score_mod' \(in 'score_function'\), but Forgetful does not define score_mod",
        ),
        (UnbuiltSpec(), r"position 'unbuilt' declares 'bias' \(in 'uses'\), but UnbuiltSpec does not define build"),
        (UnbuiltAbsoluteSpec(), r"declares 'embed' \(in 'uses'\), but UnbuiltAbsoluteSpec does not define build_embedding"),
        (
            WithoutEmbedSpec(),
            r"position 'without-embed' declares 'embed' \(in 'uses'\), but Forgetful does not define embed",
        ),
    ],
)
def test_declared_hook_without_a_definition_is_refused(spec: PositionSpec, message: str) -> None:
    with pytest.raises(GptkitError, match=message):
        GPT({"d_model": 16, "n_layers": 1, "attention": {"name": "multi-head", "n_heads": 2}, "position": spec}, 31)
