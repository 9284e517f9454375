"""Inspection needs no code of its own for a component: it works with every registered one."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import gptkit
from gptkit.components.tokenizer.byte import ByteTokenizer
from gptkit.core.errors import SpecError
from gptkit.core.registry import default_registry
from gptkit.inspection.inspect import inspect_ids

IDS = list(b"the cat sat on the mat")
COMPONENTS = [(kind, name) for kind in ("attention", "block", "head", "position") for name in default_registry().names(kind)]


SPEC: dict[str, Any] = {"context_length": 32, "d_model": 16, "n_layers": 2, "attention": {"n_heads": 2}}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Save a run for distillation heads."""
    spec = {"tokenizer": "char", "model": {**SPEC, "vocab_size": 256}}
    tokenizer = gptkit.open_spec(spec).spec.tokenizer.fit(iter(["".join(map(chr, range(1, 255)))]))
    directory = tmp_path_factory.mktemp("runs") / "teacher"
    return str(gptkit.save_run(directory, gptkit.GPT(spec["model"], seed=2), tokenizer, spec))


def build(kind: str, name: str, teacher: str) -> gptkit.GPT:
    fields = {"name": name, **({"teacher": teacher} if name == "distillation" else {})}
    try:
        return gptkit.GPT({**SPEC, kind: fields}, vocab_size=256, seed=1).eval()
    except SpecError:  # a recurrence accepts no position
        return gptkit.GPT({**SPEC, kind: fields, "position": "none"}, vocab_size=256, seed=1).eval()


@pytest.mark.parametrize(("kind", "name"), COMPONENTS)
def test_inspection_shows_what_the_model_computes(kind: str, name: str, teacher: str) -> None:
    model = build(kind, name, teacher)
    view = inspect_ids(model, ByteTokenizer(), IDS)
    ids = torch.tensor([IDS])
    with torch.inference_mode():
        best = model(ids).logits[0].log_softmax(-1).topk(5, dim=-1)
    assert torch.equal(view.lens.ids[-1], best.indices)
    assert torch.equal(view.lens.probabilities[-1], best.values.exp())
    expected = model.attention_weights(ids)
    weights = {} if view.attention is None else view.attention.weights
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[key], expected[key][0]) for key in weights)
    assert view.html().startswith("<!doctype html>")
