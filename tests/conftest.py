"""Fixtures and settings of all tests."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin long files first: a process that takes whole files, and begins such a file last, would run on alone."""
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
