"""Models near the tiny ones of each GGUF architecture: refused with a reason, or computed by llama.cpp as by gptkit.

A file that llama.cpp cannot load may end the process.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import torch

import gptkit
from gptkit.core.errors import ExternalModelError
from gptkit.model.spec import ModelSpec
from gptkit.runs.exporting import export_model
from tests.support.gguf_families import CONFIGS, family_of, tolerance_of
from tests.support.gguf_models import make_run
from tests.support.llama_server import PROMPTS, compare_probabilities, served
from tests.support.near_configs import near_configs

pytest.importorskip("xllamacpp", reason="llama.cpp is not installed")

APPROXIMATED = 8e-3
"""Tolerance where the model has a GELU, which llama.cpp reads from a table in fp16."""


@pytest.mark.parametrize(
    ("name", "count"),
    [
        *(pytest.param(name, 3, marks=pytest.mark.slow) for name in list(CONFIGS)[1::6]),
        *(pytest.param(name, 12, marks=pytest.mark.nightly) for name in CONFIGS),
    ],
)
def test_near_models_equal_llama_cpp_or_are_refused(tmp_path: Path, name: str, count: int) -> None:
    models = near_configs(family_of(name), CONFIGS[name][1], name)
    wrong = []
    for number, (what, model) in enumerate(itertools.islice(models, count)):
        try:
            check(tmp_path / f"{number}", model, name)
        except ExternalModelError as error:
            assert error.hint, error.message
        except (AssertionError, RuntimeError) as error:
            wrong.append(f"{what}: {error}")
    assert not wrong


def check(path: Path, model: ModelSpec, name: str) -> None:
    """Export a model with random weights, and compare it with what gptkit and llama.cpp read.

    Raises:
        ExternalModelError: it is refused.
    """
    run = make_run(path / "run", model.model_dump(mode="json"), scale=0.5)
    file = export_model(run, path / "model.gguf")
    back, ids = gptkit.import_model(file, path / "back"), list(PROMPTS[0].encode())
    with torch.no_grad():
        expected, actual = (each.model(torch.tensor([ids])).logits for each in (gptkit.load(run), back))
    assert expected is not None
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-4 * max(1.0, float(expected.abs().max())))
    tolerance = APPROXIMATED if "gelu" in json.dumps(model.model_dump(mode="json")) else tolerance_of(name)
    with served(file) as ask:
        compare_probabilities(ask, back, ids, tolerance * max(1.0, model.n_layers / 16))  # rounding grows with the depth
