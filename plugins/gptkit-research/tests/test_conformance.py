"""Conformance checks of every component."""

from __future__ import annotations

from typing import Any

from gptkit_research.plugin import gptkit_components

from gptkit.testing import parametrize_checks


@parametrize_checks(*gptkit_components(), slow=False)
def test_conformance(spec: Any, check: Any) -> None:
    check(spec)
