"""`SearchSpec`: the fields that a search varies, and the ranges of their values."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from gptkit.core.errors import GptkitError
from gptkit.core.spec import Spec
from gptkit.experiments.request import Match, parse_axis

__all__ = ["Range", "SearchSpec", "parse_range"]

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_RANGE = re.compile(rf"({_NUMBER})\.\.({_NUMBER})(?::(log|{_NUMBER}))?")


class Range(Spec):
    """The values of one field: those of a list, or numbers between two limits, which are included."""

    low: int | float | None = Field(None, description="The lowest value; whole if both limits are whole numbers.")
    high: int | float | None = Field(None, description="The highest value.")
    log: bool = Field(False, description="Draw the logarithm evenly, as suits rates; else the value.")
    step: int | float | None = Field(None, gt=0, description="Distance of two values.")
    values: tuple[Any, ...] = Field((), description="The values, in place of limits.")

    @model_validator(mode="after")
    def _check(self) -> Range:
        if self.values:
            if (self.low, self.high, self.step, self.log) != (None, None, None, False):
                raise ValueError("values are given, so low, high, step and log do not apply; remove them")
            if len(self.values) < 2 or any(value in self.values[:index] for index, value in enumerate(self.values)):
                raise ValueError("give at least two different values")
            return self
        if self.low is None or self.high is None:
            raise ValueError("give low and high, or values")
        if not self.low < self.high:
            raise ValueError(f"low is {self.low:g} and high {self.high:g}; low must be below high")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("a logarithmic range requires low above 0, and no step")
        if self.step is not None and self.is_whole and not isinstance(self.step, int):
            raise ValueError(f"step is {self.step:g}, but both limits are whole numbers; give a whole step")
        return self

    @property
    def is_whole(self) -> bool:
        """Whether the values are whole numbers between two limits."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def contains(self, value: Any) -> bool:
        """Return whether a value is one of the range."""
        if self.values:
            return value in self.values
        assert self.low is not None
        assert self.high is not None
        if isinstance(value, bool) or not isinstance(value, int if self.is_whole else (int, float)):
            return False
        if not self.low <= value <= self.high:
            return False
        steps = 0.0 if self.step is None else (value - self.low) / self.step
        return abs(steps - round(steps)) < 1e-9


class SearchSpec(Spec):
    """Search: settings of a spec that are proposed one after the other, from the results of the earlier ones."""

    base: str = Field(..., min_length=1, description="The spec file, or the name of a shipped spec.")
    ranges: dict[str, Range] = Field(..., min_length=1, description="The ranges of the varied fields, by dotted path.")
    set: dict[str, Any] = Field({}, description="Values by dotted path that all settings have.")
    trials: int = Field(20, ge=1, description="Number of proposed settings; the spec as it is comes on top.")
    seeds: int = Field(1, ge=1, description="Number of trainings of each setting; their mean is minimized.")
    match: Match | None = Field(None, description="Make all settings equal to the spec in this quantity, by their widths.")
    sampler: Literal["tpe", "random"] = Field(
        "tpe", description="How settings are proposed: tree-structured Parzen estimator, or at random."
    )
    seed: int = Field(0, ge=0, description="Seed of the proposals.")


def parse_range(text: str) -> tuple[str, Range]:
    """Parse ``training.optimizer.learning_rate=1e-4..1e-1:log``, ``model.n_layers=2..8`` or ``model.norm=rms,layer``.

    A number after the colon is a step: ``model.d_model=64..256:32``.

    Raises:
        GptkitError: the text is not of this form.
    """
    path, equals, value = text.partition("=")
    hint = "Write --range PATH=LOW..HIGH, PATH=LOW..HIGH:log, PATH=LOW..HIGH:STEP, or PATH=A,B."
    limits = _RANGE.fullmatch(value.strip())
    if not equals or not path.strip() or (limits is None and ".." in value):
        wanted = "expected a dotted path, = and a range"
        if equals and path.strip():
            wanted = "the limits of a range are numbers such as 1000, 0.5 or 1e-3, followed by :log or :STEP, if at all"
        raise GptkitError(f"--range {text}: {wanted}", hint=hint)
    try:
        if limits is None:
            return path.strip(), Range.model_validate({"values": parse_axis(text, "--range")[1]})
        low, high, kind = limits.groups()
        step = None if kind in (None, "log") else _number(kind)
        limited = {"low": _number(low), "high": _number(high), "log": kind == "log", "step": step}
        return path.strip(), Range.model_validate(limited)
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise GptkitError(f"--range {text}: {reason}", hint=hint) from None


def _number(text: str) -> int | float:
    return int(text) if re.fullmatch(r"[+-]?\d+", text) else float(text)
