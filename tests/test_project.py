"""Project files: versions agree, dependencies are pinned, no paths of a machine."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import gptkit

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

PUBLIC = {"gptkit", "gptkit.core", "gptkit.kinds", "gptkit.nn", "gptkit.ops", "gptkit.testing"}
"""Modules that a plugin may import, and their submodules, except those of `gptkit` itself."""
WRITERS = {
    "checkpoint/entries.py": "moves the user's files out of a checkpoint that is removed",
    "checkpoint/located.py": "several processes write one file; the store makes its directory appear by a rename",
    "checkpoint/safetensors.py": "the library writes the file; the store makes its directory appear by a rename",
    "checkpoint/store.py": "a checkpoint replaces another in an order from which an interrupted save recovers",
    "cli/new.py": "keeps the user's file under another name",
    "components/tracker/csv.py": "appends rows",
    "core/atomic.py": "writes files and directories for all others",
    "data/writing.py": "appends to shards under temporary names, which a journal describes",
    "docs/building.py": "replaces an earlier site file by file; a record names the files that it wrote",
    "docs/site.py": "writes to an empty directory",
    "experiments/trial.py": "an open file receives the output of a trial",
    "inference/compiled/slot.py": "writes to the directory of an unfinished compilation",
    "inference/compiled/store.py": "a compiled step appears by one rename; the record of a failure may be lost",
    "inference/compiled/worker.py": "writes to the directory of an unfinished compilation",
    "interop/compare.py": "writes to a temporary directory",
    "runs/bench_memory.py": "resets the kernel's peak of resident memory through /proc",
    "runs/exporting.py": "moves a complete export to a directory in which the user may have files",
    "core/lock.py": "a lock is an open file",
    "runs/placing.py": "the names of directories record how far a replacement of a run has come",
    "training/records.py": "appends lines",
}
"""Modules of gptkit that write, rename or move files by themselves, and why. The conformance kit may, too."""
ENGINES = {"gptkit.cli", "gptkit.engines", "gptkit.inference", "gptkit.interop", "gptkit.runs"}
"""Modules that a plugin with an engine may also import: the contract of engines, its requests, exports, and its hosts."""


def pins() -> dict[str, Requirement]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    parsed = [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]
    assert len({canonicalize_name(pin.name) for pin in parsed}) == len(parsed), "a package is pinned twice"
    return {canonicalize_name(pin.name): pin for pin in parsed}


def tracked() -> list[Path]:
    """Return the files under version control, and those that would be."""
    done = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in done.stdout.decode().split("\0") if name and (ROOT / name).is_file()]


def test_versions_agree() -> None:
    assert PROJECT["version"] == gptkit.__version__
    assert f"## {gptkit.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_every_dependency_is_pinned_to_a_version_it_allows() -> None:
    result = pins()
    extras = PROJECT["optional-dependencies"].values()
    for text in [*PROJECT["dependencies"], *(item for extra in extras for item in extra)]:
        needed = Requirement(text)
        if needed.name == "gptkit":
            continue
        pin = result.get(canonicalize_name(needed.name))
        assert pin is not None, f"{needed.name} is missing in constraints.txt"
        (specifier,) = pin.specifier
        assert specifier.operator == "=="
        assert needed.specifier.contains(Version(specifier.version)), f"{pin} is not within {needed}"


def test_torch_is_the_version_without_cuda() -> None:
    assert str(pins()["torch"].specifier) == "==2.13.0"


def test_constraints_name_no_host() -> None:
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert not re.search(r"://|--hash|--index|--find-links|^-", text, re.MULTILINE)


def test_no_file_contains_paths_of_a_machine() -> None:
    # Concatenated, so that this file passes its own test.
    directories = ["/wo" + "rk/", "/ro" + "ot/", "/ho" + r"me/\w", "/Us" + "ers/", "/op" + "t/", r"C:\\Us" + "ers"]
    pattern = re.compile(rf"(?<![\w.$}}/])(?:{'|'.join(directories)})")
    result = []
    for path in tracked():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        result += [f"{path.relative_to(ROOT)}: {match[0]}" for match in pattern.finditer(text)]
    assert not result


def test_plugins_import_public_names_only() -> None:
    result = []
    for path in sorted((ROOT / "plugins").glob("*/*/**/*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = []
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules = [node.module]
            for module in modules:
                parts = module.split(".")
                engine = {"gptkit-llamacpp", "gptkit-vllm"} & {*path.parts}
                allowed = PUBLIC | ENGINES if engine else PUBLIC
                if parts[0] == "gptkit" and ".".join(parts[:2]) not in allowed:
                    result.append(f"{path.relative_to(ROOT)}:{node.lineno}: {module}")
    assert not result


def test_test_modules_import_shared_helpers_from_the_support_package() -> None:
    """Test modules import from no other test module or conftest; mutants are the data of one test."""
    result = []
    for path in sorted((ROOT / "tests").rglob("*.py")):
        within = path.relative_to(ROOT).parts[:-1]
        allowed = ("tests.support", "tests.mutants") if within[1:] == ("mutants",) else ("tests.support",)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                base = ".".join(within[: len(within) - node.level + 1]) if node.level else ""
                modules = [f"{base}.{node.module or ''}".strip(".")]
            elif isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            else:
                continue
            for module in modules:
                first = module.partition(".")[0]
                local = first in {"tests", "conftest"} or first.startswith("test_") or (ROOT / "tests" / first).is_dir()
                if local and not f"{module}.".startswith(tuple(f"{package}." for package in allowed)):
                    result.append(f"{path.relative_to(ROOT)}:{node.lineno}: {module}")
    assert not result, "move what tests share to tests/support/"


def test_only_the_listed_modules_write_files_by_themselves() -> None:
    pattern = re.compile(
        r"""\.rename\(|os\.(?:replace|rename)\(|\.replace\((?:target|path)\)|\.write_(?:text|bytes)\("""
        r"""|open\([^)]*["'][rb]*[wax+][waxbt+]*["']|\bsave_file\(|shutil\.(?:copy\w*|move)\("""
    )
    package = ROOT / "gptkit"
    writers = {
        path.relative_to(package).as_posix() for path in package.rglob("*.py") if pattern.search(path.read_text("utf-8"))
    }
    own = {name for name in writers if not name.startswith("testing/")}
    assert own == set(WRITERS), "write with gptkit.core.atomic, or add the module and the reason"


def test_ci_script_runs_from_any_directory() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0


@pytest.mark.parametrize("target", ["demo", "test", "docs", "lint", "types", "bench", "clean"])
def test_make_help_lists_the_targets(target: str) -> None:
    text = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert re.search(rf"^  {target} +\w", text, re.MULTILINE)


def test_readme_table_lists_built_in_components() -> None:
    from gptkit.core.registry import Registry, default_registry

    registry: Registry = default_registry()
    rows = re.findall(r"^\| ([a-z-]+) \| (`.*`) \|$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    listed = {kind: re.findall(r"`([^`]+)`", names) for kind, names in rows}
    built_in = {
        kind: [name for name, entry in registry.entries(kind).items() if entry.plugin.built_in] for kind in registry.kinds()
    }
    del built_in["family"]
    assert listed == built_in, "README.md lists other components than are built in; update its table"


def test_files_of_the_package_have_one_subject() -> None:
    files = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in (ROOT / "gptkit").rglob("*.py")}
    assert [name for name, text in files.items() if text.count("\n") > 350] == [], "split files of over 350 lines"
