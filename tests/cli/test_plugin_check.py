"""`gptkit plugin check`: reports of failures and of fields that were not varied."""

from __future__ import annotations

from types import ModuleType
from typing import Literal

import pytest
import typer
from pydantic import Field

from gptkit.cli.plugin import _conclude, _note_unvaried
from gptkit.core.hooks import hookimpl
from gptkit.kinds.optimizer import ScheduleSpec
from gptkit.testing import Check, Result
from tests.support.command_line import caller
from tests.support.plugin_registry import registry_of


class HalfCheckedSpec(ScheduleSpec):
    """Schedule with two fields, of which the examples vary one."""

    name: Literal["half-checked"] = "half-checked"
    slope: float = Field(1.0, description="Varied.")
    floor: float = Field(0.0, description="Not varied.")
    examples = ({"slope": 2.0},)

    def factor(self, step: int, steps: int) -> float:
        return 1.0


def test_one_cause_of_several_failures_is_shown_once(capsys: pytest.CaptureFixture[str]) -> None:
    checks = [Check(name, f"Why {name} matters.", lambda subject: None) for name in ("first", "second", "third")]
    same = [Result("norm x", check, "failed", "it raised TypeError") for check in checks[:2]]
    with pytest.raises(typer.Exit):
        _conclude([*same, Result("norm x", checks[2], "failed", "another")])
    output = capsys.readouterr().out
    assert output.count("it raised TypeError") == 1
    assert "norm x: first, second: it raised TypeError" in output
    assert "Why third matters." in output
    assert "3 checks, 3 failed" in output


def test_skipped_checks_have_a_legend_and_reasons(capsys: pytest.CaptureFixture[str]) -> None:
    result = Result("activation x", Check("external-names", "", lambda subject: None), "skipped", "it has no name")
    _conclude([result])
    output = capsys.readouterr()
    assert "–: skipped, the check does not apply; --why lists the reasons" in output.err
    assert "it has no name" not in output.out
    _conclude([result], why=True)
    output = capsys.readouterr()
    assert "activation x: external-names: it has no name" in output.out
    assert "–: skipped" not in output.err


def test_a_command_called_test_is_that_of_plugins() -> None:
    assert "Did you mean: gptkit plugin check NAME" in " ".join(caller()("test", code=2).stderr.replace("│", "").split())


def test_fields_with_one_value_only_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    module = ModuleType("half")
    module.gptkit_components = hookimpl(lambda: [HalfCheckedSpec])  # type: ignore[attr-defined]
    _note_unvaried(registry_of(half=lambda: module), "schedule", "half-checked")
    assert "only one value was checked of floor; `examples`" in " ".join(capsys.readouterr().err.split())
