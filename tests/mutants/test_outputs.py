"""Messages of the prerequisites (outputs, tensors in attributes), and the checks that are skipped after them."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from gptkit.nn.forward import Forward
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
    outputs.KeepsTheLastVector: "the attribute 'last_B1E' of Runtime holds a tensor that depends on the text; "
    "keep the state of a sequence in forward.state(self), and pass values to other modules by forward.publish",
}


CHECKS = {outputs.KeepsTheLastVector: "keeps-no-text"}
"""The prerequisites that mutants fail, if not `output-shape`."""


def configured(cls: type[Mutant]) -> Any:
    return cls.model_validate({"name": cls.component_name()})


@pytest.mark.parametrize("cls", MESSAGES, ids=lambda cls: cls.__name__)
def test_failed_prerequisite_is_the_only_failure(cls: type[Mutant]) -> None:
    spec, check = configured(cls), CHECKS.get(cls, "output-shape")
    results = run_checks(spec)
    assert {result.check.name: result.message for result in results if not result.ok} == {check: MESSAGES[cls]}
    names = [check.name for check in checks_for(spec.kind) if not check.slow]
    later = names[names.index(check) + 1 :]
    skipped = {result.check.name: result.message for result in results if result.outcome == "skipped"}
    assert skipped == dict.fromkeys(later, f"the check {check} failed; correct that first")


def test_check_of_a_test_is_skipped_after_a_wrong_output() -> None:
    params = parametrize_checks(configured(outputs.ReturnsNothing)).args[1]  # type: ignore[attr-defined]
    spec, check = next(param.values for param in params if param.id.endswith("zero-vector"))
    with pytest.raises(pytest.skip.Exception, match="the check output-shape failed"):
        check(spec)


class _WithTable(outputs.Wrong):
    """Attention that keeps a table of its first call, and the positions of the last one."""

    class Runtime(outputs.GroupedQueryAttention):
        def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
            if "table_T" not in vars(self):
                self.table_T = torch.arange(48)
            self.positions = forward.positions
            return super().forward(x_BTE, forward)

    name: Literal["with-table"] = "with-table"
    runtime = Runtime


def test_tables_may_be_kept_in_attributes() -> None:
    (result,) = run_checks(configured(_WithTable), only=["keeps-no-text"])
    assert result.outcome == "passed", result.message
