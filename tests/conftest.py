"""Fixtures and settings of all tests."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

# Tensors are tiny, so synchronizing threads would take longer than the computation.
os.environ.setdefault("OMP_NUM_THREADS", "1")


LONGEST = (
    *("inference/test_compiled.py", "testing/test_builtins.py", "inference/test_compiled_widths.py", "docs/test_walk.py"),
    *("interop/test_torch_export.py", "training/test_parallel_layouts.py", "experiments/test_comparison.py"),
    *("interop/test_onnx.py", "training/test_distributed.py", "ejection/test_options.py", "mutants/test_mutants.py"),
    *("training/test_reliability.py", "experiments/test_matching.py", "runs/test_damaged_checkpoints.py"),
)
"""Files of slow tests that take more than a minute, the longest first."""


_MARK = re.compile(r"\b(slow|nightly)\b")


@cache
def modules_that_mark() -> list[str]:
    """Return the modules of tests/support that may mark tests as slow."""
    files = sorted((Path(__file__).parent / "support").glob("*.py"))
    return [f"tests.support.{file.stem} " for file in files if _MARK.search(file.read_text(encoding="utf-8"))]


@cache
def may_have_slow_tests(file: Path) -> bool:
    """Whether the text of a test file has a mark of slow tests, or the name of a module that marks tests."""
    text = file.read_text(encoding="utf-8")
    return bool(_MARK.search(text)) or any(module in text for module in modules_that_mark())


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Import no files without slow tests where only slow ones run: importing all files takes 20 seconds."""
    only_slow = re.fullmatch("(slow|nightly)( and not nightly)?", config.option.markexpr)
    is_test = collection_path.suffix == ".py" and collection_path.name.startswith("test_")
    if not only_slow or not is_test or any(collection_path.name in argument for argument in config.args):
        return None
    return None if may_have_slow_tests(collection_path) else True


@pytest.hookimpl(tryfirst=True)  # before tests of other marks are deselected
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin long files first: a process that takes whole files, and begins such a file last, would run on alone.

    Raises:
        pytest.UsageError: a slow test is in a file that `pytest_ignore_collect` does not recognize.
    """
    for path in {item.path for item in items if item.get_closest_marker("slow") or item.get_closest_marker("nightly")}:
        if not may_have_slow_tests(path):
            raise pytest.UsageError(f"{path}: may_have_slow_tests in tests/conftest.py does not find what marks its tests")
    rank = {str(Path(__file__).parent / name): number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(str(item.path), len(rank)))


@pytest.fixture(scope="session", autouse=True)
def own_cache_directory(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Neither read nor write the user's cache."""
    os.environ["GPTKIT_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session", autouse=True)
def unhurried() -> Iterator[None]:
    """Let no operation of this process be long enough to be shown: messages do not depend on the speed of the machine."""
    from gptkit.core import activity

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(activity, "DELAY", 86_400.0)
        yield


@pytest.fixture(scope="session", autouse=True)
def drawing() -> Iterator[Callable[..., None]]:
    """Write one pixel in place of the plot of losses, except in other processes and with `real_plots`.

    Returns the function that draws it.
    """
    from gptkit.training.records import LossPlot
    from tests.support.plots import write_one_pixel

    original = LossPlot.on_checkpoint
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LossPlot, "on_checkpoint", write_one_pixel)
        yield original


@pytest.fixture
def real_plots(drawing: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw the plots of losses as users see them."""
    from gptkit.training.records import LossPlot

    monkeypatch.setattr(LossPlot, "on_checkpoint", drawing)
