"""Exported runs of engines: their vocabulary, their names, and how many are kept."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gptkit.core.registry import default_registry
from gptkit.engines.exports import export_key, keep_newest, with_token_rows
from gptkit.kinds.format import NativeModel, TensorEntry
from gptkit.model.spec import ModelSpec


class Weights:
    """Tensors in memory, which count how often they are read."""

    def __init__(self, **tensors: Tensor) -> None:
        self.tensors, self.reads = tensors, 0
        self.entries = {name: TensorEntry(tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}

    def get(self, name: str) -> Tensor:
        self.reads += 1
        return self.tensors[name]


def model(**changes: Any) -> NativeModel:
    spec: Any = default_registry().component("tokenizer", "byte").model_validate({"name": "byte"})
    table_VE = torch.arange(12.0).view(6, 2)
    tensors = {"embedding.table.weight": table_VE, "head.output.weight": table_VE + 1, "blocks.0.up.weight": table_VE}
    made = NativeModel(
        name="tiny",
        spec=ModelSpec.model_validate({"d_model": 8, "n_layers": 1, "vocab_size": 6}),
        tensors=Weights(**tensors),
        tokenizer=spec.fit(iter(())),
        checksum="abc",
    )
    return dataclasses.replace(made, **changes)


def test_padding_of_the_vocabulary_is_removed() -> None:
    cut = with_token_rows(model(), 5)
    assert cut.spec.vocab_size == 5
    shapes = {name: entry.shape for name, entry in cut.tensors.entries.items()}
    assert shapes == {"embedding.table.weight": (5, 2), "head.output.weight": (5, 2), "blocks.0.up.weight": (6, 2)}
    assert {name: tuple(cut.tensors.get(name).shape) for name in shapes} == shapes
    whole = with_token_rows(model(), 6)
    assert whole.tensors.entries["embedding.table.weight"].shape == (6, 2)


def test_key_depends_on_weights_spec_and_settings() -> None:
    first = model()
    others = [
        model(checksum="abd"),
        model(spec=ModelSpec.model_validate({"d_model": 8, "n_layers": 2, "vocab_size": 6})),
        model(checksum=None),
        model(checksum=None, tensors=Weights(**{"blocks.0.up.weight": torch.ones(3)})),
    ]
    keys = [export_key(first, 1, "f16"), export_key(first, 2, "f16"), *(export_key(each, 1, "f16") for each in others)]
    assert len(set(keys)) == len(keys)
    assert keys[0] == export_key(model(), 1, "f16")
    assert isinstance(first.tensors, Weights)
    assert first.tensors.reads == 0, "weights whose checksum is known were read"


def test_most_recently_used_exports_are_kept(tmp_path: Path) -> None:
    for age, name in enumerate(("new", "directory", "old", "link")):
        path = tmp_path / name
        if name == "directory":
            path.mkdir()
            (path / "file").write_text("data")
        elif name == "link":
            (tmp_path / "aside").mkdir()
            path.symlink_to(tmp_path / "aside")
        else:
            path.write_text("data")
        os.utime(path, (1000 - age, 1000 - age))
    os.utime(tmp_path / "aside", (900, 900))
    keep_newest([tmp_path / name for name in ("new", "directory", "old", "link")], 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["aside", "directory", "new"]
    keep_newest([tmp_path / "new", tmp_path / "directory"], 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["aside", "new"]
