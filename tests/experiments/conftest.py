"""Fixtures that call the command line."""

from __future__ import annotations

import pytest

from tests.support.command_line import Call, caller


@pytest.fixture(scope="session")
def call() -> Call:
    """Call the command line and check the exit code; the result has exit_code, stdout and stderr."""
    return caller()
