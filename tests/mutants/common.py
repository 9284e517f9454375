"""Specs with one thing wrong, whatever the kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from mutants.mutant import Mutant
from pydantic import ConfigDict, Field, field_serializer

from gptkit.components.schedule.constant import ConstantSpec
from gptkit.components.schedule.cosine import CosineSpec


class Undocumented(Mutant, ConstantSpec):
    __doc__ = None
    name: Literal["undocumented"] = "undocumented"
    caught_by = "documented"


class NoSentence(Mutant, ConstantSpec):
    """the constant rate without a full stop"""

    name: Literal["no-sentence"] = "no-sentence"
    caught_by = "documented"


class UndocumentedField(Mutant, ConstantSpec):
    """Has a field that nobody knows the meaning of."""

    name: Literal["undocumented-field"] = "undocumented-field"
    floor: float = Field(0.0, ge=0)
    caught_by = "documented"


class OddName(Mutant, ConstantSpec):
    """Has a name that no spec file should have to spell."""

    name: Literal["Odd Name"] = "Odd Name"
    caught_by = "named"


class TakenName(Mutant, ConstantSpec):
    """Takes the name of a component that is built in."""

    name: Literal["cosine"] = "cosine"
    caught_by = "named"


class NeedsAValue(Mutant, ConstantSpec):
    """Has a field without a default, and no example."""

    name: Literal["needs-a-value"] = "needs-a-value"
    level: float = Field(ge=0, description="The share of the peak rate.")
    caught_by = "constructible"


class BadExample(Mutant, ConstantSpec):
    """Has an example that it refuses itself."""

    name: Literal["bad-example"] = "bad-example"
    examples: ClassVar[tuple[Mapping[str, Any], ...]] = ({"warmup_steps": -1},)
    caught_by = "constructible"


class RoundsWhenWritten(Mutant, CosineSpec):
    """Written down, a number loses its digits."""

    name: Literal["rounds-when-written"] = "rounds-when-written"
    floor: float = Field(0.123456, description="A number with many digits.")
    caught_by = "round-trip"

    @field_serializer("floor")
    def _rounded(self, value: float) -> float:
        return round(value, 2)


class TakesAnything(Mutant, ConstantSpec):
    """Swallows fields that it does not know."""

    model_config = ConfigDict(extra="ignore")
    name: Literal["takes-anything"] = "takes-anything"
    caught_by = "frozen"


class CanBeChanged(Mutant, ConstantSpec):
    """Its fields can be set."""

    model_config = ConfigDict(frozen=False)
    name: Literal["can-be-changed"] = "can-be-changed"
    caught_by = "frozen"
