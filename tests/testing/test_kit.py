"""Conformance kit: execution, reports, and expected failures."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
import torch
from pydantic import Field, ValidationError

from gptkit.components.schedule.constant import ConstantSpec
from gptkit.components.tokenizer.char import CharSpec
from gptkit.components.tracker.csv import CSVSpec, CSVTracker
from gptkit.core.component import Component
from gptkit.core.registry import default_registry
from gptkit.kinds.tracker import Tracker, TrainingStart
from gptkit.testing import (
    Check,
    ContractError,
    NotApplicableError,
    checks_for,
    instances,
    parametrize_checks,
    run_checks,
)
from gptkit.testing.check import same
from gptkit.testing.subject import Subject
from tests.support.fake_plugins import plugin, registry


class Overshooting(ConstantSpec):
    """Schedule that exceeds the peak rate."""

    name: Literal["overshooting"] = "overshooting"

    def factor(self, step: int, steps: int) -> float:
        return 1.5


class Crashing(ConstantSpec):
    """Schedule that raises."""

    name: Literal["crashing"] = "crashing"

    def factor(self, step: int, steps: int) -> float:
        raise ZeroDivisionError("no steps")


class Leveled(ConstantSpec):
    """Component with a required level and examples of it."""

    name: Literal["leveled"] = "leveled"
    level: float = Field(ge=0, le=1, description="The share of the peak rate.")
    examples: ClassVar[tuple[Mapping[str, Any], ...]] = ({"level": 0.5}, {"level": 1.0, "warmup_steps": 3}, {"level": 0.5})


class Required(ConstantSpec):
    """Component with a required field and no examples of it."""

    name: Literal["required"] = "required"
    level: float = Field(ge=0, description="The share of the peak rate.")


class RequiredTwice(Required):
    """Component with two required fields and no examples of them."""

    name: Literal["required-twice"] = "required-twice"  # type: ignore[assignment]
    other: float = Field(ge=0, description="Another share.")


EXPECTED = {"within-bounds": "a warm restart overshoots on purpose"}


def outcome(spec: Component, check: str, **options: Any) -> tuple[str, str, bool]:
    (result,) = run_checks(spec, only=[check], **options)
    return result.outcome, result.message, result.ok


def test_every_check_has_a_reason() -> None:
    for kind in default_registry().kinds():
        checks = checks_for(kind)
        names = [check.name for check in checks]
        assert len(set(names)) == len(names) >= 5
        for check in checks:
            assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", check.name)
            assert re.fullmatch(r"[A-Z].{20,110}[.]", check.why), check.why
    shared = {check.name for check in checks_for("a-plugin-kind")}
    assert shared == {"named", "documented", "constructible", "round-trip", "frozen", "known-methods"}


class Taster(Component):
    """A kind of a plugin, with its own check."""

    kind: ClassVar[str] = "taster"

    @classmethod
    def conformance_checks(cls) -> list[Check]:
        def sweet(subject: Any) -> None:
            if subject.spec.sugar == 0:
                raise ContractError("sugar must be above 0")

        return [Check("sweet", "A taster that is not sweet is sent back.", sweet)]


class Cake(Taster):
    """Kind whose checks are defined by its plugin."""

    name: Literal["cake"] = "cake"
    sugar: int = Field(1, description="Spoons of it.")


def test_kind_of_a_plugin_defines_its_checks() -> None:
    taster = registry(plugin("gptkit-taster", [Cake], [Taster]))
    assert outcome(Cake(), "sweet", registry=taster) == ("passed", "", True)
    assert outcome(Cake(sugar=0), "sweet", registry=taster) == ("failed", "sugar must be above 0", False)
    assert all(result.ok for result in run_checks(Cake(), registry=taster))


def test_results_are_passed_failed_or_crashed() -> None:
    assert outcome(ConstantSpec(), "within-bounds") == ("passed", "", True)
    kind, message, ok = outcome(Crashing(), "within-bounds")
    assert (kind, ok) == ("failed", False)
    assert re.fullmatch(r"it raised ZeroDivisionError: no steps \([\w.]*test_kit, line \d+\)", message)


def test_expected_failure_is_reported_with_its_reason() -> None:
    expected = ("expected", "a warm restart overshoots on purpose", True)
    assert outcome(Overshooting(), "within-bounds", expected_failures=EXPECTED) == expected
    assert outcome(Overshooting(), "pure", expected_failures=EXPECTED)[0] == "passed"
    assert outcome(Overshooting(), "within-bounds")[0] == "failed"


def test_expected_failure_that_passes_is_reported() -> None:
    kind, message, ok = outcome(ConstantSpec(), "within-bounds", expected_failures=EXPECTED)
    assert (kind, ok) == ("unexpected", False)
    assert "a warm restart overshoots on purpose" in message


def test_expected_failure_of_an_unknown_check_is_rejected() -> None:
    with pytest.raises(ValueError, match=r"no check is called 'within-bound'; did you mean 'within-bounds'\?"):
        run_checks(ConstantSpec(), expected_failures={"within-bound": "a typing error"})
    with pytest.raises(ValueError, match="no check is called 'within-bound'"):
        parametrize_checks(ConstantSpec, expected_failures={"within-bound": "a typing error"})


def test_inapplicable_check_is_skipped_with_the_reason() -> None:
    spec = CharSpec(name="char", unknown="error")
    assert outcome(spec, "text-comes-back") == ("skipped", "it declares that it is lossy", True)


def test_check_is_callable() -> None:
    check = next(check for check in checks_for("schedule") if check.name == "within-bounds")
    check(Subject(ConstantSpec()))
    with pytest.raises(ContractError, match=r"step 0 of 1 is 1\.5"):
        check(Subject(Overshooting()))


def test_checks_do_not_change_random_states() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    run_checks(ConstantSpec())
    assert torch.rand(1) == expected


def test_slow_checks_run_on_request() -> None:
    assert [check.name for check in checks_for("norm") if check.slow] == ["compiles", "written-options-equal-built"]
    norm = instances(default_registry().component("norm", "rms"))[0]
    assert run_checks(norm, only=["compiles"]) == []


def test_instances_are_the_defaults_and_the_examples() -> None:
    assert instances(ConstantSpec) == [ConstantSpec()]
    assert [spec.level for spec in instances(Leveled)] == [0.5, 1.0]  # type: ignore[attr-defined]
    with pytest.raises(ValidationError):
        instances(type("Bad", (Leveled,), {"examples": ({"level": 3},), "__module__": __name__}))


def test_required_fields_without_examples_are_named_with_the_remedy() -> None:
    remedy = 'it has the required field level, and no `examples`; give it a default, or add examples = ({"level": …},)'
    assert outcome(Required(level=0.5), "constructible") == ("failed", remedy, False)
    _, message, _ = outcome(RequiredTwice(level=0.5, other=0.5), "constructible")
    assert message.endswith('give them defaults, or add examples = ({"level": …, "other": …},)')
    with pytest.raises(ValueError, match="no configuration of Required can be checked: it has the required field level"):
        parametrize_checks(Required)
    assert not params(parametrize_checks(Required, expected_failures={"constructible": "the user has the value"}))


def test_labels_show_fields_that_differ_from_defaults() -> None:
    (first, *_) = run_checks(Leveled(level=0.5, warmup_steps=0), only=["named"])
    assert first.component == "schedule leveled (level=0.5)"


def params(decorator: Any) -> list[Any]:
    return list(decorator.args[1])


def test_parametrize_marks_expected_failures() -> None:
    result = {param.id: param for param in params(parametrize_checks(Overshooting(), Leveled, expected_failures=EXPECTED))}
    declared = result["schedule overshooting-within-bounds"]
    assert declared.marks[0].name == "xfail"
    assert declared.marks[0].kwargs == {"reason": "a warm restart overshoots on purpose", "strict": True}
    assert not result["schedule overshooting-pure"].marks
    assert "schedule leveled (warmup_steps=3, level=1.0)-pure" in result
    assert len(result) == 3 * len(checks_for("schedule"))


def test_parametrize_omits_slow_checks() -> None:
    norm = default_registry().component("norm", "rms")
    assert len(params(parametrize_checks(norm))) > len(params(parametrize_checks(norm, slow=False)))


def test_parametrized_checks_skip_tests() -> None:
    spec = CharSpec(name="char", unknown="error")
    check = next(param for param in params(parametrize_checks(spec)) if param.id.endswith("text-comes-back")).values[1]
    with pytest.raises(pytest.skip.Exception, match="declares that it is lossy"):
        check(spec)


@parametrize_checks(ConstantSpec)
def test_parametrize_checks_decorates_tests(spec: Component, check: Check) -> None:
    check(spec)


def test_messages_state_location_and_size() -> None:
    expected = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    actual = expected.clone()
    actual[1, 0] = 3.5
    with pytest.raises(ContractError, match=r"logits: 1 of 4 numbers differ, the first at \[1, 0\]: 3.5, not 3"):
        same(actual, expected, "logits")
    with pytest.raises(ContractError, match=r"the shape is \(2, 1\), not \(2, 2\)"):
        same(actual[:, :1], expected, "logits")
    infinite = torch.tensor([-torch.inf, 1.0])
    same(infinite, infinite, "logits")
    with pytest.raises(ContractError):
        same(torch.tensor([0.0, 1.0]), infinite, "logits")
    assert issubclass(NotApplicableError, Exception)


def test_log_that_a_run_links_to_is_not_part_of_the_run(tmp_path: Path) -> None:
    class Linking(CSVSpec):
        """Tracker that links to a log of its library, to which every training appends."""

        class Runtime(CSVTracker):
            def on_start(self, start: TrainingStart) -> None:
                super().on_start(start)
                with (tmp_path / "all.log").open("a") as log:
                    log.write(f"{start.directory}\n")
                if not (start.directory / "all.log").is_symlink():
                    (start.directory / "all.log").symlink_to(tmp_path / "all.log")

        def build(self) -> Tracker:
            return self.Runtime(Path(self.file))

    assert [result.message for result in run_checks(Linking(), only=["resumes", "stays-in-its-run"]) if not result.ok] == []
