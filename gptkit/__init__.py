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
    from gptkit.errors import CapacityError as CapacityError
    from gptkit.errors import CheckpointError as CheckpointError
    from gptkit.errors import DataError as DataError
    from gptkit.errors import ForeignModelError as ForeignModelError
    from gptkit.errors import GptkitError as GptkitError
    from gptkit.errors import RegistryError as RegistryError
    from gptkit.errors import RequirementError as RequirementError
    from gptkit.errors import SpecError as SpecError
    from gptkit.errors import StateError as StateError
    from gptkit.errors import TokenizerError as TokenizerError
    from gptkit.errors import TrainingError as TrainingError
    from gptkit.experiments.build import build as build
    from gptkit.experiments.exporting import export_model as export_model
    from gptkit.experiments.gguf import export_gguf as export_gguf
    from gptkit.experiments.importing import import_model as import_model
    from gptkit.experiments.opening import open_spec as open_spec
    from gptkit.experiments.run import Run as Run
    from gptkit.experiments.run import load as load
    from gptkit.experiments.spec import ExperimentSpec as ExperimentSpec
    from gptkit.experiments.train import resume as resume
    from gptkit.experiments.train import train as train
    from gptkit.generation import generate as generate
    from gptkit.hookspecs import hookimpl as hookimpl
    from gptkit.model.gpt import GPT as GPT
    from gptkit.model.spec import ModelSpec as ModelSpec
    from gptkit.registry import Registry as Registry
    from gptkit.registry import default_registry as default_registry
    from gptkit.training.observer import Observer as Observer
    from gptkit.training.spec import TrainingSpec as TrainingSpec

_WHERE = {
    "CapacityError": "gptkit.errors",
    "CheckpointError": "gptkit.errors",
    "DataError": "gptkit.errors",
    "ExperimentSpec": "gptkit.experiments.spec",
    "ForeignModelError": "gptkit.errors",
    "GPT": "gptkit.model.gpt",
    "GptkitError": "gptkit.errors",
    "ModelSpec": "gptkit.model.spec",
    "Observer": "gptkit.training.observer",
    "Registry": "gptkit.registry",
    "RegistryError": "gptkit.errors",
    "RequirementError": "gptkit.errors",
    "Run": "gptkit.experiments.run",
    "SpecError": "gptkit.errors",
    "StateError": "gptkit.errors",
    "TokenizerError": "gptkit.errors",
    "TrainingError": "gptkit.errors",
    "TrainingSpec": "gptkit.training.spec",
    "build": "gptkit.experiments.build",
    "default_registry": "gptkit.registry",
    "export_gguf": "gptkit.experiments.gguf",
    "export_model": "gptkit.experiments.exporting",
    "generate": "gptkit.generation",
    "hookimpl": "gptkit.hookspecs",
    "import_model": "gptkit.experiments.importing",
    "load": "gptkit.experiments.run",
    "open_spec": "gptkit.experiments.opening",
    "resume": "gptkit.experiments.train",
    "train": "gptkit.experiments.train",
}

__all__ = list(_WHERE)
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'gptkit' has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
