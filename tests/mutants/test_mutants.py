"""Every mutant fails the check that it names, and its correct twin passes."""

from __future__ import annotations

import importlib
from collections.abc import Collection
from pathlib import Path

import pytest

from gptkit.core.component import Component
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


FORMATS = [cls for cls in MUTANTS if cls.kind == "format"]
"""Mutants whose checks write many files."""


def name_of(cls: type[Mutant]) -> str:
    return f"{cls.kind}-{cls.__name__}"


def specified(cls: type[Mutant]) -> Component:
    cls.forget()
    needed = {"level": 1.0} if cls.__name__ == "NeedsAValue" else {}
    return cls.model_validate({"name": cls.component_name(), **needed})


def failing(spec: Component, only: Collection[str]) -> dict[str, str]:
    return {result.check.name: result.message for result in run_checks(spec, slow=True, only=only) if not result.ok}


@pytest.mark.parametrize(
    "cls", [pytest.param(cls, marks=[pytest.mark.slow] if cls in FORMATS else []) for cls in MUTANTS], ids=name_of
)
def test_mutant_is_caught_by_its_check(cls: type[Mutant]) -> None:
    spec = specified(cls)
    failed = failing(spec, {cls.caught_by, *cls.also})
    assert cls.caught_by in failed
    if cls.also == ANYTHING:
        return
    twin = run_checks(cls.twin(spec), slow=True, only=failed)
    assert {result.check.name for result in twin} == set(failed)
    assert not [result for result in twin if not result.ok]


@pytest.mark.parametrize(
    "cls",
    [
        pytest.param(cls, marks=[pytest.mark.slow if number % 6 == 0 and cls not in FORMATS else pytest.mark.nightly])
        for number, cls in enumerate(cls for cls in MUTANTS if cls.also != ANYTHING)
    ],
    ids=name_of,
)
def test_mutant_passes_all_other_checks(cls: type[Mutant]) -> None:
    expected = {cls.caught_by, *cls.also}
    failed = failing(specified(cls), {check.name for check in checks_for(cls.kind) if not check.slow} | expected)
    assert set(failed) == expected, {name: message for name, message in failed.items() if name not in expected}


def test_number_of_mutants() -> None:
    assert len(MUTANTS) >= 80


def test_every_check_has_a_mutant() -> None:
    kinds = {cls.kind for cls in MUTANTS}
    checks = {(kind, check.name) for kind in kinds for check in checks_for(kind) if not check.slow}
    caught = {cls.caught_by for cls in MUTANTS}
    # A check of several kinds needs one mutant, of any of them.
    assert {name for _, name in checks} <= caught, sorted({name for _, name in checks} - caught)
