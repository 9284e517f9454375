"""The section of a component's page with the outcomes of its conformance checks."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping

from gptkit.core.registry import Registry
from gptkit.reflect import prose
from gptkit.testing import KNOWN_FAILURES, checks_for

__all__ = ["MARKS", "filled", "mark", "section"]

MARKS = {"passed": "✓", "failed": "**✗**", "skipped": "·", "expected": "(✗)", "unexpected": "**(✓)**"}
_WORDS = {
    "passed": "passed",
    "failed": "failed",
    "skipped": "not applicable",
    "expected": "known failure",
    "unexpected": "passed, but declared as a known failure",
}
_MARK = re.compile("<!-- outcomes of ([^ ]+) ([^ ]+) -->")


def mark(kind: str, name: str) -> str:
    """Return a comment that `filled` replaces by the section of a component: outcomes are computed beside the pages."""
    return f"<!-- outcomes of {kind} {name} -->"


def filled(text: str, registry: Registry, outcomes: Callable[[], Mapping[tuple[str, str], Mapping[str, str]]]) -> str:
    """Return Markdown with a section in place of each mark.

    Args:
        outcomes: returns the outcomes by kind and name; called if there is a mark.
    """

    def replaced(match: re.Match[str]) -> str:
        kind, name = match.groups()
        return section(registry, kind, name, outcomes()[kind, name])

    return _MARK.sub(replaced, text)


def section(registry: Registry, kind: str, name: str, outcomes: Mapping[str, str]) -> str:
    """Return the outcomes as Markdown: their numbers, and a note to open with each check and its reason.

    Args:
        outcomes: the outcome of each check by its name; empty if none was run.
    """
    checks = [check for check in checks_for(kind, registry) if check.name in outcomes]
    if not checks:
        return ""
    counts = Counter(outcomes[check.name] for check in checks)
    numbers = ", ".join(f"{counts[outcome]} {words}" for outcome, words in _WORDS.items() if counts[outcome])
    rows = [[MARKS[outcomes[check.name]], f"`{check.name}`", prose.inline(check.why)] for check in checks]
    table = prose.table(["", "check", "reason"], rows)
    known = KNOWN_FAILURES.get(f"{kind} {name}", {})
    remarks = [f"Known failure: `{check}`, {prose.inline(reason)}." for check, reason in known.items()]
    inner = "\n".join(f"    {line}" if line else "" for line in table.splitlines())
    return "\n\n".join([f'??? note "{numbers} ({len(checks)} checks)"\n\n{inner}', *remarks])
