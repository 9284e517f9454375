"""Random compositions that no family expresses, exported with generated code and loaded by transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from gptkit.core.errors import ExternalModelError, GptkitError
from gptkit.files import validate_data
from gptkit.interop.selection import choose_family
from gptkit.kinds.written import NotWrittenError
from gptkit.model.gpt import GPT
from gptkit.model.spec import ModelSpec
from tests.support.ejected import randomize
from tests.support.hugging_face import load_in_transformers
from tests.support.strategies import component

VOCABULARY, CONTEXT, COUNT = 31, 32, 25


@st.composite
def specs(draw: st.DrawFn) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "context_length": CONTEXT,
        "d_model": draw(st.sampled_from([16, 24])),
        "n_layers": draw(st.integers(1, 3)),
    }
    parts = ("position", "attention", "norm", "feedforward", "block")
    for kind in (*parts, "embedding", "head"):
        if draw(st.booleans()):
            spec[kind] = draw(component(kind))
    if draw(st.booleans()):
        entry = st.fixed_dictionaries({}, optional={part: component(part) for part in parts if part != "position"})
        spec["layers"] = draw(st.lists(entry, min_size=1, max_size=2))
    return spec


def drawn(count: int) -> dict[str, GPT]:
    """Return models of different components that no family expresses, and that can be written out."""
    models: dict[str, GPT] = {}
    chosen: set[tuple[str, ...]] = set()

    @settings(
        max_examples=3000, deadline=None, derandomize=True, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(data=specs())
    def collect(data: dict[str, Any]) -> None:
        if len(models) == count:
            return
        try:
            spec = validate_data(data, ModelSpec)
            names = tuple(part.name for layer in spec.layer_specs() for part in (layer.block, layer.attention, layer.norm))
            names += (spec.position.name, *(layer.feedforward.name for layer in spec.layer_specs()), spec.head.name)
            if names in chosen or not _is_written(spec):
                return
            model = randomize(GPT(spec, VOCABULARY))
        except GptkitError:
            return
        if not _bounded(model):
            return
        chosen.add(names)
        models[f"random{len(models):02}"] = model

    collect()
    assert len(models) == count
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
    for result in load_in_transformers(tmp_path, drawn(COUNT)).values():
        result.check()
