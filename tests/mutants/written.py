"""Components that are written out with one error each."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from gptkit.components.norm.rms import RMSNormSpec
from gptkit.kinds.written import Name, Setting, WritingContext, Written
from tests.mutants.mutant import Mutant


class WritesAnotherConstant(Mutant, RMSNormSpec):
    """Write a constant that is not the spec's."""

    name: Literal["writes-another-constant"] = "writes-another-constant"
    caught_by = "written-equals-built"
    also = ("written-options-equal-built",)

    def written(self, context: WritingContext, *, dim: Name) -> Written:
        right = super().written(context, dim=dim)
        return replace(right, settings={**right.settings, "NORM_EPS": Setting(0.1)})


class WritesOtherNames(Mutant, RMSNormSpec):
    """Write a parameter with another name than the built module's."""

    name: Literal["writes-other-names"] = "writes-other-names"
    caught_by = "written-equals-built"

    def written(self, context: WritingContext, *, dim: Name) -> Written:
        right = super().written(context, dim=dim)
        return Written(right.name, right.text.replace("self.weight", "self.gain"), settings=right.settings, section="norm")


class IgnoresAnOption(Mutant, RMSNormSpec):
    """State a field that the template ignores."""

    name: Literal["ignores-an-option"] = "ignores-an-option"
    caught_by = "written-options-equal-built"

    def written(self, context: WritingContext, *, dim: Name) -> Written:
        return RMSNormSpec(eps=self.eps, scale=self.scale, cast=self.cast).written(context, dim=dim)
