"""`Slot`: a compiled step on its way from the model to a loaded library."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gptkit.inference.compiled.checking import check_step
from gptkit.inference.compiled.form import StepForm
from gptkit.inference.compiled.store import Store
from gptkit.model.gpt import GPT

if TYPE_CHECKING:
    from gptkit.inference.compiled.step import CompiledStep

__all__ = ["Slot"]

_log = logging.getLogger("gptkit")

_ERROR = re.compile(r"[\w.]+(Error|Exception): ")


class Slot:
    """The compiled step of one form, on its way: looked up, traced, compiled in another process, loaded.

    Args:
        model: the model; held weakly.
        form: the form.
        store: where compiled steps are kept.
        packed: weights in another form that the steps of this model share; extended.
        workers: processes that compile steps of this model, one at a time; changed.

    Attributes:
        step: the step; None until it is ready.
    """

    def __init__(
        self,
        model: GPT,
        form: StepForm,
        store: Store,
        packed: dict[tuple[str, str], Tensor],
        workers: list[subprocess.Popen[bytes]],
    ) -> None:
        self._reference = weakref.ref(model)
        self._form, self._store, self._packed, self._workers = form, store, packed, workers
        self.step: CompiledStep | None = None
        self._worker: subprocess.Popen[bytes] | None = None
        self._work: Path | None = None
        self._key = ""
        self._over = False
        """Whether nothing is left to try."""
        self._waits = 0

    def poll(self) -> None:
        """Advance as far as possible without waiting; leaves `step` None until it is ready."""
        if self._over or self.step is not None:
            return
        try:
            self._advance()
        except Exception as error:
            # Whatever a component, torch or the compiler raises: the eager step computes the same.
            self._give_up(_reason(error))

    def wait(self) -> None:
        """As `poll`, and wait for the compilation if it has begun."""
        self.poll()
        if self._worker is not None:
            self._worker.wait()
            self.poll()

    def _advance(self) -> None:
        if self._worker is not None:
            code = self._worker.poll()
            if code is not None:
                self._collect(code)
            return
        model = self._reference()
        assert model is not None
        if not self._key:
            from gptkit.inference.compiled.key import step_key

            self._key = step_key(model, self._form)
        elif self._waits:
            # Another process compiles it: look again now and then.
            self._waits -= 1
            return
        entry = self._store.find(self._key)
        if entry is not None:
            self._load(entry)
        elif all(worker.poll() is not None for worker in self._workers):
            self._start(model)

    def _start(self, model: GPT) -> None:
        failure = self._store.failure(self._key)
        if failure is not None:
            self._give_up(failure)
            return
        work = self._store.begin(self._key)
        if work is None:
            self._waits = 100
            return
        self._work = work
        try:
            _write(model, work, self._form)
        except Exception as error:
            self._store.finish(self._key, work)
            self._store.fail(self._key, _reason(error))
            raise
        command = [sys.executable, "-m", "gptkit.inference.compiled.worker", str(work), str(torch.get_num_threads())]
        environment = {
            **os.environ,
            "TORCHINDUCTOR_CACHE_DIR": str(work / "inductor"),
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        with (work / "log.txt").open("wb") as log:
            self._worker = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, preexec_fn=_low_priority()
            )
        self._workers.append(self._worker)

    def _collect(self, code: int) -> None:
        assert self._work is not None
        assert self._worker is not None
        self._workers.remove(self._worker)
        self._worker = None
        log = (self._work / "log.txt").read_text(encoding="utf-8", errors="replace").splitlines()
        entry = self._store.finish(self._key, self._work)
        if entry is None:
            # torch prints the location in the model after the error.
            errors = [line for line in log if _ERROR.match(line)]
            reason = next((line for line in reversed(errors or log) if line.strip()), f"exit code {code}")
            self._store.fail(self._key, reason)
            self._give_up(reason)
        else:
            self._load(entry)

    def _load(self, entry: Path) -> None:
        from gptkit.inference.compiled.step import CompiledStep

        model = self._reference()
        assert model is not None
        step = CompiledStep.load(model, entry, self._form, self._packed)
        check_step(model, step, self._form)
        self.step = step

    def _give_up(self, reason: str) -> None:
        self._over = True
        width = self._form.width
        what = "the decode step" if width == 1 else f"the decode step of {width} tokens"
        _log.warning("%s cannot be compiled, and is computed eagerly: %s", what, reason)


def _write(model: GPT, work: Path, form: StepForm) -> None:
    """Trace the step, and write what the worker reads."""
    import json

    from safetensors.torch import save_file

    from gptkit.inference.compiled.trace import trace

    training = model.training
    model.train(False)
    try:
        traced = trace(model, form)
    finally:
        model.train(training)
    traced.program._example_inputs = None  # the weights are not written
    torch.export.save(traced.program, work / "graph.pt2")
    modules = sorted({"gptkit.ops.grouped", *(type(module).__module__ for module in model.modules())} - {"__main__"})
    (work / "sources.json").write_text(json.dumps({"inputs": traced.sources, "modules": modules}), encoding="utf-8")
    save_file({name: value.contiguous() for name, value in traced.constants.items()}, work / "constants.safetensors")


def _low_priority() -> Any:
    """What the worker runs first: it gives way to everything else."""
    return (lambda: os.nice(19)) if hasattr(os, "nice") else None


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"
