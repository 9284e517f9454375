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
        pytest.param(name, marks=pytest.mark.slow if index % 6 == 0 else pytest.mark.nightly)
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


@pytest.mark.parametrize("name", ["gemma2", "gemma3", "olmo2-windows", "cohere2", "gpt-oss"])
def test_models_without_windows_are_refused_where_llama_cpp_requires_one(tmp_path: Path, name: str) -> None:
    """llama.cpp aborts, which would end the process."""
    family, keys = family_of(name), CONFIGS[name][1]
    changes = {"layer_types": ["full_attention"] * 4, "num_hidden_layers": 4}
    model = read_model(family, base_config(family, SMALL, {**keys, **changes}))
    run = make_run(tmp_path / "run", model.model_dump(mode="json"))
    with pytest.raises(ExternalModelError, match=r"without a layer with an attention window|as the base of full layers"):
        export_model(run, tmp_path / "model.gguf", family=family.component_name())


@pytest.mark.parametrize("name", ["llama", "olmo2", "mistral3", "gpt-oss"])
def test_ranges_of_yarn_are_refused_where_llama_cpp_ignores_them(tmp_path: Path, name: str) -> None:
    family, keys = family_of(name), CONFIGS[name][1]
    yarn = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 32.0, "original_max_position_embeddings": 32}
    options = {"mistral3": keys.get("rope_parameters"), "gpt-oss": {"truncate": False}}.get(name, {})
    scaling = {**options, **yarn, "beta_slow": 2.0}
    model = read_model(family, base_config(family, SMALL, {**keys, "head_dim": 16, "rope_parameters": scaling}))
    run = make_run(tmp_path / "run", model.model_dump(mode="json"), scale=0.5)
    if name == "mistral3":
        file = export_model(run, tmp_path / "model.gguf", family=family.component_name())
        back = gptkit.import_model(file, tmp_path / "back")
        with served(file) as ask:
            compare_probabilities(ask, back, list(PROMPTS[0].encode()), tolerance_of(name))
        return
    with pytest.raises(ExternalModelError, match=r"computes YaRN with beta_slow = 1 in this architecture, .* it is 2"):
        export_model(run, tmp_path / "model.gguf", family=family.component_name())


def test_convolutions_of_one_token_are_refused(tmp_path: Path) -> None:
    family, keys = family_of("lfm2"), CONFIGS["lfm2"][1]
    model = read_model(family, base_config(family, SMALL, {**keys, "conv_L_cache": 1}))
    run = make_run(tmp_path / "run", model.model_dump(mode="json"))
    with pytest.raises(ExternalModelError, match="with convolutions of one token"):
        export_model(run, tmp_path / "model.gguf", family=family.component_name())


@pytest.mark.parametrize(("name", "key"), [("granite", "residual_multiplier"), ("command-r", "logit_scale")])
def test_factors_of_zero_are_refused(tmp_path: Path, name: str, key: str) -> None:
    """llama.cpp takes them for absent ones."""
    family, keys = family_of(name), CONFIGS[name][1]
    model = read_model(family, base_config(family, SMALL, {**keys, key: 0.0}))
    run = make_run(tmp_path / "run", model.model_dump(mode="json"))
    with pytest.raises(ExternalModelError, match=f"{key} is 0 without that factor"):
        export_model(run, tmp_path / "model.gguf", family=family.component_name())


def test_models_without_convolutions_are_exported_as_qwen3(tmp_path: Path) -> None:
    """LFM2 expresses them too, and llama.cpp cannot load that."""
    run = make_run(tmp_path / "run", {**DECODER, "attention": {**GROUPED, "qk_norm": "rms"}})
    file = export_model(run, tmp_path / "model.gguf")
    assert GgufFile(file).metadata["general.architecture"] == "qwen3"
