"""The key of a compiled decode step: a hash of all that the machine code depends on."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import platform
from dataclasses import asdict
from pathlib import Path

import torch

from gptkit.inference.compiled.form import StepForm
from gptkit.model.gpt import GPT

__all__ = ["step_key"]


def step_key(model: GPT, form: StepForm) -> str:
    """The key of a form of the decode step of a model.

    It covers the spec, the form of all weights (packed ones too), the source files of the modules, of gptkit's shared
    rooms and of torch's version, the CPU, and the number of threads.
    """
    weights = [
        [name, str(tensor.dtype), str(tensor.layout), list(tensor.shape), str(tensor.device.type)]
        for name, tensor in (*model.named_parameters(), *model.named_buffers())
    ]
    described = {
        "spec": model.spec.model_dump(mode="json"),
        "vocabulary": model.vocab_size,
        "weights": weights,
        "form": asdict(form),
        "source": _source(frozenset(type(module) for module in model.modules())),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "machine": _machine(model.device.type),
    }
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:32]


@functools.lru_cache(maxsize=16)
def _source(classes: frozenset[type]) -> str:
    """A hash of the code that a step is traced from: gptkit's, and that of the modules' classes."""
    package = Path(__file__).resolve().parents[2]
    files = {path for room in ("nn", "ops", "model", "inference/compiled") for path in (package / room).rglob("*.py")}
    for each in classes:
        try:
            files.add(Path(inspect.getfile(each)).resolve())
        except TypeError:
            continue  # a built-in class, or one of an interactive session
    digest = hashlib.sha256()
    for path in sorted(files):
        if "torch" not in path.parts:
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


@functools.cache
def _machine(device: str) -> str:
    if device == "cuda":
        return f"{torch.cuda.get_device_name()} {torch.cuda.get_device_capability()}"
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    model = next((line for line in lines if line.startswith("model name")), platform.processor())
    return f"{platform.machine()} {model} {flags} {torch.backends.cpu.get_cpu_capability()}"
