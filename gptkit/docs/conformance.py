"""Documentation page of the conformance checks: their results for all installed components."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from gptkit.core.registry import Registry
from gptkit.docs.checked import Outcomes, outcomes_of
from gptkit.docs.component_checks import MARKS
from gptkit.docs.places import DIRECTORY
from gptkit.reflect import prose
from gptkit.testing import KNOWN_FAILURES, Check, checks_for

__all__ = ["PAGE", "page"]

PAGE = "conformance.md"


def page(
    registry: Registry,
    kinds: Iterable[str] | None = None,
    expected_failures: Mapping[str, Mapping[str, str]] = KNOWN_FAILURES,
    outcomes: Mapping[tuple[str, str], Outcomes] | None = None,
) -> str:
    """Return the page: the checks of each kind, and the results of each component.

    Args:
        kinds: the kinds to show; all by default.
        expected_failures: by kind and name (``norm rms``), the checks that a component is known to fail, with the reasons.
        outcomes: the outcomes by kind and name; by default all checks except slow ones are run.
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
        made = {
            name: outcomes_of(registry, kind, name, expected_failures.get(f"{kind} {name}", {}))
            if outcomes is None
            else outcomes[kind, name]
            for name in registry.names(kind)
        }
        parts.append(_kind(registry, kind, made))
    return "\n\n".join(parts) + "\n"


def _kind(registry: Registry, kind: str, outcomes: Mapping[str, Outcomes]) -> str:
    numbered = list(enumerate(checks_for(kind, registry), start=1))
    checks = [(number, check) for number, check in numbered if not check.slow]
    reasons = prose.table(
        ["", "check", "reason"], [[str(i), f"`{check.name}`", prose.inline(check.why)] for i, check in numbered]
    )
    return f"## {kind}\n\n{reasons}" + (f"\n\n{_matrix(kind, checks, outcomes)}" if outcomes else "")


def _matrix(kind: str, checks: Sequence[tuple[int, Check]], outcomes: Mapping[str, Outcomes]) -> str:
    """Return a table with a row per component and a numbered column per check."""
    numbers = [f'[{index}](#{kind} "{check.name}")' for index, check in checks]
    rows = [
        [f"[{name}]({DIRECTORY}/{kind}/{name}.md)", *(_mark(marks, check) for _, check in checks)]
        for name, marks in outcomes.items()
    ]
    return prose.table(["component", *numbers], rows, marks=True)


def _mark(outcomes: Outcomes, check: Check) -> str:
    return MARKS[outcomes[check.name]] if check.name in outcomes else ""
