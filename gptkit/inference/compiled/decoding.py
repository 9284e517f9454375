"""`CompiledDecoding`: a model whose decode steps are compiled as soon as that is ready, and computed eagerly until then."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gptkit.inference.compiled.store import Store
from gptkit.inference.protocol import LanguageModel
from gptkit.model.cache import Cache
from gptkit.model.gpt import GPT, Output

__all__ = ["CompiledDecoding", "decoding_model"]

_log = logging.getLogger("gptkit")

_known: weakref.WeakKeyDictionary[GPT, CompiledDecoding] = weakref.WeakKeyDictionary()


def decoding_model(model: LanguageModel, *, compile: bool) -> Any:
    """The model to decode with: with `compile` a `CompiledDecoding`, the same one for every call."""
    if not compile or not isinstance(model, GPT):
        return model
    if model not in _known:
        _known[model] = CompiledDecoding(model)
    return _known[model]


class CompiledDecoding:
    """A model that decodes with a compiled step where one is ready, and eagerly until then; a `LanguageModel`.

    The compiled step reads and writes the same cache as the eager one, so the change happens between two tokens, and the
    text is the same (up to rounding). It is compiled in another process of low priority, once for one row and once for any
    number of rows, and kept in the user's cache directory for every model of this architecture (`Store`). What cannot be
    compiled (a component that cannot be traced, no C++ compiler) is computed eagerly, with one note in the log.

    Args:
        model: the model.
        store: where compiled steps are kept.
    """

    def __init__(self, model: GPT, store: Store | None = None) -> None:
        # Weakly: the models that were decoded with are keys of a weak dictionary, whose values are these.
        self._reference = weakref.ref(model)
        self._store = Store() if store is None else store
        self._slots: dict[bool, _Slot] = {}
        self._forms: dict[tuple[str, str], Tensor] = {}
        self._weights: list[tuple[int, int]] = []

    @property
    def model(self) -> GPT:
        """The model."""
        model = self._reference()
        assert model is not None
        return model

    @property
    def context_length(self) -> int:
        """As `LanguageModel.context_length`."""
        return self.model.context_length

    @property
    def vocab_size(self) -> int:
        """As `LanguageModel.vocab_size`."""
        return self.model.vocab_size

    @property
    def device(self) -> torch.device:
        """As `LanguageModel.device`."""
        return self.model.device

    @property
    def training(self) -> bool:
        """As `LanguageModel.training`."""
        return self.model.training

    def train(self, mode: bool = True) -> None:
        """As `LanguageModel.train`."""
        self.model.train(mode)

    def new_cache(self, batch: int, capacity: int | None = None, left_padding_B: Tensor | None = None) -> Cache:
        """As `GPT.new_cache`."""
        self._notice_changes()
        return self.model.new_cache(batch, capacity, left_padding_B)

    def __call__(self, ids_BT: Tensor, *, cache: Cache | None = None, last_only: bool = False) -> Output:
        """As a call of the model."""
        if cache is not None and ids_BT.shape[1] == 1 and last_only:
            step = self._step(many=ids_BT.shape[0] > 1, cache=cache)
            if step is not None:
                return Output(step(ids_BT, cache)[:, None])
        output: Output = self.model(ids_BT, cache=cache, last_only=last_only)
        return output

    def _notice_changes(self) -> None:
        """Forget the packed weights if the model was trained, loaded or moved since they were made."""
        weights = [
            (weight.data_ptr(), 0 if weight.is_inference() else weight._version) for weight in self.model.parameters()
        ]
        if weights != self._weights:
            self._slots.clear()
            self._forms.clear()
            self._weights = weights

    def ready(self, *, many: bool = False) -> bool:
        """Whether the compiled step is loaded."""
        slot = self._slots.get(many)
        return slot is not None and slot.step is not None

    def wait(self, *, many: bool = False) -> bool:
        """Compile the step now, or wait until it is compiled; return whether it is ready."""
        slot = self._slot(many)
        slot.poll()
        if slot.step is None and slot.worker is not None:
            slot.worker.wait()
            slot.poll()
        return slot.step is not None

    def _step(self, *, many: bool, cache: Cache) -> Any:
        slot = self._slot(many)
        if slot.step is None:
            slot.poll()
        return slot.step if slot.step is not None and cache.is_plain else None

    def _slot(self, many: bool) -> _Slot:
        if many not in self._slots:
            self._slots[many] = _Slot(self, many)
        return self._slots[many]


class _Slot:
    """The compiled step of one form, on its way: looked up, traced, compiled in another process, loaded."""

    def __init__(self, host: CompiledDecoding, many: bool) -> None:
        self._host = weakref.ref(host)
        self._store, self._forms, self._many = host._store, host._forms, many
        self.step: Any = None
        self.worker: subprocess.Popen[bytes] | None = None
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

    def _advance(self) -> None:
        if self.worker is not None:
            code = self.worker.poll()
            if code is None:
                return
            self._collect(code)
            return
        host = self._host()
        assert host is not None
        if not self._key:
            from gptkit.inference.compiled.key import step_key

            self._key = step_key(host.model, many=self._many)
        elif self._waits:
            # Another process compiles it: look again now and then.
            self._waits -= 1
            return
        entry = self._store.find(self._key)
        if entry is not None:
            self._load(entry)
        else:
            self._start(host.model)

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
            _write(model, work, many=self._many)
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
            self.worker = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, preexec_fn=_low_priority()
            )

    def _collect(self, code: int) -> None:
        assert self._work is not None
        self.worker = None
        log = (self._work / "log.txt").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        entry = self._store.finish(self._key, self._work)
        if entry is None:
            reason = next((line for line in reversed(log) if line.strip()), f"exit code {code}")
            self._store.fail(self._key, reason)
            self._give_up(reason)
        else:
            self._load(entry)

    def _load(self, entry: Path) -> None:
        from gptkit.inference.compiled.step import CompiledStep

        host = self._host()
        assert host is not None
        step = CompiledStep.load(host.model, entry, self._forms)
        _check(host.model, step, n_rows=2 if self._many else 1)
        self.step = step

    def _give_up(self, reason: str) -> None:
        self._over = True
        _log.warning("the decode step cannot be compiled, and is computed eagerly: %s", reason)


@torch.no_grad()
def _check(model: GPT, step: Any, n_rows: int) -> None:
    """Compare a compiled step with the eager one, so that an error of the compiler is never taken for the model's text.

    Raises:
        RuntimeError: their logits differ by more than rounding.
    """
    ids_BT = torch.arange(3, device=model.device).remainder(model.vocab_size).repeat(n_rows, 1)
    logits = []
    for compute in (lambda ids, cache: model(ids, cache=cache, last_only=True).logits[:, -1].float(), step):
        cache = model.new_cache(n_rows, min(64, model.context_length))
        model(ids_BT[:, :2], cache=cache, last_only=True)
        logits.append(compute(ids_BT[:, 2:], cache))
    expected_BV, actual_BV = logits
    tolerance = 1e-3 if model.dtype in (torch.float32, torch.float64) else 0.1
    if not (actual_BV - expected_BV).abs().max() <= tolerance * expected_BV.abs().max().clamp_min(1):
        raise RuntimeError("the compiled step returns other logits than the model")


def _write(model: GPT, work: Path, *, many: bool) -> None:
    """Trace the step, and write what the worker reads."""
    import json

    from safetensors.torch import save_file

    from gptkit.inference.compiled.trace import trace

    training = model.training
    model.train(False)
    try:
        traced = trace(model, many=many)
    finally:
        model.train(training)
    traced.program._example_inputs = None  # the weights are not written
    torch.export.save(traced.program, work / "graph.pt2")
    (work / "sources.json").write_text(json.dumps(traced.sources), encoding="utf-8")
    save_file({name: value.contiguous() for name, value in traced.constants.items()}, work / "constants.safetensors")


def _low_priority() -> Any:
    """What the worker runs first: it gives way to everything else."""
    return (lambda: os.nice(19)) if hasattr(os, "nice") else None


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"
