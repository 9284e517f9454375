"""Every option of a family that GGUF has an architecture for: refused, or computed by llama.cpp as by gptkit."""

from __future__ import annotations

from pathlib import Path

import pytest

import gptkit
from gptkit.core.errors import ExternalModelError
from gptkit.interop.conversion import read_model
from gptkit.interop.formats.gguf.container import GgufFile
from gptkit.runs.exporting import export_model
from gptkit.testing.configurations import SMALL, base_config, variants
from tests.support.gguf_families import CONFIGS, family_of, tolerance_of
from tests.support.gguf_models import DECODER, GROUPED, make_run
from tests.support.llama_server import PROMPTS, compare_probabilities, served

pytest.importorskip("xllamacpp", reason="llama.cpp is not installed")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if index % 3 == 0 else pytest.mark.nightly)
        for index, name in enumerate(CONFIGS)
    ],
)
def test_options_equal_llama_cpp_or_are_refused(tmp_path: Path, name: str) -> None:
    """A server that cannot load a file fails too, by an exception."""
    family, ids = family_of(name), list(PROMPTS[0].encode())
    wrong = []
    for number, variant in enumerate(variants(family, CONFIGS[name][1])):
        run = make_run(tmp_path / f"run{number}", variant.model.model_dump(mode="json"), scale=0.5)
        try:
            file = export_model(run, tmp_path / f"{number}.gguf", family=family.component_name())
        except ExternalModelError:
            assert variant.what, "the model without changes is refused"
            continue
        back = gptkit.import_model(file, tmp_path / f"back{number}")
        try:
            with served(file) as ask:
                compare_probabilities(ask, back, ids, tolerance_of(name))
        except (AssertionError, RuntimeError) as error:
            wrong.append(f"{variant.what}: {error}")
    assert not wrong


@pytest.mark.parametrize(
    ("name", "kind", "missing"),
    [
        ("qwen35moe", "linear_attention", "full attention"),
        ("lfm2", "conv", "full attention"),
        ("lfm2", "full_attention", "convolutions"),
        ("lfm2moe", "full_attention", "convolutions"),
    ],
)
def test_hybrids_of_one_kind_of_layers_are_refused(tmp_path: Path, name: str, kind: str, missing: str) -> None:
    """llama.cpp aborts, which would end the process."""
    family, keys = family_of(name), CONFIGS[name][1]
    n_layers = len(read_model(family, base_config(family, SMALL, keys)).layer_specs())
    model = read_model(family, base_config(family, SMALL, {**keys, "layer_types": [kind] * n_layers}))
    run = make_run(tmp_path / "run", model.model_dump(mode="json"), scale=0.5)
    with pytest.raises(ExternalModelError, match=f"without a layer of {missing}"):
        export_model(run, tmp_path / "model.gguf", family=family.component_name())


def test_models_without_convolutions_are_exported_as_qwen3(tmp_path: Path) -> None:
    """LFM2 expresses them too, and llama.cpp cannot load that."""
    run = make_run(tmp_path / "run", {**DECODER, "attention": {**GROUPED, "qk_norm": "rms"}})
    file = export_model(run, tmp_path / "model.gguf")
    assert GgufFile(file).metadata["general.architecture"] == "qwen3"
