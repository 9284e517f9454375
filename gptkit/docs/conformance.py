"""Documentation page of the conformance checks: their results for all installed components."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from gptkit.core.registry import Registry
from gptkit.docs.places import DIRECTORY
from gptkit.reflect import prose
from gptkit.testing import KNOWN_FAILURES, Check, Result, checks_for, instances, run_checks

__all__ = ["PAGE", "page"]

PAGE = "conformance.md"

_MARKS = {"passed": "✓", "failed": "**✗**", "skipped": "·", "expected": "(✗)", "unexpected": "**(✓)**"}
_WORST = ("failed", "unexpected", "expected", "passed", "skipped")
"""Order of precedence of the outcomes, if the instances of a component differ."""


def page(
    registry: Registry,
    kinds: Iterable[str] | None = None,
    expected_failures: Mapping[str, Mapping[str, str]] = KNOWN_FAILURES,
) -> str:
    """Run all checks except slow ones, and return the page: the checks of each kind, and the results of each component.

    Args:
        kinds: the kinds to show; all by default.
        expected_failures: by kind and name (``norm rms``), the checks that a component is known to fail, with the reasons.
    """
    parts = [
        "# Conformance checks",
        "The conformance kit, `gptkit.testing`, checks every component against the contract of its kind. This page shows "
        "the results for the installed components, with their defaults and examples. Plugin authors run the same checks: "
        "see [writing a plugin](writing-a-component.md#testing-a-component).",
        "✓ passed; · not applicable; **✗** failed; (✗) known failure; **(✓)** declared as a known failure, but passed. The "
        "columns are numbered as the checks are listed.",
    ]
    for kind in registry.kinds() if kinds is None else kinds:
        parts.append(_kind(registry, kind, expected_failures))
    return "\n\n".join(parts) + "\n"


def _kind(registry: Registry, kind: str, expected: Mapping[str, Mapping[str, str]]) -> str:
    numbered = list(enumerate(checks_for(kind, registry), start=1))
    checks = [(number, check) for number, check in numbered if not check.slow]
    outcomes = {name: _outcomes(registry, kind, name, expected.get(f"{kind} {name}", {})) for name in registry.names(kind)}
    rows = [
        [str(i), f"`{check.name}`", prose.inline(check.why)] for i, check in enumerate(checks_for(kind, registry), start=1)
    ]
    reasons = prose.table(["", "check", "reason"], rows)
    return f"## {kind}\n\n{reasons}" + (f"\n\n{_matrix(kind, checks, outcomes)}" if outcomes else "")


def _matrix(kind: str, checks: Sequence[tuple[int, Check]], outcomes: dict[str, dict[str, str]]) -> str:
    """Return a table with a row per component and a numbered column per check."""
    numbers = [f'[{index}](#{kind} "{check.name}")' for index, check in checks]
    rows = [
        [f"[{name}]({DIRECTORY}/{kind}/{name}.md)", *(marks.get(check.name, "") for _, check in checks)]
        for name, marks in outcomes.items()
    ]
    return prose.table(["component", *numbers], rows)


def _outcomes(registry: Registry, kind: str, name: str, expected: Mapping[str, str]) -> dict[str, str]:
    try:
        specs = instances(registry.component(kind, name), registry)
    except Exception:  # a plugin's validator may raise anything
        return {"constructible": _MARKS["failed"]}
    results: dict[str, list[Result]] = {}
    for spec in specs:
        for result in run_checks(spec, expected_failures=expected, registry=registry):
            results.setdefault(result.check.name, []).append(result)
    return {check: _MARKS[min((result.outcome for result in some), key=_WORST.index)] for check, some in results.items()}
