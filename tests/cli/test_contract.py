"""What a kind asks of its components, on the command line."""

from __future__ import annotations

import pytest

from gptkit.core.registry import default_registry

from .conftest import Call


def test_a_contract_has_all_that_a_plugin_writes(call: Call) -> None:
    said = call("components", "position", "--contract").stdout
    for part in (
        "position\nHow a model knows the order of its tokens.\n",
        "Declared capabilities:",
        "Writing one: a subclass of gptkit.kinds.position.PositionSpec",
        "  describe(self) -> str  (to be written)\n      In a few words, for the table of layers",
        "max_positions(self, context: BuildContext) -> int | None\n",
        "depends_on_length: bool\n",
        "What it builds: gptkit.nn.position.Position",
        "  embed(self, x_BTE: Tensor, positions: Tensor) -> Tensor\n      Absolute: add to",
        "(1 or B, H, T, S)",
    ):
        assert part in said


@pytest.mark.parametrize("kind", default_registry().kinds())
def test_every_kind_has_one(call: Call, kind: str) -> None:
    assert f"{kind}\n" in call("components", kind, "--contract").stdout


def test_a_contract_is_a_kinds(call: Call) -> None:
    for arguments in ((), ("position", "rotary")):
        assert "a contract is a kind's" in call("components", *arguments, "--contract", code=2).stderr
    assert "unknown kind 'positoin'" in call("components", "positoin", "--contract", code=2).stderr
    assert "rms is a norm, and no kind" in call("components", "rms", "--contract", code=2).stderr
