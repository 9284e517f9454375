"""Messages of the check of outputs, and the checks that are skipped after it."""

from __future__ import annotations

from typing import Any

import pytest

from gptkit.testing import checks_for, parametrize_checks, run_checks
from tests.mutants import outputs
from tests.mutants.mutant import Mutant

WIDTH = "return (B, T, d_model)"
MESSAGES: dict[type[Mutant], str] = {
    outputs.LastTokenOnly: f"Runtime.forward returned a (2, 32) tensor for an input of (2, 12, 32); {WIDTH}",
    outputs.WithoutContext: "Runtime.forward(self, x_BTE) is called with x_BTE, forward; "
    "define forward(self, x_BTE, forward)",
    outputs.ReturnsItsHidden: f"Runtime.forward returned a tuple of 2 values for an input of (2, 12, 32); {WIDTH}",
    outputs.ReturnsNothing: "Runtime.forward returned None for an input of (2, 12, 32); return the shape of the input",
    outputs.SplitsBlock: f"Runtime.forward returned a list of 2 values for an input of (2, 12, 32); {WIDTH}",
    outputs.TransposesRows: "Runtime.forward returned a (12, 2, 32) tensor for an input of (2, 12); "
    f"{WIDTH}, here (2, 12, 32)",
    outputs.WeightsOnly: "Runtime.forward returned a (24, 2) tensor for an input of (24, 32); "
    "return a tuple of experts and their weights, both (N, K)",
    outputs.BiasWithoutHeads: "Runtime.bias returned a (1, 12, 12) tensor for an input of (12,); "
    "return (1 or B, H, T, S), here (1, 2, 12, 12)",
}


def configured(cls: type[Mutant]) -> Any:
    return cls.model_validate({"name": cls.component_name()})


@pytest.mark.parametrize("cls", MESSAGES, ids=lambda cls: cls.__name__)
def test_wrong_output_is_one_failure_with_a_remedy(cls: type[Mutant]) -> None:
    spec = configured(cls)
    results = run_checks(spec)
    assert {result.check.name: result.message for result in results if not result.ok} == {"output-shape": MESSAGES[cls]}
    names = [check.name for check in checks_for(spec.kind) if not check.slow]
    later = names[names.index("output-shape") + 1 :]
    skipped = {result.check.name: result.message for result in results if result.outcome == "skipped"}
    assert skipped == dict.fromkeys(later, "the check output-shape failed; correct that first")


def test_check_of_a_test_is_skipped_after_a_wrong_output() -> None:
    params = parametrize_checks(configured(outputs.ReturnsNothing)).args[1]  # type: ignore[attr-defined]
    spec, check = next(param.values for param in params if param.id.endswith("zero-vector"))
    with pytest.raises(pytest.skip.Exception, match="the check output-shape failed"):
        check(spec)
