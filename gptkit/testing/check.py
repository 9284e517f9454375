"""Checks, their results, and the report of failures."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NoReturn

import torch
from torch import Tensor

if TYPE_CHECKING:
    from gptkit.testing.subject import Subject

__all__ = [
    "Check",
    "Checks",
    "ContractError",
    "NotApplicableError",
    "Outcome",
    "Result",
    "differ",
    "expect",
    "in_order",
    "same",
    "skip",
]

TOLERANCE = 1e-5
"""Relative tolerance of equal results; rounding errors in fp32 are far below."""

Run = Callable[["Subject"], None]

Outcome = Literal["passed", "failed", "skipped", "expected", "unexpected"]
"""`expected`: a failure that the caller expects. `unexpected`: the caller expects one, and the check passes."""


class ContractError(AssertionError):
    """Failure of a conformance check; the message describes it."""


class NotApplicableError(Exception):
    """A check does not apply to this component; the message is the reason."""


@dataclass(frozen=True)
class Check:
    """Check of one requirement of a kind.

    Attributes:
        name: lower-case words joined by hyphens, unique within a kind.
        why: the consequence of a violation, as one sentence.
        run: raises `ContractError` for a violation, and `NotApplicableError` if the check does not apply.
        slow: takes seconds, not milliseconds.
        prerequisite: if it fails, the checks after it would report the same error in other words, and are skipped.
        after: the prerequisites before it (`in_order`).
    """

    name: str
    why: str
    run: Run
    slow: bool = False
    prerequisite: bool = False
    after: tuple[Check, ...] = ()

    def __call__(self, subject: Subject) -> None:
        """Check a configured component as `run` does, and restore the state of the process, so that no other is affected.

        Raises:
            NotApplicableError: the check does not apply, or one of its prerequisites failed.
        """
        for earlier in self.after:
            if earlier.fails(subject):
                skip(f"the check {earlier.name} failed; correct that first")
        with _isolated():
            torch.manual_seed(0)
            self.run(subject)

    def fails(self, subject: Subject) -> bool:
        """Whether a component fails the check; it is computed once."""
        if self.name not in subject.failed:
            try:
                self(subject)
                subject.failed[self.name] = False
            except NotApplicableError:
                subject.failed[self.name] = False
            except (Exception, SystemExit):
                subject.failed[self.name] = True
        return subject.failed[self.name]


@contextmanager
def _isolated() -> Iterator[None]:
    """Restore random state, working directory, default dtype and recording of gradients afterwards."""
    directory, dtype, gradients = Path.cwd(), torch.get_default_dtype(), torch.is_grad_enabled()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        os.chdir(directory)
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(gradients)


@dataclass(frozen=True)
class Result:
    """Result of one check of one component.

    Attributes:
        component: kind, name, and the fields that differ from the defaults.
        message: the violation (failed), the reason of skipping (skipped), or the reason of an expected failure.
        error: the exception behind a failure.
    """

    component: str
    check: Check
    outcome: Outcome
    message: str = ""
    error: BaseException | None = None

    @property
    def ok(self) -> bool:
        """Whether neither the component nor the expectation must be corrected."""
        return self.outcome not in ("failed", "unexpected")


class Checks:
    """Collection of checks, in the order of execution."""

    def __init__(self) -> None:
        self._checks: list[Check] = []

    def __iter__(self) -> Iterator[Check]:
        return iter(self._checks)

    def add(self, name: str, why: str, *, slow: bool = False, prerequisite: bool = False) -> Callable[[Run], Run]:
        """Return a decorator that adds a function as the check of this name."""

        def register(run: Run) -> Run:
            self._checks.append(Check(name, why, run, slow, prerequisite))
            return run

        return register


def in_order(checks: Iterable[Check]) -> list[Check]:
    """Return the checks of a kind in their order, each with the prerequisites before it."""
    result: list[Check] = []
    for check in checks:
        earlier = tuple(each for each in result if each.prerequisite)
        result.append(replace(check, after=earlier) if earlier else check)
    return result


def expect(condition: object, message: str) -> None:
    """Raise a `ContractError` with the message unless the condition holds."""
    if not condition:
        raise ContractError(message)


def skip(reason: str) -> NoReturn:
    """Skip the check for a reason."""
    raise NotApplicableError(reason)


def differ(actual: Tensor, expected: Tensor, tolerance: float = TOLERANCE) -> Tensor:
    """Return where two tensors differ by more than rounding, as booleans of their shape."""
    scale = max(1.0, float(expected.detach().abs().nan_to_num(posinf=0, neginf=0).amax())) if expected.numel() else 1.0
    equal = (actual == expected) | ((actual - expected).abs() <= tolerance * scale)
    return ~(equal | (actual.isnan() & expected.isnan()))


def same(actual: Tensor, expected: Tensor, message: str, tolerance: float = TOLERANCE) -> None:
    """Raise a `ContractError` with size and location of the difference if two tensors differ by more than rounding."""
    expect(actual.shape == expected.shape, f"{message}: the shape is {tuple(actual.shape)}, not {tuple(expected.shape)}")
    wrong = differ(actual, expected, tolerance)
    if wrong.any():
        place = [int(index) for index in wrong.nonzero()[0]]
        seen, wanted = (float(tensor.detach()[tuple(place)]) for tensor in (actual, expected))
        share = f"{int(wrong.sum())} of {wrong.numel()} numbers"
        raise ContractError(f"{message}: {share} differ, the first at {place}: {seen:.6g}, not {wanted:.6g}")
