"""Contracts of kinds on the command line."""

from __future__ import annotations

import pytest

from gptkit.core.registry import default_registry
from tests.support.command_line import Call


def test_contract_lists_all_members_of_a_component(call: Call) -> None:
    output = call("components", "position", "--contract").stdout
    for part in (
        "position\nPosition encoding: the representation of the order of tokens.\n",
        "Declared capabilities:",
        "Spec class: a subclass of gptkit.kinds.position.PositionSpec",
        "max_positions(self, context: BuildContext) -> int | None\n",
        "depends_on_length: bool\n",
        "Runtime class: gptkit.nn.position.Position",
        "  embed(self, x_BTE: Tensor, positions: Tensor) -> Tensor\n      Absolute: ",
        "(1 or B, H, T, S)",
    ):
        assert part in output


@pytest.mark.parametrize("kind", default_registry().kinds())
def test_every_kind_has_a_contract(call: Call, kind: str) -> None:
    assert f"{kind}\n" in call("components", kind, "--contract").stdout


def test_contract_requires_a_kind(call: Call) -> None:
    for arguments in ((), ("position", "rotary")):
        assert "--contract requires a kind" in call("components", *arguments, "--contract", code=2).stderr
    assert "unknown kind 'positoin'" in call("components", "positoin", "--contract", code=2).stderr
    assert "rms is a norm, not a kind" in call("components", "rms", "--contract", code=2).stderr
