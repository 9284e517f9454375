"""Fixtures of the tests of external models."""

from __future__ import annotations

from tests.support.external_files import sound

__all__ = ["sound"]
