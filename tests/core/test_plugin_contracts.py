"""Plugins that break rules of the interface are refused when they are loaded, each with its name and the remedy."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import pytest
from pydantic import Field

from gptkit.core.hooks import hookimpl
from gptkit.core.registry import Registry
from gptkit.kinds.callback import Callback, CallbackSpec
from gptkit.kinds.context import BuildContext
from gptkit.kinds.norm import NormSpec
from gptkit.kinds.optimizer import ScheduleSpec
from tests.support.fake_plugins import FakeDistribution, FakeEntryPoint, plugin

BUILT_IN = [each for each in importlib.metadata.entry_points(group="gptkit") if each.dist and each.dist.name == "gptkit"]


def loaded(*entry_points: Any) -> Registry:
    return Registry([*BUILT_IN, *entry_points], disabled=())


def error_of(registry: Registry) -> str:
    (faulty,) = [each for each in registry.plugins() if not each.built_in]
    assert faulty.status == "broken"
    assert "cosine" in registry.names("schedule"), "the other plugins work"
    return faulty.error or ""


class Panic(BaseException):
    """What an extension module raises that panics."""


def test_panic_while_importing_breaks_only_its_plugin() -> None:
    def load() -> Any:
        raise Panic("the tokenizer is poisoned\nin thread 1")

    assert error_of(loaded(plugin("panics", load=load))) == "could not be imported: Panic: the tokenizer is poisoned"


def test_missing_package_is_located_and_has_a_remedy(tmp_path: Path) -> None:
    file = tmp_path / "needy.py"
    file.write_text("import math\nimport no_such_package.parts\n")
    fake = plugin("needy")

    def load() -> Any:
        exec(compile(file.read_text(), str(file), "exec"), {"__name__": fake.value})

    error = error_of(loaded(plugin("needy", load=load)))
    assert error == (
        f"could not be imported: ModuleNotFoundError: No module named 'no_such_package' ({file}:2); "
        "install the distribution with no_such_package; its author adds it to the plugin's dependencies"
    )


def test_component_without_a_name_has_a_remedy() -> None:
    nameless: Any = type("Nameless", (NormSpec,), {"__module__": __name__, "build": lambda self, context, dim: None})
    assert error_of(loaded(plugin("nameless", [nameless]))).endswith(
        'Nameless does not define a name. Add a field `name: Literal["my-norm"] = "my-…"`.'
    )


def test_name_that_is_not_a_literal_has_a_remedy() -> None:
    fields = {"__annotations__": {"name": str}, "name": "plain", "build": lambda self, context, dim: None}
    plain: Any = type("Plain", (NormSpec,), {"__module__": __name__, **fields})
    assert error_of(loaded(plugin("plain", [plain]))).endswith(
        'Plain does not define a name: its field `name` is not a Literal of one text. Declare it as `name: Literal["plain"] '
        '= "plain"`.'
    )


def test_import_that_this_version_does_not_have_has_a_remedy() -> None:
    def load() -> Any:
        raise ModuleNotFoundError("No module named 'gptkit.kinds.newer'", name="gptkit.kinds.newer")

    assert error_of(loaded(plugin("newer", load=load))).endswith("than gptkit 0.1.0: update both")


def test_entry_point_that_names_no_module_is_reported_as_it_is_written() -> None:
    entry_point = FakeEntryPoint("odd", "no such module!", FakeDistribution("odd", "1.0"), load=lambda: None)
    message = "its entry point odd = 'no such module!' names no module; write package.module or package.module:object"
    assert error_of(loaded(entry_point)) == message


def test_distribution_without_metadata_is_named_by_its_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left_over = tmp_path / "gptkit_left-1.0.dist-info"
    left_over.mkdir()
    (left_over / "entry_points.txt").write_text("[gptkit]\nleft = no_module_of_this_name\n", encoding="utf-8")
    (entry_point,) = importlib.metadata.PathDistribution(left_over).entry_points
    registry = loaded(entry_point)
    assert error_of(registry) == "could not be imported: ModuleNotFoundError: No module named 'no_module_of_this_name'"
    assert registry.plugins()[-1].provenance == "left==0"


class Resolving(ScheduleSpec):
    """A field with the name of a method of every component."""

    name: Literal["resolving"] = "resolving"
    resolved: float = Field(1.0, description="A share.")  # type: ignore[assignment]

    def factor(self, step: int, steps: int) -> float:
        return 1.0


class Factor(ScheduleSpec):
    """A field with the name of the kind's own method."""

    name: Literal["factor"] = "factor"
    factor: float = Field(1.0, description="A share.")  # type: ignore[assignment]


class Warming(CallbackSpec):
    """A field with the name of a property of its kind."""

    name: Literal["warming"] = "warming"
    n_warmup_steps: int = Field(1, description="Steps.")  # type: ignore[assignment]

    def build(self) -> Callback:
        return Callback()


class OfAnotherKind(ScheduleSpec):
    """A field with the name of a class variable."""

    name: Literal["of-another-kind"] = "of-another-kind"
    examples: str = Field("", description="Texts.")  # type: ignore[assignment,misc]

    def factor(self, step: int, steps: int) -> float:
        return 1.0


class OneAlias(ScheduleSpec):
    """A former name that is not in a tuple."""

    name: Literal["one-alias"] = "one-alias"
    aliases = "former"  # type: ignore[assignment]

    def factor(self, step: int, steps: int) -> float:
        return 1.0


class WithoutWidth(NormSpec):
    """A build that does not accept what its kind passes."""

    name: Literal["without-width"] = "without-width"

    def build(self, context: BuildContext) -> Any:  # type: ignore[override]
        return None


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (Resolving, "the field 'resolved' replaces a method of Component; give it another name"),
        (Factor, "the field 'factor' replaces a method of ScheduleSpec; give it another name"),
        (Warming, "the field 'n_warmup_steps' replaces a property of CallbackSpec; give it another name"),
        (OfAnotherKind, "the field 'examples' replaces a class variable; give it another name"),
        (OneAlias, "aliases is a str, not a tuple"),
        (WithoutWidth, "build is called as build(context, dim=…), and does not accept this: "),
    ],
)
def test_class_that_breaks_the_contract_is_refused(cls: Any, message: str) -> None:
    assert message in error_of(loaded(plugin("faulty", [cls])))


class Copying(ScheduleSpec):
    """A field with a former name of a method of pydantic, which nothing calls."""

    name: Literal["copying"] = "copying"
    copy: int = Field(1, description="Copies.")  # type: ignore[assignment]

    def factor(self, step: int, steps: int) -> float:
        return 1.0


def test_former_names_of_pydantics_methods_are_names_of_fields() -> None:
    assert "copying" in loaded(plugin("copies", [Copying])).names("schedule")


def _late() -> Iterator[Path]:
    yield Path("one.yaml")
    raise ValueError("late")


def _exits() -> Iterator[Path]:
    raise SystemExit(3)


@pytest.mark.parametrize("hook", [_late, _exits])
def test_hook_that_fails_is_skipped_and_named(hook: Any, caplog: pytest.LogCaptureFixture) -> None:
    module = ModuleType("fake_presets")
    hook.__name__ = "gptkit_presets"
    module.gptkit_presets = hookimpl(hook)  # type: ignore[attr-defined]
    entry_point = FakeEntryPoint("presets", "fake_presets", FakeDistribution("presets", "1.0"), load=lambda: module)
    assert not list(loaded(entry_point).call("gptkit_presets"))
    assert "presets==1.0 failed in gptkit_presets and is skipped" in caplog.text
