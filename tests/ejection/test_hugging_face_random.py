"""Random compositions that no family expresses, exported with generated code and loaded by transformers."""

from __future__ import annotations

import importlib
import itertools
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

from gptkit.core.errors import ExternalModelError, GptkitError
from gptkit.files import validate_data
from gptkit.interop.selection import choose_family
from gptkit.kinds.written import NotWrittenError
from gptkit.model.gpt import GPT
from gptkit.model.spec import ModelSpec
from tests.support.draws import draw_component, draw_fields
from tests.support.ejected import randomize
from tests.support.hugging_face import load_in_transformers
from tests.support.plugin_registry import registry_of

VOCABULARY, CONTEXT, COUNT = 31, 32, 32
MOST_DRAWN = 4000
"""Models that are drawn at most for those wanted, of which one in ten is valid and has code."""

BUILT_IN = registry_of()
RESEARCH = registry_of(gptkit_research=lambda: importlib.import_module("gptkit_research.plugin"))
"""The built-in components and those of plugins/gptkit-research; no other plugin there has components of models."""
KINDS = ("norm", "linear", "position", "attention", "feedforward", "block", "embedding", "head")
EXPORTED = [
    *((kind, name) for kind in KINDS for name in sorted(set(RESEARCH.names(kind)) - set(BUILT_IN.names(kind)))),
    ("attention", "hybrid"),
    ("block", "altup"),
    ("block", "per-layer-embedding"),
]
"""Components that are drawn once each: all of the plugin, and those of gptkit with caches or values of their own."""
STATES: dict[str, Any] = {
    "context_length": CONTEXT,
    "d_model": 16,
    "n_layers": 3,
    "position": "learned",
    "embedding": {"name": "bigram", "rows": 50, "embedding": {"name": "smear", "gate_features": 4, "factor": 0.5}},
    "block": "token-shift",
    "norm": {"name": "layer", "scale": False},
    "attention": {"name": "multi-head", "n_heads": 2, "d_head": 8},
    "layers": [{}, {"attention": {"name": "rwkv7", "n_heads": 2, "d_head": 8}}, {"block": "pre-norm"}],
}
"""A model whose embedding consists of two with a state, and whose layers have one, three and no state."""
REUSING = ("attention", "grouped-query")
"""A component in whose model the second layer attends to the keys and values of the first."""


def draw_model(chance: Random, wanted: tuple[str, str] | None) -> dict[str, Any]:
    """Draw a model with a wanted component, or with those of gptkit alone."""
    registry = RESEARCH if wanted is not None else BUILT_IN
    spec: dict[str, Any] = {
        "context_length": CONTEXT,
        "d_model": chance.choice([16, 24]),
        "n_layers": chance.randint(1, 3),
    }
    parts = ("position", "attention", "norm", "feedforward", "block")
    for kind in (*parts, "embedding", "head"):
        if wanted is not None and kind == wanted[0]:
            spec[kind] = {"name": wanted[1], **draw_fields(chance, registry.component(*wanted), registry)}
        elif chance.random() < 0.5:
            spec[kind] = draw_component(chance, kind, registry)
    if wanted is not None and wanted[0] == "linear":
        spec["linear"] = {"name": wanted[1], **draw_fields(chance, registry.component(*wanted), registry)}
    if wanted == REUSING:
        spec["n_layers"] = 3
        spec["layers"] = [{}, {"attention": {"reuse_kv": True}}]
    elif chance.random() < 0.5:
        entry = [part for part in parts if part != "position" and chance.random() < 0.5]
        spec["layers"] = [{}, {part: draw_component(chance, part, registry) for part in entry}]
    return spec


def drawn() -> dict[str, GPT]:
    """Return models of different components that no family expresses: one for each of `EXPORTED`, then others."""
    models: dict[str, GPT] = {}
    for wanted in (*EXPORTED, REUSING):
        (models[wanted[1]],) = _first(wanted, 1)
    models |= {f"plain{index}": model for index, model in enumerate(_first(None, COUNT - len(models)))}
    assert len(models) == COUNT
    return models


def _first(wanted: tuple[str, str] | None, count: int) -> list[GPT]:
    """Return the first models drawn that no family expresses and that have code, each of other components."""
    models: list[GPT] = []
    chosen: set[tuple[str, ...]] = set()
    for number in itertools.count():
        assert number < MOST_DRAWN, wanted
        try:
            spec = validate_data(draw_model(Random(f"{wanted} {number}"), wanted), ModelSpec, RESEARCH)
            names = tuple(part.name for layer in spec.layer_specs() for part in (layer.block, layer.attention, layer.norm))
            names += (spec.position.name, *(layer.feedforward.name for layer in spec.layer_specs()), spec.head.name)
            if names in chosen or not _is_written(spec):
                continue
            model = randomize(GPT(spec, VOCABULARY))
            if not _bounded(model):
                continue
        except GptkitError:  # invalid, or a block that calls twice an attention that publishes values once
            continue
        chosen.add(names)
        models.append(model)
        if len(models) == count:
            break
    return models


def _is_written(spec: ModelSpec) -> bool:
    """Whether a spec has code for transformers, and no family."""
    from gptkit.ejection.hugging_face.writing import write_code

    try:
        write_code(spec, VOCABULARY, name="model", parameters=1)
    except NotWrittenError:
        return False
    try:
        choose_family(spec.model_copy(update={"vocab_size": VOCABULARY}))
    except ExternalModelError:
        return True
    return False


@torch.no_grad()
def _bounded(model: GPT) -> bool:
    """Whether logits are of a size at which fp32 is exact enough; without norms they may grow without bound."""
    logits = model(torch.randint(VOCABULARY, (2, CONTEXT), generator=torch.Generator().manual_seed(0))).logits
    return bool(logits is not None and logits.isfinite().all() and logits.abs().max() < 100)


@pytest.mark.slow
def test_random_compositions_equal_gptkit_in_transformers(tmp_path: Path) -> None:
    states = randomize(GPT(validate_data(STATES, ModelSpec, RESEARCH), VOCABULARY))
    for result in load_in_transformers(tmp_path, {**drawn(), "states": states}).values():
        result.check()
