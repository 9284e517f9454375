"""Commands about specs and components start without torch and the other large libraries."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gptkit.cli.collection import collection_paused

LARGE = ("torch", "numpy", "matplotlib", "transformers", "tokenizers", "tiktoken", "safetensors", "gguf", "jinja2")
SMALLER = ("pydantic", "ruamel.yaml", "rich", "packaging.requirements")
REPORT = f"import sys; print('imported:', *sorted(set(sys.modules) & set({LARGE + SMALLER!r})))"


def imported_by(code: str, directory: Path, **environment: str) -> tuple[list[str], str]:
    """Run code in a new process; return which of the libraries above it imported, and its output."""
    script = f"import atexit\natexit.register(lambda: exec({REPORT!r}))\n{code}"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=directory,
        env={**os.environ, "GPTKIT_DISABLE": _other_plugins(), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    output, _, libraries = done.stdout.rpartition("imported:")
    return libraries.split(), output


def _other_plugins() -> str:
    """Hide installed plugins, which may import anything; only gptkit's start-up is tested."""
    from gptkit.core.registry import default_registry

    return ",".join(plugin.distribution for plugin in default_registry().plugins() if not plugin.built_in)


def command(*arguments: str) -> str:
    return f"import sys; sys.argv = ['gptkit', *{list(arguments)!r}]\nfrom gptkit.cli.main import main\nmain()"


@pytest.mark.parametrize(
    ("arguments", "printed", "needed"),
    [
        (("--help",), "Usage", {"rich"}),
        (("--version",), "gptkit", set()),
        (("check", "tiny"), "tiny: valid", {"pydantic", "ruamel.yaml"}),
        (("show", "tiny", "--resolved"), "n_layers", {"pydantic", "ruamel.yaml"}),
        (("components",), "attention", {"pydantic", "rich"}),
        (("components", "norm"), "rms", {"pydantic", "rich"}),
        (("components", "norm", "rms"), "eps", {"pydantic", "ruamel.yaml", "rich"}),
        (("components", "attention", "--contract"), "gptkit.nn.attention.base.Attention", {"pydantic", "rich"}),
        (("plugins",), "gptkit", {"pydantic", "rich"}),
        (("plugins", "--verbose"), "multi-head", {"pydantic", "rich"}),
        (("schema",), '"$defs"', {"pydantic", "ruamel.yaml"}),
        (("new", "--list"), "tiny", {"pydantic", "rich"}),
        (("new", "mine.yaml"), "mine.yaml", {"pydantic", "ruamel.yaml", "rich"}),
        (("new", "mine.yaml", "--no-schema"), "mine.yaml", {"pydantic", "ruamel.yaml", "rich"}),
    ],
)
def test_commands_about_specs_and_components_import_what_they_need(
    arguments: tuple[str, ...], printed: str, needed: set[str], tmp_path: Path
) -> None:
    libraries, output = imported_by(command(*arguments), tmp_path)
    assert printed in output
    assert set(libraries) <= needed


def counts_after(code: str, directory: Path, **environment: str) -> dict[str, int]:
    """Return the numbers of spec classes, of those with a schema, and of imported component modules."""
    count = """
from gptkit.core.spec import Spec
def below(cls):
    return [cls, *(each for sub in cls.__subclasses__() for each in below(sub))]
classes = set(below(Spec))
modules = [name for name in sys.modules if name.startswith("gptkit.components.") and name.count(".") == 3]
modules += [name for name in sys.modules if name.startswith(("gptkit.interop.families.", "gptkit.interop.formats."))]
print("counts:", len(classes), sum(cls.__pydantic_complete__ for cls in classes), len(modules))
"""
    _, output = imported_by(
        f"import sys\ntry:\n    exec({code!r})\nexcept SystemExit: pass\n{count}", directory, **environment
    )
    defined, built, modules = map(int, output.partition("counts:")[2].split())
    return {"defined": defined, "built": built, "modules": modules}


def test_check_imports_and_builds_only_the_spec_classes_that_the_spec_uses(tmp_path: Path) -> None:
    from gptkit.core.registry import default_registry

    registry = default_registry()
    n_components = sum(len(registry.names(kind)) for kind in registry.kinds())
    assert n_components > 130
    (tmp_path / "small.yaml").write_text("model: {d_model: 16, n_layers: 1}\ntokenizer: byte\n", encoding="utf-8")
    # The file uses 16 components. Kinds, other specs, and the components' base classes add to them.
    counts = counts_after(command("check", "small.yaml"), tmp_path)
    assert 10 <= counts["modules"] <= 30
    assert 10 <= counts["built"] <= 30
    assert counts["defined"] <= 80


@pytest.mark.parametrize("arguments", [("components",), ("plugins",), ("new", "--list")])
def test_lists_of_names_import_no_component(arguments: tuple[str, ...], tmp_path: Path) -> None:
    counts = counts_after(command(*arguments), tmp_path)
    assert counts["modules"] == 0
    assert counts["built"] == 0


