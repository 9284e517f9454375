"""Checks of formats of external models, with a tiny model that is written and read back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import torch
from torch import Tensor

from gptkit.core.registry import default_registry
from gptkit.interop.conversion import check_tensors, family_of, pair, read_model
from gptkit.interop.differences import differences
from gptkit.kinds.format import FormatSpec, NativeModel, TensorEntry
from gptkit.kinds.tokenizer import TokenizerSpec
from gptkit.model.gpt import GPT
from gptkit.testing.check import Checks, expect, skip
from gptkit.testing.subject import Subject, stirred

__all__ = ["checks"]

checks = Checks()

_VOCAB = 257
_MODEL = {
    "context_length": 32,
    "d_model": 64,
    "n_layers": 2,
    "vocab_size": _VOCAB,
    "position": "rotary",
    "attention": {"name": "grouped-query", "n_heads": 4, "n_kv_heads": 2, "d_head": 16},
    "norm": {"name": "rms", "eps": 1e-5},
    "feedforward": {"name": "gated", "d_hidden": 96},
    "head": {"name": "linear", "tied": True},
}
"""A llama, which every format should express."""


class _Weights:
    """The tensors of a model in memory."""

    def __init__(self, model: GPT) -> None:
        self._tensors = {name: tensor.detach() for name, tensor in model.named_parameters()}

    @property
    def entries(self) -> Mapping[str, TensorEntry]:
        return {name: TensorEntry(tuple(tensor.shape), tensor.dtype) for name, tensor in self._tensors.items()}

    def get(self, name: str) -> Tensor:
        return self._tensors[name]


@checks.add("written-model-reads-back", "An export that is imported again must be the same model with the same weights.")
def written_model_reads_back(subject: Subject) -> None:
    spec = cast("FormatSpec", subject.spec)
    if not spec.can_write:
        skip("it is read, and not written")
    model = stirred(GPT(_MODEL, _VOCAB, seed=0))
    byte = cast("TokenizerSpec", default_registry().component("tokenizer", "byte").model_validate({"name": "byte"}))
    weights = _Weights(model)
    native = NativeModel("tiny", model.spec, weights, byte.fit(iter(())))
    with TemporaryDirectory(prefix="gptkit-check-") as directory:
        path = Path(directory, "model" + "".join(spec.suffixes[:1]))
        spec.write(native, path)
        expect(path.exists(), "write returned, and there is nothing at the path that it was given")
        expect(0 < spec.detect(path).score <= 1, f"detect gives the score {spec.detect(path).score} to its own export")
        external = spec.read(path)
        family, config = family_of(external)
        again = read_model(family, config)
        changes = differences(model.spec, again)
        expect(not changes, f"written and read again, the model is another: {'; '.join(changes[:3])}")
        shell, tensors = GPT(again, device="meta"), external.tensors()
        moves = pair(family, shell)
        names = check_tensors(family, shell, moves, tensors.entries, external.location)
        for move in moves:
            joined = move.join([tensors.get(names[name]) for name in move.external])
            expect(torch.equal(joined, weights.get(move.native)), f"written and read again, {move.native} is another")
