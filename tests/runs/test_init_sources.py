"""New runs from external models and with changed components, in Python and on the command line."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import gptkit
from gptkit.cli.main import app
from gptkit.core.errors import CheckpointError, SpecError
from gptkit.runs.cautions import cautions
from gptkit.runs.opening import open_spec
from tests.support.tiny_models import LLAMA

# A tiny rate, so that the weights practically keep their initial values.
STILL: dict[str, Any] = {
    "steps": 1,
    "batch_size": 2,
    "window": 16,
    "optimizer": {"name": "sgd", "learning_rate": 1e-12},
    "evaluate_every": None,
    "evaluate_batches": 1,
    "sample_tokens": 0,
    "device": "cpu",
    "precision": "fp32",
}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a tiny Llama with transformers, with a tokenizer."""
    transformers = pytest.importorskip("transformers")
    path = tmp_path_factory.mktemp("external") / "tiny"
    torch.manual_seed(3)
    config = transformers.LlamaConfig(**LLAMA, rope_theta=5000.0, tie_word_embeddings=True)
    transformers.LlamaForCausalLM(config).save_pretrained(path)
    run = path.parent / "words"
    small = {"d_model": 8, "n_layers": 1, "context_length": 8, "attention": {"n_heads": 1}}
    words = {"name": "bpe", "vocab_size": 300, "pattern": "gpt2"}
    gptkit.train({"tokenizer": words, "model": small, "training": {**STILL, "window": 8}}, run, progress=False)
    exported = path.parent / "exported"
    gptkit.export_model(run, exported)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (path / name).write_bytes((exported / name).read_bytes())
    return path


@pytest.fixture(scope="module")
def imported(directory: Path) -> gptkit.Run:
    return gptkit.import_model(directory, directory.parent / "imported")


@pytest.fixture(scope="module")
def gguf(imported: gptkit.Run) -> Path:
    home = imported.directory.parent
    gptkit.save_run(home / "native", imported.model, gptkit.load(home / "words").tokenizer)
    return gptkit.export_model(home / "native", home / "tiny.gguf", to={"name": "gguf", "type": "f32"})


def same(one: gptkit.Run, other: gptkit.Run) -> bool:
    pairs = zip(one.model.named_parameters(), other.model.named_parameters(), strict=True)
    return all(first == second and torch.allclose(a, b, atol=1e-6) for (first, a), (second, b) in pairs)


@pytest.mark.parametrize("what", ["run", "directory", "file", "gguf", "weights"])
def test_a_spec_without_model_and_tokenizer_takes_those_of_the_source(
    imported: gptkit.Run, directory: Path, gguf: Path, tmp_path: Path, what: str
) -> None:
    weights = next((imported.directory / "checkpoints").glob("*/model.safetensors"))
    sources = {"run": imported.directory, "directory": directory, "file": directory / "model.safetensors", "gguf": gguf}
    source = sources.get(what, weights)
    file = tmp_path / "new.yaml"
    data: dict[str, Any] = {"training": {**STILL, "init_from": str(source)}}
    if what == "weights":
        data |= {"model": imported.spec.model.model_dump(mode="json"), "tokenizer": imported.spec.tokenizer.model_dump()}
    file.write_text(json.dumps(data))  # JSON is YAML
    run = gptkit.train(file, tmp_path / "run", progress=False)
    assert same(imported, run)
    assert run.tokenizer.encode("naïve") == imported.tokenizer.encode("naïve")
    assert run.spec.training.window == 16
    assert gptkit.load(tmp_path / "run").generate("a", max_new_tokens=3, seed=1) == run.generate(
        "a", max_new_tokens=3, seed=1
    )


def test_run_resumes_without_its_source(imported: gptkit.Run, tmp_path: Path) -> None:
    source = imported.save(tmp_path / "source")
    given = {"training": {**STILL, "schedule": "constant", "init_from": str(source)}}
    gptkit.train(given, tmp_path / "run", progress=False)
    source.rename(tmp_path / "elsewhere")
    assert gptkit.resume(tmp_path / "run", ["training.steps=2"], progress=False).step == 2


