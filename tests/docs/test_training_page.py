"""docs/training.md: its examples are valid specs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

import gptkit

PAGE = Path(__file__).parents[2] / "docs" / "training.md"
EXAMPLES = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
MODEL: dict[str, Any] = {
    "d_model": 16,
    "n_layers": 2,
    "context_length": 512,
    "attention": {"n_heads": 2, "window": 256},
    "head": "multi-token",
}


def test_page_has_examples() -> None:
    assert len(EXAMPLES) >= 4


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: re.sub(r"\W+", "-", example)[9:40])
def test_example_is_a_valid_spec(example: str) -> None:
    given = YAML(typ="safe", pure=True).load(example)
    opened = gptkit.open_spec({"tokenizer": "byte", "model": MODEL, **given})
    plain = opened.spec.plain()["training"]
    for name, value in given.get("training", {}).items():
        if not isinstance(value, (dict, list)):
            assert plain[name] == value
        elif isinstance(value, list):
            assert len(plain[name]) == len(value)
