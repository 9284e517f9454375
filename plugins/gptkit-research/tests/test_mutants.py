"""Components with one error each: the conformance kit finds it, and the correct component passes the same check."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import pytest
import torch
from gptkit_research.attention_residuals import AttentionResiduals, AttentionResidualsSpec
from torch import Tensor

from gptkit.core.component import Component
from gptkit.kinds.context import BuildContext
from gptkit.testing import run_checks


def become(made: Any, cls: type) -> Any:
    made.__class__ = cls
    return made


class WeighsByFollowingTokens(AttentionResidualsSpec):
    """Weigh sources by the mean over tokens."""

    class Runtime(AttentionResiduals):
        def attend(self, sources: tuple[Tensor, ...], query_E: Tensor) -> Tensor:
            scores = torch.stack([(source @ query_E).mean(dim=1, keepdim=True) for source in sources])
            return (scores.softmax(dim=0)[..., None] * torch.stack(sources)).sum(dim=0)

    name: Literal["weighs-by-following-tokens"] = "weighs-by-following-tokens"  # type: ignore[assignment]
    caught_by: ClassVar[str] = "no-future-leak"

    def build(self, context: BuildContext) -> Any:
        return become(super().build(context), self.Runtime)


class WeighsByOtherRows(AttentionResidualsSpec):
    """Weigh sources by the mean over rows."""

    class Runtime(AttentionResiduals):
        def attend(self, sources: tuple[Tensor, ...], query_E: Tensor) -> Tensor:
            scores = torch.stack([(source @ query_E).mean(dim=0, keepdim=True) for source in sources])
            return (scores.softmax(dim=0)[..., None] * torch.stack(sources)).sum(dim=0)

    name: Literal["weighs-by-other-rows"] = "weighs-by-other-rows"  # type: ignore[assignment]
    caught_by: ClassVar[str] = "rows-are-independent"

    def build(self, context: BuildContext) -> Any:
        return become(super().build(context), self.Runtime)


class IgnoresItsQueries(AttentionResidualsSpec):
    """Return the plain mean of the sources."""

    class Runtime(AttentionResiduals):
        def attend(self, sources: tuple[Tensor, ...], query_E: Tensor) -> Tensor:
            return torch.stack(sources).mean(dim=0)

    name: Literal["ignores-its-queries"] = "ignores-its-queries"  # type: ignore[assignment]
    caught_by: ClassVar[str] = "gradients"

    def build(self, context: BuildContext) -> Any:
        return become(super().build(context), self.Runtime)


MUTANTS: list[tuple[type[Component], type[Component]]] = [
    *((cls, AttentionResidualsSpec) for cls in (WeighsByFollowingTokens, WeighsByOtherRows, IgnoresItsQueries)),
]


@pytest.mark.parametrize(("wrong", "right"), MUTANTS, ids=lambda cls: cls.__name__)
def test_mutant_is_caught(wrong: Any, right: Any) -> None:
    for cls, is_right in ((wrong, False), (right, True)):
        (result,) = run_checks(cls(name=cls.component_name()), only=[wrong.caught_by])
        assert result.ok == is_right, result.message