def test_a_component_of_an_imported_model_is_swapped(
    imported: gptkit.Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    given = {"model": {"norm": "layer"}, "training": {**STILL, "init_from": str(imported.directory)}}
    with pytest.raises(CheckpointError, match=r"it lacks blocks\.\*\.attention_norm\.bias \(3\).*\n.*--partial"):
        gptkit.train(given, tmp_path / "strict", progress=False)
    given["training"]["init_from"] = {"path": str(imported.directory), "strict": False}
    with caplog.at_level(logging.WARNING, logger="gptkit"):
        run = gptkit.train(given, tmp_path / "run", progress=False)
    assert "initialized, since the source lacks them: blocks.*.attention_norm.bias (3)" in caplog.text
    assert run.spec.model.norm.name == "layer"
    assert run.spec.model.attention == imported.spec.model.attention
    for name, parameter in imported.model.named_parameters():
        assert torch.allclose(parameter, run.model.get_parameter(name), atol=1e-6)


def test_a_change_reaches_the_layers_of_a_pattern(tmp_path: Path) -> None:
    layers = [{"position": "none"}, {"attention": {"window": 4}}]
    small = {"d_model": 16, "n_layers": 2, "context_length": 16, "attention": {"n_heads": 2}, "layers": layers}
    gptkit.train({"tokenizer": "byte", "model": small, "training": STILL}, tmp_path / "source", progress=False)
    given = {"model": {"norm": "layer"}, "training": {**STILL, "init_from": str(tmp_path / "source")}}
    model = open_spec(given).spec.model
    assert [layer.norm.name for layer in model.layer_specs()] == ["layer", "layer"]
    assert [layer.position.name for layer in model.layer_specs()] == ["none", "rotary"]
    assert model.layer_specs()[1].attention.window == 4  # type: ignore[attr-defined]


def test_tied_and_untied_heads_load_each_other(imported: gptkit.Run, tmp_path: Path) -> None:
    untied = {"model": {"head": {"tied": False}}, "training": {**STILL, "init_from": str(imported.directory)}}
    run = gptkit.train(untied, tmp_path / "untied", progress=False)
    assert torch.allclose(run.model.get_parameter("head.weight"), imported.model.embedding.table_VE, atol=1e-6)
    tied = {"model": {"head": {"tied": True}}, "training": {**STILL, "init_from": str(tmp_path / "untied")}}
    assert same(imported, gptkit.train(tied, tmp_path / "tied", progress=False))
    apart = gptkit.load(tmp_path / "untied")
    with torch.no_grad():
        apart.model.get_parameter("head.weight").add_(1)
    apart.save(tmp_path / "apart")
    tied["training"]["init_from"] = str(tmp_path / "apart")
    with pytest.raises(CheckpointError, match=r"it also has head\.weight"):
        gptkit.train(tied, tmp_path / "refused", progress=False)


def test_the_command_line_starts_from_a_source(imported: gptkit.Run, directory: Path, tmp_path: Path) -> None:
    file = tmp_path / "new.yaml"
    file.write_text("training: {steps: 1, batch_size: 2, window: 16, evaluate_batches: 1, sample_tokens: 0, device: cpu}\n")
    still = ["--set", "training.optimizer={name: sgd, learning_rate: 1e-12}"]
    result = CliRunner().invoke(app, ["train", str(file), str(tmp_path / "run"), "--init", str(directory), *still, "-q"])
    assert result.exit_code == 0, result.output
    assert same(imported, gptkit.load(tmp_path / "run"))
    swap = ["--set", "model.norm=layer", "--init", str(directory)]
    result = CliRunner().invoke(app, ["train", str(file), str(tmp_path / "swap"), *swap, "-q"])
    assert result.exit_code == 2
    assert "--partial" in result.output
    result = CliRunner().invoke(app, ["train", str(file), str(tmp_path / "swap"), *swap, "--partial", "-q"])
    assert result.exit_code == 0, result.output
    assert gptkit.load(tmp_path / "swap").spec.model.norm.name == "layer"


def test_imported_settings_are_exported(imported: gptkit.Run, tmp_path: Path) -> None:
    gptkit.train({"training": {**STILL, "init_from": str(imported.directory)}}, tmp_path / "run", progress=False)
    assert gptkit.load(tmp_path / "run").provenance["imported"] == imported.provenance["imported"]


def test_a_missing_source_is_reported_with_its_location(tmp_path: Path) -> None:
    file = tmp_path / "new.yaml"
    file.write_text("training:\n  init_from: nowhere\n")
    with pytest.raises(SpecError, match=r"training\.init_from.*nowhere contains no weights: it does not exist") as caught:
        open_spec(file)
    assert (caught.value.problems[0].line, caught.value.problems[0].column) == (2, 14)


def test_init_and_resuming_a_run_are_mutually_exclusive(imported: gptkit.Run) -> None:
    run = str(imported.directory)
    result = CliRunner().invoke(app, ["train", "--resume", run, "--init", run])
    assert result.exit_code == 2
    assert "--init starts a new run" in result.output


def test_an_imported_run_has_values_for_fine_tuning(imported: gptkit.Run) -> None:
    training = imported.spec.training
    assert training.window == imported.spec.model.context_length == 64
    assert training.steps <= 100
    assert training.optimizer.learning_rate <= 1e-4
    assert training.batch_size * training.window <= 4096


def test_an_imported_run_is_continued_on_other_data(imported: gptkit.Run, tmp_path: Path) -> None:
    run, corpus = imported.save(tmp_path / "run"), tmp_path / "letters.txt"
    corpus.write_text("To be, or not to be, that is the question.\n" * 40)
    quick = [f"training.{key}={json.dumps(value)}" for key, value in {**STILL, "grad_accumulation": 1}.items()]
    sets = [text for each in (*quick, f"data.path={corpus}") for text in ("--set", each)]
    result = CliRunner().invoke(app, ["train", "--resume", str(run), *sets, "-q"])
    assert result.exit_code == 2
    assert "data 'builtin' has no field 'path'" in result.output
    assert "set data.name too" in result.output
    result = CliRunner().invoke(app, ["train", "--resume", str(run), "--set", "data.name=text", *sets, "-q"])
    assert result.exit_code == 0, result.output
    with pytest.raises(CheckpointError, match=r"cannot change:(.|\n)*--init"):
        gptkit.resume(run, ["training.steps=2", "training.window=8"], progress=False)


def test_error_for_a_run_in_place_of_a_spec_file_names_init(imported: gptkit.Run, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["train", str(imported.directory), str(tmp_path / "new")])
    assert result.exit_code == 2
    assert f"--init {imported.directory}" in result.output.replace("\n", "")


def test_adapters_of_random_weights_print_a_warning() -> None:
    given: dict[str, Any] = {"model": {"d_model": 16, "n_layers": 1, "linear": "low-rank"}, "training": {"steps": 100}}
    assert "--init" in next(cautions(open_spec(given).spec))
    given["training"]["freeze"] = []
    assert not list(cautions(open_spec(given).spec))
