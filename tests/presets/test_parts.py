"""Presets that tests of every preset leave to the night repeat the parts of the others."""

from __future__ import annotations

import pytest

from gptkit.presets.catalog import shipped
from tests.support.presets import DISTINCT, parts


@pytest.mark.slow
def test_distinct_presets_have_every_part() -> None:
    every = {name: parts(name) for name in shipped() if not name.startswith("finetune")}
    known = set().union(*(every[name] for name in DISTINCT))
    assert not {name: own - known for name, own in every.items() if own - known}, "add one of these to DISTINCT"
