"""gptkit: compose GPT language models from spec files.

The public names, imported on first use, so that ``import gptkit`` costs nothing::

    import gptkit

    model = gptkit.build("tiny.yaml")             # a spec file becomes a torch module
    run = gptkit.train("tiny.yaml", "runs/tiny")  # … and is trained
    run = gptkit.load("runs/tiny")
    print(run.generate("Once"))
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gptkit.core.errors import CapacityError as CapacityError
    from gptkit.core.errors import CheckpointError as CheckpointError
    from gptkit.core.errors import DataError as DataError
    from gptkit.core.errors import ExternalModelError as ExternalModelError
    from gptkit.core.errors import FileError as FileError
    from gptkit.core.errors import GptkitError as GptkitError
    from gptkit.core.errors import RegistryError as RegistryError
    from gptkit.core.errors import RequirementError as RequirementError
    from gptkit.core.errors import SpecError as SpecError
    from gptkit.core.errors import StateError as StateError
    from gptkit.core.errors import TokenizerError as TokenizerError
    from gptkit.core.errors import TrainingError as TrainingError
    from gptkit.core.hooks import hookimpl as hookimpl
    from gptkit.core.lazy import LazyComponent as LazyComponent
    from gptkit.core.registry import Registry as Registry
    from gptkit.core.registry import default_registry as default_registry
    from gptkit.experiments.comparison import compare as compare
    from gptkit.experiments.search import search as search
    from gptkit.inference import generate as generate
    from gptkit.kinds.callback import Callback as Callback
    from gptkit.model.gpt import GPT as GPT
    from gptkit.model.spec import ModelSpec as ModelSpec
    from gptkit.runs.build import build as build
    from gptkit.runs.calibrating import calibrate_run as calibrate_run
    from gptkit.runs.exporting import export_model as export_model
    from gptkit.runs.importing import import_model as import_model
    from gptkit.runs.opening import open_spec as open_spec
    from gptkit.runs.quantizing import quantize_run as quantize_run
    from gptkit.runs.run import Run as Run
    from gptkit.runs.run import load as load
    from gptkit.runs.saving import save_run as save_run
    from gptkit.runs.spec import ExperimentSpec as ExperimentSpec
    from gptkit.runs.train import resume as resume
    from gptkit.runs.train import train as train
    from gptkit.training.config import TrainingSpec as TrainingSpec

_WHERE = {
    "calibrate_run": "gptkit.runs.calibrating",
    "Callback": "gptkit.kinds.callback",
    "CapacityError": "gptkit.core.errors",
    "CheckpointError": "gptkit.core.errors",
    "DataError": "gptkit.core.errors",
    "FileError": "gptkit.core.errors",
    "ExperimentSpec": "gptkit.runs.spec",
    "ExternalModelError": "gptkit.core.errors",
    "GPT": "gptkit.model.gpt",
    "GptkitError": "gptkit.core.errors",
    "LazyComponent": "gptkit.core.lazy",
    "ModelSpec": "gptkit.model.spec",
    "Registry": "gptkit.core.registry",
    "RegistryError": "gptkit.core.errors",
    "RequirementError": "gptkit.core.errors",
    "Run": "gptkit.runs.run",
    "SpecError": "gptkit.core.errors",
    "StateError": "gptkit.core.errors",
    "TokenizerError": "gptkit.core.errors",
    "TrainingError": "gptkit.core.errors",
    "TrainingSpec": "gptkit.training.config",
    "build": "gptkit.runs.build",
    "compare": "gptkit.experiments.comparison",
    "default_registry": "gptkit.core.registry",
    "export_model": "gptkit.runs.exporting",
    "generate": "gptkit.inference",
    "hookimpl": "gptkit.core.hooks",
    "import_model": "gptkit.runs.importing",
    "load": "gptkit.runs.run",
    "open_spec": "gptkit.runs.opening",
    "quantize_run": "gptkit.runs.quantizing",
    "resume": "gptkit.runs.train",
    "save_run": "gptkit.runs.saving",
    "search": "gptkit.experiments.search",
    "train": "gptkit.runs.train",
}

__all__ = list(_WHERE)
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'gptkit' has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
