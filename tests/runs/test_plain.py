"""Python values of specs: numbers of numpy and torch, paths, and what is not data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gptkit
from gptkit.core.errors import SpecError


def spec(**sections: Any) -> dict[str, Any]:
    model = {"context_length": 16, "d_model": 16, "n_layers": 1, "attention": {"n_heads": 2}}
    return {"tokenizer": "byte", "model": model, **sections}


@pytest.mark.parametrize(
    "steps", [np.int64(7), np.uint8(7), np.array(7), torch.tensor(7)], ids=lambda value: str(type(value))
)
def test_numbers_of_arrays_are_numbers(steps: Any) -> None:
    assert gptkit.open_spec(spec(training={"steps": steps})).spec.training.steps == 7


def test_other_values_of_arrays_and_paths_are_data() -> None:
    data = {"name": "text", "path": [Path("a.txt")], "shuffle": np.bool_(True)}
    optimizer = {"name": "adamw", "betas": np.array([0.5, 0.75])}
    changes = {"training.optimizer.learning_rate": np.float32(0.5)}
    opened = gptkit.open_spec(spec(data=data, training={"optimizer": optimizer}), changes=changes).spec
    assert opened.data.model_dump()["path"] == ("a.txt",)
    assert opened.data.shuffle is True
    assert opened.training.optimizer.model_dump()["betas"] == (0.5, 0.75)
    assert opened.training.optimizer.learning_rate == 0.5


def _circular() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["model"] = value
    return value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (spec(data={"name": "text", "path": {"a.txt"}}), "data.path: a value of the type 'set' is not data; write a text"),
        (spec(name=b"x"), "name: a value of the type 'bytes' is not data"),
        (spec(training={"steps": [object()]}), "training.steps.0: a value of the type 'object' is not data"),
        ({("model",): {}}, r"the key \('model',\) is of the type 'tuple'; write a text"),
        (_circular(), "model.model.model: it contains itself"),
        ([], "a spec is a mapping of keys such as 'model' and 'training', not of the type 'list'; pass a dict"),
        (None, "not of the type 'NoneType'; pass a dict, the path of a spec file, or the name of a preset"),
    ],
    ids=["set", "bytes", "object", "key", "circular", "list", "none"],
)
def test_values_that_are_not_data_are_reported(value: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        gptkit.build(value)


def test_changed_values_that_are_not_data_are_reported() -> None:
    with pytest.raises(SpecError, match=r"training\.steps: a value of the type 'set' is not data"):
        gptkit.open_spec(spec(), changes={"training.steps": {1}})
