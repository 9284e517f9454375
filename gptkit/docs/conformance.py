"""The page of what is checked: the conformance kit is run on everything that is installed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from gptkit.core.registry import Registry
from gptkit.docs.places import FOLDER
from gptkit.reflect import prose
from gptkit.testing import KNOWN_FAILURES, Check, Result, checks_for, instances, run_checks

__all__ = ["PAGE", "page"]

PAGE = "conformance.md"

_MARKS = {"passed": "✓", "failed": "**✗**", "skipped": "·", "expected": "(✗)", "unexpected": "**(✓)**"}
_WORST = ("failed", "unexpected", "expected", "passed", "skipped")
"""What is shown where the instances of a component fare differently: the first of these that occurs."""


def page(
    registry: Registry,
    kinds: Iterable[str] | None = None,
    expected_failures: Mapping[str, Mapping[str, str]] = KNOWN_FAILURES,
) -> str:
    """Markdown: for each kind the checks with their reasons, and how each component fares. Runs all checks but slow ones.

    Args:
        kinds: those to show; all by default.
        expected_failures: by kind and name (``norm rms``), the checks that a component is known to fail, with the reasons.
    """
    parts = [
        "# What is checked",
        "Every component is held to the promises of its kind by the conformance kit, `gptkit.testing`. This page was made "
        "by running it on what was installed, with each component's defaults and examples. A plugin's author runs the same "
        "checks: see [writing a plugin](writing-a-component.md#is-it-right).",
        "✓ is kept; · has nothing to check; **✗** is broken; (✗) is known to fail; **(✓)** is "
        "expected to fail, and passes. The columns are numbered as the checks are listed.",
    ]
    for kind in registry.kinds() if kinds is None else kinds:
        parts.append(_kind(registry, kind, expected_failures))
    return "\n\n".join(parts) + "\n"


def _kind(registry: Registry, kind: str, expected: Mapping[str, Mapping[str, str]]) -> str:
    numbered = list(enumerate(checks_for(kind, registry), start=1))
    checks = [(number, check) for number, check in numbered if not check.slow]
    found = {name: _fares(registry, kind, name, expected.get(f"{kind} {name}", {})) for name in registry.names(kind)}
    rows = [
        [str(i), f"`{check.name}`", prose.inline(check.why)] for i, check in enumerate(checks_for(kind, registry), start=1)
    ]
    reasons = prose.table(["", "check", "why"], rows)
    return f"## {kind}\n\n{reasons}" + (f"\n\n{_matrix(kind, checks, found)}" if found else "")


def _matrix(kind: str, checks: Sequence[tuple[int, Check]], found: dict[str, dict[str, str]]) -> str:
    """Components below each other, checks beside each other: their names would be too wide, so they are numbered."""
    numbers = [f'[{index}](#{kind} "{check.name}")' for index, check in checks]
    rows = [
        [f"[{name}]({FOLDER}/{kind}/{name}.md)", *(outcomes.get(check.name, "") for _, check in checks)]
        for name, outcomes in found.items()
    ]
    return prose.table(["component", *numbers], rows)


def _fares(registry: Registry, kind: str, name: str, expected: Mapping[str, str]) -> dict[str, str]:
    try:
        specs = instances(registry.component(kind, name), registry)
    except Exception:  # a plugin's validator may raise anything
        return {"constructible": _MARKS["failed"]}
    results: dict[str, list[Result]] = {}
    for spec in specs:
        for result in run_checks(spec, expected_failures=expected, registry=registry):
            results.setdefault(result.check.name, []).append(result)
    return {check: _MARKS[min((result.outcome for result in some), key=_WORST.index)] for check, some in results.items()}
