"""Numbers in written files, which have all digits, and an engram within another, which is refused."""

from __future__ import annotations

from typing import Any

import pytest

from gptkit.ejection.writing import write_source
from gptkit.files import validate_data
from gptkit.kinds.written import NotWrittenError, number
from gptkit.model.spec import ModelSpec
from tests.support.ejected import is_written

BASE = {"d_model": 16, "n_layers": 1, "context_length": 8, "attention": {"name": "multi-head", "n_heads": 2}}
ODD = 1.7660062071317517


@pytest.mark.parametrize("value", [ODD, 2.0, -8.0, 0.1, 1e-7, 1e20, -3.0000000000000004])
def test_a_number_is_written_exactly(value: float) -> None:
    assert eval(number(value)) == value


@pytest.mark.parametrize(
    "parts",
    [
        {"norm": {"name": "layer", "offset": ODD}},
        {"feedforward": {"name": "gated", "d_hidden": 16, "clamp": ODD, "up_offset": ODD}},
        {"position": {"name": "alibi", "max_exponent": ODD}},
    ],
)
def test_a_model_with_odd_numbers_is_written_with_them(parts: dict[str, Any]) -> None:
    spec = validate_data({**BASE, **parts}, ModelSpec)
    assert str(ODD) in write_source(spec, 23, name="odd", parameters=0)
    assert is_written(spec)


def test_an_engram_within_another_is_refused() -> None:
    inner = {"name": "engram", "d_embedding": 32, "table_rows": 50}
    spec = validate_data({**BASE, "block": {**inner, "block": inner}}, ModelSpec)
    with pytest.raises(NotWrittenError, match="cannot be written out within another one"):
        write_source(spec, 23, name="nested", parameters=0)
