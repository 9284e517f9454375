"""Registry: isolation of third-party plugins, and reports of collisions and unknown names with the remedy."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
import warnings
from types import ModuleType
from typing import ClassVar

import pytest

from gptkit.core.component import Component
from gptkit.core.errors import CollisionError, UnknownComponentError
from gptkit.core.hooks import hookimpl
from gptkit.core.registry import Registry, default_registry
from gptkit.core.requirements import unmet_requirements
from gptkit.core.suggestions import did_you_mean
from tests.support.fake_plugins import Mixer, Norm, Plain, Whole, make, plugin, registry


def record(of: Registry, distribution: str):
    [result] = [record for record in of.plugins() if record.distribution == distribution]
    return result


def raising(error):
    def load():
        raise error

    return load


# -- isolation -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ImportError("No module named 'flash'\nsecond line"), "could not be imported: ImportError: No module named 'flash'"),
        (SyntaxError("invalid syntax"), "could not be imported: SyntaxError: invalid syntax"),
        (SystemExit(3), "could not be imported: SystemExit: 3"),
        (ValueError(), "could not be imported: ValueError"),
    ],
)
def test_plugin_that_fails_to_import_is_recorded_and_others_work(error, message):
    result = registry(plugin("bad", load=raising(error)), plugin("good", [make("mine")]))
    assert result.names("norm") == ["exact", "mine", "plain"]
    assert record(result, "bad").status == "broken"
    assert record(result, "bad").error == message
    assert type(error).__name__ in record(result, "bad").detail
    assert record(result, "good").status == "active"


def test_keyboard_interrupt_is_raised_and_leaves_no_partial_registry():
    attempts = []

    def load():
        attempts.append(1)
        if len(attempts) == 1:
            raise KeyboardInterrupt
        return ModuleType("late")

    result = registry(plugin("late", load=load))
    with pytest.raises(KeyboardInterrupt):
        result.kinds()
    assert list(result.kinds()) == ["norm", "mixer"]
    assert [known.distribution for known in result.plugins()] == ["gptkit", "late"]


def test_hook_that_raises_disables_only_its_plugin():
    result = registry(plugin("a-bad", lambda: 1 / 0), plugin("b-good", [make("mine")]))
    assert "mine" in result.names("norm")
    assert record(result, "a-bad").error == "raised in gptkit_components: ZeroDivisionError: division by zero"


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (5, "returned int, not a list"),
        ("Plain", "returned str, not a list"),
        ({"a": Plain}, "returned dict, not a list"),
        ([Plain()], "is not a subclass of"),
        ([int], "is not a subclass of"),
        ([Norm], "is a kind; return it from gptkit_kinds"),
        ([make("Bad_Name")], "lower-case words joined by hyphens"),
        ([type("Nameless", (Norm,), {"__module__": __name__})], "does not define a name"),
        (
            [type("NoDefault", (Norm,), {"__annotations__": dict(make("x").__annotations__), "__module__": __name__})],
            "default",
        ),
    ],
)
def test_invalid_results_of_a_hook_are_rejected_with_the_reason(returned, message):
    result = registry(plugin("bad", lambda: returned))
    assert record(result, "bad").status == "broken"
    assert message in record(result, "bad").error
    assert result.names("norm") == ["exact", "plain"]


def test_none_returned_by_a_hook_is_rejected():
    result = registry(plugin("bad", lambda: None))
    assert "returned NoneType" in record(result, "bad").error


def test_class_of_an_unregistered_kind_is_rejected():
    class Strange(Component):
        kind: ClassVar[str] = "strange"

    result = registry(plugin("bad", [make("mine", Strange)]))
    assert "belongs to no registered kind" in record(result, "bad").error


def test_class_that_is_not_a_subclass_of_its_kind_is_rejected():
    class Impostor(Component):
        kind: ClassVar[str] = "norm"

    result = registry(plugin("bad", [make("mine", Impostor)]))
    assert "is not a subclass of the registered kind 'norm'" in record(result, "bad").error


def test_plugin_with_one_invalid_class_adds_nothing():
    result = registry(plugin("bad", [make("fine"), int]))
    assert "fine" not in result.names("norm")
    assert record(result, "bad").components == []


def test_misspelled_hook_is_reported_with_the_closest_match():
    module = ModuleType("fake")
    module.gptkit_component = hookimpl(lambda: [Plain])
    module.gptkit_helper = "innocent"
    result = registry(plugin("bad", load=lambda: module))
    assert record(result, "bad").error.startswith(
        "implements an unknown hook 'gptkit_component'; did you mean 'gptkit_components'?"
    )
    assert result.names("norm") == ["exact", "plain"]


def test_hook_with_unknown_arguments_disables_only_its_plugin():
    module = ModuleType("fake")

    @hookimpl
    def gptkit_components(nonsense):
        return []

    module.gptkit_components = gptkit_components
    result = registry(plugin("bad", load=lambda: module))
    assert "nonsense" in record(result, "bad").detail
    assert result.names("norm") == ["exact", "plain"]


def test_module_without_hooks_is_reported_with_the_remedy():
    result = registry(plugin("bad", load=lambda: ModuleType("empty")))
    assert (
        "mark one of gptkit_components, gptkit_kinds, gptkit_presets, gptkit_trackers with @gptkit.hookimpl"
        in record(result, "bad").error
    )


def test_second_entry_point_of_a_module_is_rejected():
    first = plugin("twice", [make("mine")], name="a")
    second = plugin("twice", name="b", load=first.load)
    result = registry(first, second)
    assert [known.status for known in result.plugins()] == ["active", "active", "broken"]
    assert "same module as another entry point" in result.plugins()[2].error
    assert "mine" in result.names("norm")


def test_output_of_a_plugin_is_captured(capsys):
    def load():
        print("loading weights …")  # noqa: T201
        print("careful", file=sys.stderr)  # noqa: T201
        return plugin("loud", lambda: print("hooked") or []).load()  # noqa: T201

    result = registry(plugin("loud", load=load))
    result.kinds()
    assert capsys.readouterr() == ("", "")
    assert record(result, "loud").printed == "loading weights …\ncareful\nhooked\n"


# -- names -----------------------------------------------------------------------------------------------------


def test_name_of_two_plugins_is_unavailable_and_others_are_kept():
    result = registry(
        plugin("one", [make("shared"), make("only-one")], version="1.2"),
        plugin("two", [make("shared"), make("only-two")], version="3.4"),
    )
    with pytest.raises(CollisionError, match=r"norm 'shared' is provided by one==1\.2 and two==3\.4.*GPTKIT_DISABLE=two"):
        result.component("norm", "shared")
    assert result.names("norm") == ["exact", "only-one", "only-two", "plain"]
    for name in ("one", "two"):
        assert record(result, name).status == "active"
        assert "one==1.2 and two==3.4" in record(result, name).error
        assert "disable one with GPTKIT_DISABLE=two" in record(result, name).error
        assert record(result, name).components == [("norm", f"only-{name}")]


def test_third_claimant_is_named_too():
    result = registry(*(plugin(name, [make("shared")]) for name in ("one", "two", "three")))
    with pytest.raises(CollisionError, match=r"one==1\.0 and three==1\.0 and two==1\.0"):
        result.component("norm", "shared")


def test_every_clash_of_a_plugin_is_reported():
    result = registry(plugin("one", [make("a"), make("b")]), plugin("two", [make("a"), make("b")]))
    assert "norm 'a'" in record(result, "one").error
    assert "norm 'b'" in record(result, "one").error


def test_disabling_one_claimant_resolves_the_clash():
    one, two = make("shared"), make("shared")
    result = registry(plugin("one", [one]), plugin("two", [two]), disabled=["Two"])
    assert result.component("norm", "shared") is one


def test_built_in_name_cannot_be_redefined():
    result = registry(plugin("thief", [make("fine"), make("plain")]))
    assert result.component("norm", "plain") is Plain
    assert record(result, "thief").status == "broken"
    assert "'plain' is built in (gptkit==0.1.0); thief==1.0 must choose another name" in record(result, "thief").error
    assert "fine" not in result.names("norm")


def test_broken_plugin_claims_no_name():
    mine = make("mine")
    result = registry(plugin("a-fine", [mine]), plugin("b-thief", [make("mine"), make("plain")]))
    assert result.component("norm", "mine") is mine
    assert record(result, "a-fine").error is None


def test_plugin_with_two_components_of_one_name_is_rejected():
    result = registry(plugin("bad", [make("mine"), make("mine")]))
    assert "provides two components called norm 'mine'" in record(result, "bad").error


def test_equal_names_in_two_kinds_do_not_collide():
    result = registry(plugin("fine", [make("plain", Mixer)]))
    assert result.component("norm", "plain") is Plain
    assert result.component("mixer", "plain").kind == "mixer"


def test_kind_defined_twice_names_both_plugins():
    class Other(Component):
        kind: ClassVar[str] = "norm"

    result = registry(plugin("other", kinds=[Other]))
    assert result.kinds()["norm"].cls is Norm
    assert "kind 'norm' is defined by both gptkit==0.1.0 and other==1.0" in record(result, "other").error


def test_plugin_can_add_a_kind_and_another_its_components():
    class Pooling(Component):
        """A kind of a third-party plugin."""

        kind: ClassVar[str] = "pooling"

    # The components' plugin is loaded first; kinds are collected before any component.
    result = registry(plugin("a-user", [make("mean", Pooling)]), plugin("z-kinds", kinds=[Pooling]))
    assert result.names("pooling") == ["mean"]
    assert result.kinds()["pooling"].plugin.distribution == "z-kinds"
    assert record(result, "z-kinds").kinds == ["pooling"]


def test_unknown_name_is_reported_with_the_closest_match_and_all_names():
    with pytest.raises(UnknownComponentError) as caught:
        registry().component("norm", "plian")
    assert caught.value.message == "unknown norm 'plian'; did you mean 'plain'? (registered: exact, plain)"


def test_unknown_name_without_a_close_match_lists_all_names():
    with pytest.raises(UnknownComponentError) as caught:
        registry().component("norm", "zzz")
    assert caught.value.message == "unknown norm 'zzz'; registered: exact, plain"


def test_unknown_name_mentions_plugins_that_could_define_it():
    result = registry(plugin("broken", load=raising(ImportError("no flash"))), plugin("off"), disabled=["off"])
    with pytest.raises(UnknownComponentError) as caught:
        result.component("norm", "flash")
    assert "plugin that did not load: broken==1.0 (could not be imported: ImportError: no flash)" in caught.value.message
    assert "Disabled by GPTKIT_DISABLE: off==1.0" in caught.value.message


def test_unknown_kind_is_reported_with_the_closest_match():
    with pytest.raises(UnknownComponentError, match="unknown kind 'nrom'; did you mean 'norm'"):
        registry().names("nrom")


def test_long_names_are_shortened_in_messages():
    with pytest.raises(UnknownComponentError) as caught:
        registry().component("norm", "x" * 1_000_000)
    assert len(caught.value.message) < 300


# -- disabling, provenance -------------------------------------------------------------------------------------


def test_environment_variable_disables_distributions(monkeypatch):
    monkeypatch.setenv("GPTKIT_DISABLE", " My.Plugin , other")
    loaded = []
    result = registry(plugin("my_plugin", load=lambda: loaded.append(1)), plugin("kept", [make("mine")]), disabled=None)
    assert record(result, "my_plugin").status == "disabled"
    assert not loaded
    assert "mine" in result.names("norm")


def test_provenance_names_the_distribution_of_each_component():
    mine = make("mine")
    result = registry(plugin("third-party", [mine], version="2.0"))
    assert result.provenance([mine(), Plain(), Plain()]) == {"norm mine": "third-party==2.0", "norm plain": "gptkit==0.1.0"}


def test_built_in_components_are_a_plugin_that_loads_first():
    result = registry(plugin("a-first-by-name", [make("mine")]))
    assert [known.distribution for known in result.plugins()] == ["gptkit", "a-first-by-name"]
    assert record(result, "gptkit").components == [("norm", "plain"), ("norm", "exact"), ("mixer", "gate")]
    assert record(result, "gptkit").kinds == ["norm", "mixer"]


# -- renames ---------------------------------------------------------------------------------------------------


def test_former_name_loads_with_a_warning():
    context = {"registry": registry()}
    with pytest.warns(DeprecationWarning, match="norm 'simple' is now called 'plain'"):
        spec = Whole.model_validate({"norm": {"name": "simple", "eps": 0.5}, "needed": 1}, context=context)
    assert spec.norm == Plain(eps=0.5)


def test_former_field_loads_with_a_warning():
    context = {"registry": registry()}
    with pytest.warns(DeprecationWarning, match="field 'epsilon' of norm 'plain' is now called 'eps'"):
        spec = Whole.model_validate({"norm": {"name": "plain", "epsilon": 0.5}, "needed": 1}, context=context)
    assert spec.norm == Plain(eps=0.5)


def test_component_takes_precedence_over_an_alias():
    new = make("simple")
    result = registry(plugin("third-party", [new]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert result.component("norm", "simple") is new


# -- loading ---------------------------------------------------------------------------------------------------


def test_plugins_load_on_first_use():
    loaded = []
    result = registry(plugin("late", load=lambda: loaded.append(1) or ModuleType("late")))
    assert not loaded
    result.kinds()
    result.plugins()
    assert loaded == [1]


def test_importing_gptkit_loads_neither_torch_nor_plugins():
    code = (
        "import sys, gptkit; gptkit.hookimpl; gptkit.SpecError; "
        "heavy = {'torch', 'numpy', 'transformers', 'gptkit.components.plugin', 'gptkit.core.registry', 'pydantic'}; "
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_kind_requires_a_registry() -> None:
    kind = (
        "from gptkit.core.component import Component; from gptkit.core.spec import Spec\n"
        "class Kind(Component):\n    kind = 'thing'\n"
        "class Whole(Spec):\n    part: Kind\n"
    )
    asked = "try: Whole(part='x')\nexcept Exception as error: print(error)"
    for imported, expected in [("", "without a registry"), ("import gptkit.kinds", "unknown kind 'thing'")]:
        code = f"{imported}\n{kind}{asked}"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert expected in done.stdout


def test_threads_share_one_complete_registry():
    loads = []

    def load():
        loads.append(1)
        time.sleep(0.02)
        return plugin("slow", [make("mine")]).load()

    result = registry(plugin("slow", load=load))
    seen, start = [], threading.Barrier(8)

    def ask():
        start.wait()
        seen.append(tuple(result.names("norm")))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [("exact", "mine", "plain")] * 8
    assert loads == [1]


def test_plugin_may_use_the_registry_while_it_loads():
    result: Registry

    def load():
        result.kinds()
        return plugin("curious", [make("mine")]).load()

    result = registry(plugin("curious", load=load))
    assert "mine" in result.names("norm")


def test_installed_plugins_load_without_error():
    errors = {known.distribution: known.error for known in default_registry().plugins() if known.built_in}
    assert errors == {"gptkit": None}
    assert default_registry() is default_registry()


# -- requirements ----------------------------------------------------------------------------------------------


def test_satisfied_requirements_are_accepted():
    assert unmet_requirements(["pydantic>=2", "PyTest", "nothing-such; python_version < '3'"]) == []


def test_unmet_requirements_are_reported_with_the_command():
    unmet = unmet_requirements(["pydantic", "nothing-such>=2", "pydantic>=999", "??"])
    assert [index for index, _ in unmet] == [1, 2, 3]
    assert unmet[0][1] == "nothing-such is not installed; run: pip install 'nothing-such>=2'"
    assert unmet[1][1].startswith("needs pydantic>=999 but 2.")
    assert unmet[1][1].endswith("run: pip install 'pydantic>=999'")
    assert "'??' is not a valid requirement" in unmet[2][1]


def test_requirement_cannot_inject_a_command_into_the_remedy():
    [(_, message)] = unmet_requirements(["nothing-such; os_name != '; rm -rf ~;'"])
    assert message.endswith("""pip install 'nothing-such; os_name != '"'"'; rm -rf ~;'"'"''""")


def test_closest_of_many_names_are_listed() -> None:
    names = [f"model-{number}" for number in range(50)] + ["qwen3-0.6b"]
    message = did_you_mean("qwen3", names, label="there are")
    assert message.startswith("did you mean 'qwen3-0.6b'? (there are 51, among them qwen3-0.6b")
    assert len(message) < 150


def test_characters_that_look_like_others_are_named() -> None:
    message = did_you_mean("m\u043edel", ["model", "name"], "keys")
    assert message == "did you mean 'model'? It is written with U+043E CYRILLIC SMALL LETTER O. (keys: model, name)"
    assert did_you_mean("mdel", ["model"], "keys") == "did you mean 'model'? (keys: model)"
