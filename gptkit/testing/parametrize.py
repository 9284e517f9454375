"""Conformance checks in pytest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

from gptkit.core.component import Component
from gptkit.core.registry import Registry
from gptkit.testing.check import Check, NotApplicableError
from gptkit.testing.common import missing_examples
from gptkit.testing.kit import checks_for, instances, require_known
from gptkit.testing.subject import Subject

__all__ = ["parametrize_checks"]

Test = TypeVar("Test", bound=Callable[..., None])


def parametrize_checks(
    *specs: Component | type[Component],
    slow: bool = True,
    expected_failures: Mapping[str, str] | None = None,
    registry: Registry | None = None,
) -> Callable[[Test], Test]:
    """Decorator: the test runs once for each check of each component, with the arguments `spec` and `check`.

    ::

        @parametrize_checks(MySpec, expected_failures={"documents-keep-apart": "the recurrence has no borders yet"})
        def test_conformance(spec, check):
            check(spec)

    Args:
        specs: configured components, or classes: these are checked with their defaults and with each of their examples.
        slow: also run checks that take seconds, such as torch.compile.
        expected_failures: names of checks that are known to fail, each with the reason. They are marked xfail, strictly:
            one that passes is a failure.
        registry: where the components and those around them are looked up; by default what is installed.

    Raises:
        ValueError: `expected_failures` has the name of no check, or a class has required fields and no `examples`.
    """
    import pytest  # needed by this function only

    expected = expected_failures or {}
    params = []
    for given in specs:
        if isinstance(given, type) and "constructible" not in expected:
            missing = missing_examples(given)
            if missing is not None:  # no parameters would be a test that is skipped
                raise ValueError(f"no configuration of {given.__name__} can be checked: {missing}")
        for spec in instances(given, registry) if isinstance(given, type) else [given]:
            label, checks = Subject(spec, registry).label, checks_for(spec.kind, registry)
            require_known(expected, checks)
            for check in checks:
                if check.slow and not slow:
                    continue
                reason = expected.get(check.name)
                marks = () if reason is None else (pytest.mark.xfail(reason=reason, strict=True),)
                bound = _SpecCheck(check, registry)
                params.append(pytest.param(spec, bound, id=f"{label}-{check.name}", marks=marks))
    return cast("Callable[[Test], Test]", pytest.mark.parametrize(("spec", "check"), params))


class _SpecCheck:
    """A check that is called with a spec, and skips the test where it does not apply."""

    def __init__(self, check: Check, registry: Registry | None) -> None:
        self._check = check
        self._registry = registry

    def __call__(self, spec: Component) -> None:
        import pytest

        try:
            self._check(Subject.of(spec, self._registry))
        except NotApplicableError as reason:
            pytest.skip(str(reason))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._check, name)

    def __repr__(self) -> str:
        return str(self._check.name)