@pytest.mark.slow
def test_a_second_schema_imports_only_the_components_of_the_spec(tmp_path: Path) -> None:
    # Source files that were changed just now are not taken as the imported ones.
    settled = "import gptkit.reflect.schema_cache as cache\ncache._SETTLED = 0\n"
    first, second, bare = (
        counts_after(settled + command("new", "mine.yaml", "--force", *more), tmp_path, GPTKIT_CACHE=str(tmp_path / "cache"))
        for more in ((), (), ("--no-schema",))
    )
    assert second == bare
    assert first["modules"] > 2 * second["modules"]
    assert '"$defs"' in (tmp_path / "gptkit.schema.json").read_text(encoding="utf-8")


def test_show_does_not_import_the_compiler(tmp_path: Path) -> None:
    # A placeholder replaces the compiler; the sizes equal those computed with the compiler.
    code = (
        f"import json, sys\n{command('show', 'tiny', '--json')}".replace("main()", "")
        + """
import contextlib, io
def shown():
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        main()
    return json.loads(text.getvalue())
first = shown()
import torch
assert not any(name.split('.')[:2] == ['torch', '_dynamo'] for name in sys.modules), 'imported'
assert '_dynamo' not in vars(torch)
import torch._dynamo
assert torch._dynamo.__file__ and sys.modules['torch._dynamo'] is torch._dynamo
assert shown() == first
print('parameters', first['sizes']['parameters'])
"""
    )
    _, output = imported_by(code, tmp_path)
    assert "parameters 3737856" in output


@pytest.mark.slow
def test_other_attributes_of_the_compiler_import_it_within_the_block(tmp_path: Path) -> None:
    code = """
import inspect, sys, torch
from gptkit.cli.compiler import without_compiler
with without_compiler():
    torch.nn.Embedding(4, 2, device="meta")
    stub = sys.modules["torch._dynamo"]
    [getattr(module, "__file__", None) for module in list(sys.modules.values())]  # as inspect does
    assert sys.modules["torch._dynamo"] is stub
    import torch._dynamo.config
    assert sys.modules["torch._dynamo"] is torch._dynamo is not stub
    assert torch._dynamo.config.verbose is False
assert sys.modules["torch._dynamo"] is torch._dynamo
print(torch.compile(lambda x: x + 1, backend="eager")(torch.ones(1)).item())
"""
    _, output = imported_by(code, tmp_path)
    assert output.split() == ["2.0"]


def test_torch_is_imported_without_collections_and_collected_normally_afterwards(tmp_path: Path) -> None:
    code = """
import gc
from gptkit.cli.collection import import_torch
import sys
gc.collect()
before = gc.get_stats()[1:]
import_torch()
assert gc.get_stats()[1:] == before, "objects of the import were examined again"
assert "torch" in sys.modules and gc.isenabled()
frozen = gc.get_freeze_count()
assert frozen > 100_000
import_torch()
assert gc.get_freeze_count() == frozen, "objects of the program were exempted"
print("imported")
"""
    _, output = imported_by(code, tmp_path)
    assert output.split() == ["imported"]


def test_a_paused_collection_stays_paused_where_the_caller_paused_it() -> None:
    with collection_paused():
        assert not gc.isenabled()
        with collection_paused():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("gptkit che", "check"),
        ("gptkit components nor", "norm"),
        ("gptkit components norm r", "rms"),
        ("gptkit new --from ti", "tiny"),
    ],
)
def test_completion_imports_no_large_library(typed: str, completed: str, tmp_path: Path) -> None:
    shell = {"_GPTKIT_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1)}
    libraries, output = imported_by(command(), tmp_path, **shell)
    assert completed in output.split()
    assert not set(libraries) & set(LARGE)


@pytest.mark.slow
def test_every_shipped_spec_is_validated_without_a_large_library(tmp_path: Path) -> None:
    code = (
        "from gptkit.presets.catalog import groups\nfrom gptkit.runs.opening import open_spec\n"
        # The fine-tuning presets are complete only with their source model.
        "for name in (*groups()['to start from'], *groups()['released models']):\n"
        "    print(name, open_spec(name).spec.sha256)"
    )
    libraries, output = imported_by(code, tmp_path)
    assert "tiny " in output
    assert len(output.splitlines()) > 40
    assert not set(libraries) & set(LARGE)


def test_an_invalid_spec_is_reported_without_a_large_library(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(
        "model:\n  d_model: 30\n  attention: {name: multi-head, n_heads: 4}\n", encoding="utf-8"
    )
    code = f"try:\n    exec({command('check', 'bad.yaml')!r})\nexcept SystemExit as stopped:\n    print(stopped.code)"
    libraries, output = imported_by(code, tmp_path)
    assert output.split() == ["2"]
    assert not set(libraries) & set(LARGE)
