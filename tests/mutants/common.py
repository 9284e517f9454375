"""Specs of any kind with one error each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, Field, field_serializer

from gptkit.components.norm.rms import RMSNormSpec
from gptkit.components.schedule.constant import ConstantSpec
from gptkit.components.schedule.cosine import CosineSpec
from tests.mutants.mutant import Mutant


class Undocumented(Mutant, ConstantSpec):
    __doc__ = None
    name: Literal["undocumented"] = "undocumented"
    caught_by = "documented"


class NoSentence(Mutant, ConstantSpec):
    """the constant rate without a full stop"""

    name: Literal["no-sentence"] = "no-sentence"
    caught_by = "documented"


class UndocumentedField(Mutant, ConstantSpec):
    """Component with an undocumented field."""

    name: Literal["undocumented-field"] = "undocumented-field"
    floor: float = Field(0.0, ge=0)
    caught_by = "documented"


class OddName(Mutant, ConstantSpec):
    """Component with an invalid name."""

    name: Literal["Odd Name"] = "Odd Name"
    caught_by = "named"


class TakenName(Mutant, ConstantSpec):
    """Component with the name of a built-in one."""

    name: Literal["cosine"] = "cosine"
    caught_by = "named"


class NeedsAValue(Mutant, ConstantSpec):
    """Component with a required field and without examples."""

    name: Literal["needs-a-value"] = "needs-a-value"
    level: float = Field(ge=0, description="The share of the peak rate.")
    caught_by = "constructible"


class BadExample(Mutant, ConstantSpec):
    """Component with an invalid example."""

    name: Literal["bad-example"] = "bad-example"
    examples: ClassVar[tuple[Mapping[str, Any], ...]] = ({"warmup_steps": -1},)
    caught_by = "constructible"


class RoundsWhenWritten(Mutant, CosineSpec):
    """Round a number when it is serialized."""

    name: Literal["rounds-when-written"] = "rounds-when-written"
    floor: float = Field(0.123456, description="A number with many digits.")
    caught_by = "round-trip"

    @field_serializer("floor")
    def _rounded(self, value: float) -> float:
        return round(value, 2)


class TakesAnything(Mutant, ConstantSpec):
    """Accept unknown fields."""

    model_config = ConfigDict(extra="ignore")
    name: Literal["takes-anything"] = "takes-anything"
    caught_by = "frozen"


class CanBeChanged(Mutant, ConstantSpec):
    """Component with mutable fields."""

    model_config = ConfigDict(frozen=False)
    name: Literal["can-be-changed"] = "can-be-changed"
    caught_by = "frozen"


class HoldsAList(Mutant, ConstantSpec):
    """Field with a list, which can be changed."""

    name: Literal["holds-a-list"] = "holds-a-list"
    steps: list[int] = Field([1, 2], description="A list of steps.")
    caught_by = "frozen"


class CannotBeAKey(Mutant, RMSNormSpec):
    """Part of a model with a mapping, which cannot be hashed."""

    name: Literal["cannot-be-a-key"] = "cannot-be-a-key"
    sizes: dict[str, int] = Field({"a": 1}, description="A mapping of sizes.")
    caught_by = "frozen"
