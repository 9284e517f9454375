"""Family `rwkv`: the halving of vectors, what is refused, and what GGUF files cannot have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import gptkit
from gptkit.core.errors import ExternalModelError
from gptkit.interop.conversion import find_family, read_model
from gptkit.interop.selection import choose_family
from gptkit.runs.drift import measure_drift
from gptkit.runs.exporting import export_model
from gptkit.runs.opening import open_spec
from tests.support.gguf_models import make_run
from tests.support.parity import make

CONFIG = {"model_type": "rwkv", "vocab_size": 300, "hidden_size": 48, "num_hidden_layers": 5, "layer_norm_epsilon": 1e-3}


def read(**changes: Any) -> Any:
    config = {**CONFIG, **changes}
    return read_model(find_family(config, "rwkv"), config, "rwkv")


@pytest.mark.parametrize(
    ("every", "times", "final"),
    [
        (0, [0, 0, 0, 0, 0], 0),
        (-1, [0, 0, 0, 0, 0], 0),
        (2, [0, 0, 1, 1, 2], 2),
        (5, [0, 0, 0, 0, 0], 1),
        (1, [0, 1, 2, 3, 4], 5),
    ],
)
def test_eps_of_norms_is_that_of_halved_vectors(every: int, times: list[int], final: int) -> None:
    model = read(rescale_every=every)
    assert [layer.norm.eps for layer in model.layer_specs()] == [1e-3 * 4**each for each in times]
    assert model.final_norm.eps == 1e-5 * 4**final
    assert model.embedding.norm.eps == 1e-3
    _, config = choose_family(model, "rwkv")
    assert config["rescale_every"] == max(0, every)
    assert config["layer_norm_epsilon"] == 1e-3


def test_vectors_that_are_halved_too_often_are_refused() -> None:
    with pytest.raises(ExternalModelError, match=r"rescale_every.* halved 99 times, 60 times at most"):
        read(num_hidden_layers=99, rescale_every=1)


def test_norms_that_no_halving_has_are_not_exported() -> None:
    model = read(rescale_every=2)
    spec = model.model_copy(update={"final_norm": model.norm})
    with pytest.raises(ExternalModelError, match="final_norm"):
        choose_family(spec, "rwkv", only="rwkv")


def test_drift_compares_vectors_that_transformers_halves(tmp_path: Path) -> None:
    pytest.importorskip("transformers.models.rwkv")
    make("rwkv", tmp_path / "external")
    gptkit.import_model(tmp_path / "external", tmp_path / "run", tokenizer="byte")
    result = measure_drift(tmp_path / "run", tmp_path / "external", tolerance=1e-5)
    assert result.first is None, result.first
    assert {reading.part for reading in result.readings} >= {"blocks.4", "blocks.4.attention", "blocks.4.feedforward"}


def test_gguf_files_are_refused(tmp_path: Path) -> None:
    sizes = [f"model.{key}" for key in ("d_model=64", "attention.d_inner=64", "context_length=32", "vocab_size=null")]
    run = make_run(tmp_path / "run", open_spec("rwkv-4-169m", sizes).spec.model.model_dump(mode="json"))
    with pytest.raises(ExternalModelError) as refused:
        export_model(run, tmp_path / "model.gguf")
    assert refused.value.message == "GGUF files of the family 'rwkv', which this model has, are not supported"
    assert refused.value.hint == "Export to hugging-face, torch-export or onnx instead."
