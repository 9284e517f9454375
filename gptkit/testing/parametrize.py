"""The kit in a plugin's own tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from gptkit.core.component import Component
from gptkit.testing.check import NotApplicableError
from gptkit.testing.kit import checks_for, instances
from gptkit.testing.subject import Subject

__all__ = ["parametrize_checks"]

Test = TypeVar("Test", bound=Callable[..., None])


def parametrize_checks(*specs: Component | type[Component], slow: bool = True) -> Callable[[Test], Test]:
    """Decorator: the test runs once for each check of each component, with the arguments `spec` and `check`.

    ::

        @parametrize_checks(MySpec)
        def test_conformance(spec, check):
            check(spec)

    Failures that a component declares (`expected_failures`) are marked xfail, strictly: one that passes is a failure.

    Args:
        specs: configured components, or classes: these are checked with their defaults and with each of their examples.
        slow: run the checks too that take seconds, such as torch.compile.
    """
    import pytest  # not needed by what else the kit can do

    params = []
    for given in specs:
        for spec in instances(given) if isinstance(given, type) else [given]:
            label, declared = Subject(spec).label, type(spec).expected_failures
            for check in checks_for(spec.kind):
                if check.slow and not slow:
                    continue
                reason = declared.get(check.name)
                marks = () if reason is None else (pytest.mark.xfail(reason=reason, strict=True),)
                params.append(pytest.param(spec, _Skipping(check), id=f"{label}-{check.name}", marks=marks))
    return cast("Callable[[Test], Test]", pytest.mark.parametrize(("spec", "check"), params))


class _Skipping:
    """A check that tells pytest what is left out."""

    def __init__(self, check: Any) -> None:
        self._check = check

    def __call__(self, spec: Component) -> None:
        import pytest

        try:
            self._check(spec)
        except NotApplicableError as reason:
            pytest.skip(str(reason))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._check, name)

    def __repr__(self) -> str:
        return str(self._check.name)
