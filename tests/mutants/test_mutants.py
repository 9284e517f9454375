"""Every mutant fails the check that it names, and its correct twin passes."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from gptkit.testing import checks_for, run_checks
from tests.mutants.mutant import ANYTHING, Mutant

MODULES = [path.stem for path in sorted(Path(__file__).parent.glob("*.py")) if path.stem not in ("mutant", "test_mutants")]


def mutants() -> list[type[Mutant]]:
    result = []
    for name in MODULES:
        module = importlib.import_module(f"tests.mutants.{name}")
        result += [
            value
            for value in vars(module).values()
            if isinstance(value, type)
            and issubclass(value, Mutant)
            and value.__module__ == module.__name__
            and "caught_by" in value.__dict__
        ]
    return result


MUTANTS = mutants()


SLOW = ("attention", "block", "family", "format")
"""Kinds whose checks build many models, or write many files."""


@pytest.mark.parametrize(
    "cls",
    [pytest.param(cls, marks=[pytest.mark.slow] if cls.kind in SLOW else []) for cls in MUTANTS],
    ids=lambda cls: f"{cls.kind}-{cls.__name__}",
)
def test_mutant_is_caught_by_its_check(cls: type[Mutant]) -> None:
    needed = {"level": 1.0} if cls.__name__ == "NeedsAValue" else {}
    spec = cls.model_validate({"name": cls.component_name(), **needed})
    chosen = [check.name for check in checks_for(cls.kind) if not check.slow or check.name in (cls.caught_by, *cls.also)]
    failed = {result.check.name: result.message for result in run_checks(spec, slow=True, only=chosen) if not result.ok}
    assert cls.caught_by in failed, f"caught only by {failed}"
    if cls.also == ANYTHING:
        return
    assert set(failed) == {cls.caught_by, *cls.also}, {k: v for k, v in failed.items() if k != cls.caught_by}
    twin = run_checks(cls.twin(spec), slow=True, only=failed)
    assert {result.check.name for result in twin} == set(failed)
    assert not [result for result in twin if not result.ok]


def test_number_of_mutants() -> None:
    assert len(MUTANTS) >= 80


def test_every_check_has_a_mutant() -> None:
    kinds = {cls.kind for cls in MUTANTS}
    checks = {(kind, check.name) for kind in kinds for check in checks_for(kind) if not check.slow}
    caught = {cls.caught_by for cls in MUTANTS}
    # A check of several kinds needs one mutant, of any of them.
    assert {name for _, name in checks} <= caught, sorted({name for _, name in checks} - caught)
