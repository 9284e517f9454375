"""The generated page of conformance checks."""

from __future__ import annotations

import re

import pytest

from gptkit.core.registry import default_registry
from gptkit.docs.conformance import page
from gptkit.testing import checks_for


def test_page_lists_every_check_and_component() -> None:
    text = page(default_registry(), ["schedule", "optimizer"])
    assert re.findall("^## (.*)$", text, re.MULTILINE) == ["schedule", "optimizer"]
    for check in checks_for("schedule"):
        assert f"| `{check.name}` | {check.why} |" in text
    for name in default_registry().names("schedule"):
        assert f"| [{name}](components/schedule/{name}.md) | {' | '.join('✓' * len(checks_for('schedule')))} |" in text


def test_failed_check_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    cls = default_registry().component("schedule", "constant")
    monkeypatch.setattr(cls, "factor", lambda self, step, steps: 2.0)
    row = next(line for line in page(default_registry(), ["schedule"]).splitlines() if line.startswith("| [constant]"))
    assert row.count("**✗**") == 1
    expected = {"schedule constant": {"within-bounds": "on purpose", "pure": "by accident"}}
    text = page(default_registry(), ["schedule"], expected)
    row = next(line for line in text.splitlines() if line.startswith("| [constant]"))
    assert row.count(" (✗) ") == 1
    assert row.count("**(✓)**") == 1
