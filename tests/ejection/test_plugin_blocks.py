"""Blocks of gptkit-research in ejected models, where layers differ."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

from gptkit.files import validate_data
from gptkit.model.gpt import GPT
from gptkit.model.spec import ModelSpec
from tests.support.compositions import BASE
from tests.support.ejected import COARSE, randomize, run_ejected
from tests.support.plugin_registry import registry_of


@pytest.mark.parametrize("groups", [(2, 3), (None, 2)])
def test_sources_of_one_group_are_not_continued_by_another(groups: tuple[Any, ...], tmp_path: Path) -> None:
    registry = registry_of(gptkit_research=lambda: importlib.import_module("gptkit_research.plugin"))
    layers = [{"block": {"name": "attention-residuals", "group": group}} for group in groups]
    spec = validate_data({**BASE, "n_layers": 4, "layers": layers}, ModelSpec, registry)
    result = run_ejected(tmp_path, {"sources": randomize(GPT(spec, 61))})["sources"]
    for computed in (result.logits, result.cached):
        assert float((computed - result.expected).abs().max()) <= COARSE * result.rounding()
