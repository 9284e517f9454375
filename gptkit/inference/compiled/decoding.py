"""`CompiledDecoding`: a model whose decode steps are compiled as soon as that is ready, and computed eagerly until then."""

from __future__ import annotations

import subprocess
import weakref
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gptkit.inference.compiled.form import ONE_TOKEN, WIDTHS, StepForm
from gptkit.inference.compiled.layout import has_room
from gptkit.inference.compiled.slot import Slot
from gptkit.inference.compiled.store import Store
from gptkit.inference.protocol import LanguageModel
from gptkit.model.cache import Cache
from gptkit.model.gpt import GPT, Output

if TYPE_CHECKING:
    from gptkit.inference.compiled.step import CompiledStep

__all__ = ["CompiledDecoding", "decoding_model"]

_MOST_ROWS = 64
"""Rows of tokens in all that a step of several tokens takes: products of integers have other forms for more."""

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
    number of rows, and kept in the user's cache directory for every model of this architecture (`Store`). Steps that verify
    several tokens (speculative decoding) are compiled for some widths, when they are first needed; fewer tokens than the
    width are filled up. What cannot be compiled (a component that cannot be traced, no C++ compiler) is computed eagerly,
    with one note in the log.

    Args:
        model: the model.
        store: where compiled steps are kept.
    """

    def __init__(self, model: GPT, store: Store | None = None) -> None:
        # Weakly: the models that were decoded with are keys of a weak dictionary, whose values are these.
        self._reference = weakref.ref(model)
        self._store = Store() if store is None else store
        self._slots: dict[StepForm, Slot] = {}
        self._packed: dict[tuple[str, str], Tensor] = {}
        self._workers: list[subprocess.Popen[bytes]] = []
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

    def new_cache(
        self, batch: int, capacity: int | None = None, left_padding_B: Tensor | None = None, keep_hidden: bool = False
    ) -> Cache:
        """As `GPT.new_cache`."""
        self._notice_changes()
        return self.model.new_cache(batch, capacity, left_padding_B, keep_hidden=keep_hidden)

    def __call__(self, ids_BT: Tensor, *, cache: Cache | None = None, last_only: bool = False) -> Output:
        """As a call of the model."""
        step = None if cache is None else self._step(ids_BT, cache, last_only=last_only)
        if step is not None:
            assert cache is not None
            return Output(step(ids_BT, cache))
        output: Output = self.model(ids_BT, cache=cache, last_only=last_only)
        return output

    def _notice_changes(self) -> None:
        """Forget the packed weights if the model was trained, loaded or moved since they were made."""
        weights = [
            (weight.data_ptr(), 0 if weight.is_inference() else weight._version) for weight in self.model.parameters()
        ]
        if weights != self._weights:
            self._slots.clear()
            self._packed.clear()
            self._weights = weights

    def ready(self, form: StepForm = ONE_TOKEN) -> bool:
        """Whether the compiled step of a form is loaded."""
        slot = self._slots.get(form)
        return slot is not None and slot.step is not None

    def wait(self, form: StepForm = ONE_TOKEN) -> bool:
        """Compile the step of a form now, or wait until it is compiled; return whether it is ready."""
        self._notice_changes()
        for worker in list(self._workers):
            worker.wait()
        slot = self._slot(form)
        slot.wait()
        return slot.step is not None

    def _step(self, ids_BT: Tensor, cache: Cache, *, last_only: bool) -> CompiledStep | None:
        """The step that processes these tokens; None if none is ready, or the model has to."""
        n_rows, n_tokens = ids_BT.shape
        # Some states exist after the first call only. Several tokens of which the last one's logits are needed are a prompt.
        if not cache.is_plain or cache.length == 0 or (n_tokens > 1 and last_only):
            return None
        one = StepForm(n_rows > 1, 1, cache.keeps_hidden)
        step = self._ready(one)
        if n_tokens == 1 or step is None:  # wider steps are compiled afterwards
            return step if n_tokens == 1 else None
        widths = [width for width in WIDTHS if n_tokens <= width <= _MOST_ROWS // n_rows]
        widths = [width for width in widths if has_room(cache, n_tokens, width)]
        for width in widths:
            form = replace(one, width=width)
            if width == widths[0] or form in self._slots:
                step = self._ready(form)
                if step is not None:
                    return step
        return None

    def _ready(self, form: StepForm) -> CompiledStep | None:
        slot = self._slot(form)
        if slot.step is None:
            slot.poll()
        return slot.step

    def _slot(self, form: StepForm) -> Slot:
        if form not in self._slots:
            self._slots[form] = Slot(self.model, form, self._store, self._packed, self._workers)
        return self._slots[form]
