"""Runs: directory, errors, and loading."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

import gptkit
from gptkit.core.errors import CheckpointError, DataError, RequirementError, SpecError
from gptkit.core.registry import Registry
from gptkit.kinds.callback import Callback
from gptkit.kinds.tracker import Tracker
from gptkit.runs.directory import RunDirectory
from gptkit.runs.prompts import prompt_ids

torch.set_num_threads(1)

MODEL: dict[str, Any] = {
    "context_length": 16,
    "d_model": 16,
    "n_layers": 1,
    "attention": {"name": "multi-head", "n_heads": 2},
    "head": {"name": "linear", "tied": True},
}
TRAINING: dict[str, Any] = {
    "steps": 6,
    "batch_size": 4,
    "log_every": 2,
    "evaluate_every": 3,
    "evaluate_batches": 2,
    "sample_tokens": 5,
    "checkpoint_every": 3,
    "device": "cpu",
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("corpus")
    words = random.Random(0).choices(["the", "cat", "sat", "on", "a", "mat", "naïve", "\n"], k=1500)
    (directory / "corpus.txt").write_text(" ".join(words), encoding="utf-8")
    return directory


def spec(corpus: Path, **training: Any) -> dict[str, Any]:
    return {
        "name": "try",
        "tokenizer": "byte",
        "model": MODEL,
        "data": {"name": "text", "path": str(corpus / "corpus.txt")},
        "training": {**TRAINING, **training},
    }


def quiet(spec: Any, directory: Path, *arguments: Any, **keywords: Any) -> gptkit.Run:
    return gptkit.train(spec, directory, *arguments, progress=False, **keywords)


@pytest.fixture(scope="module")
def trained(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> gptkit.Run:
    return quiet(spec(corpus), tmp_path_factory.mktemp("runs") / "trained")


@pytest.fixture
def directory(trained: gptkit.Run, tmp_path: Path) -> Path:
    """Copy a run, for tests that damage it."""
    return shutil.copytree(trained.directory, tmp_path / "run")


def weights(model: torch.nn.Module) -> dict[str, Any]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# -- run directory ----------------------------------------------------------------------------------------------------


def test_files_of_the_run_directory(trained: gptkit.Run) -> None:
    files = "loss.png metrics.jsonl provenance.json samples.txt spec.yaml summary.json training.html"
    result = {path.name for path in trained.directory.iterdir()}
    assert result == {".lock", "checkpoints", "data", "tokenizer", *files.split()}
    assert {path.name for path in (trained.directory / "checkpoints").iterdir()} == {"step-00000003", "step-00000006"}
    assert "step 0" in (trained.directory / "samples.txt").read_text()
    assert "step 6" in (trained.directory / "samples.txt").read_text()


def test_stored_spec_is_resolved_and_round_trips(trained: gptkit.Run) -> None:
    stored = gptkit.open_spec(trained.directory / "spec.yaml").spec
    assert stored == trained.spec
    assert stored.sha256 == trained.spec.sha256 == trained.provenance["spec_sha256"]
    text = (trained.directory / "spec.yaml").read_text()
    assert "d_head: 8" in text
    assert "grad_accumulation: 1" in text
    assert trained.spec.sha256 in text


def test_provenance_names_the_distribution_of_each_component(trained: gptkit.Run) -> None:
    result = json.loads((trained.directory / "provenance.json").read_text())
    actual = f"gptkit=={gptkit.default_registry().entry('norm', 'rms').plugin.version}"
    for name in (
        "tokenizer byte",
        "norm rms",
        "attention multi-head",
        "optimizer adamw",
        "schedule cosine",
        "sampler top-k",
    ):
        assert result["components"][name] == actual
    assert result["versions"]["torch"] == torch.__version__


def test_loading_is_exact(trained: gptkit.Run) -> None:
    run = gptkit.load(trained.directory)
    assert (run.step, run.finished) == (6, True)
    assert same(weights(run.model), weights(trained.model))
    assert not run.model.training
    assert run.spec == trained.spec
    ids = torch.randint(256, (2, 16))
    with torch.no_grad():
        assert torch.equal(run.model(ids).logits, trained.model(ids).logits)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="requires /proc/self/maps")
def test_loading_maps_the_weights_and_never_changes_the_file(directory: Path) -> None:
    file = directory / "checkpoints" / "step-00000006" / "model.safetensors"
    before = file.read_bytes()
    model = gptkit.load(directory, device="cpu").model
    mapped = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        if line.endswith(str(file)):
            first, last = line.split()[0].split("-")
            mapped.append(range(int(first, 16), int(last, 16)))
    assert mapped
    for name, parameter in model.named_parameters():
        assert any(parameter.data_ptr() in addresses for addresses in mapped), name
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert file.read_bytes() == before


def test_an_earlier_checkpoint_can_be_loaded(trained: gptkit.Run) -> None:
    run = gptkit.load(trained.directory, step=3)
    assert (run.step, run.finished) == (3, False)
    assert not same(weights(run.model), weights(trained.model))
    with pytest.raises(CheckpointError, match="no checkpoint of step 4") as caught:
        gptkit.load(trained.directory, step=4)
    assert "3, 6" in str(caught.value)


def test_run_generates(trained: gptkit.Run) -> None:
    text = trained.generate("the cat", max_new_tokens=12, seed=1)
    assert text == trained.generate("the cat", max_new_tokens=12, seed=1)
    assert text == "".join(trained.stream("the cat", max_new_tokens=12, seed=1))
    assert text != trained.generate("the cat", max_new_tokens=12, seed=2)
    greedy = trained.generate("the cat", max_new_tokens=12, sampler=["greedy"], seed=1)
    assert greedy == trained.generate("the cat", max_new_tokens=12, sampler=[{"name": "top-k", "k": 1}], seed=5)


def test_empty_prompt_starts_from_a_special_token() -> None:
    class Plain:
        start_id: int | None = None
        end_id: int | None = None

        def encode(self, text: str) -> list[int]:
            return [7] if text == "\n" else [1] * len(text)

    plain: Any = Plain()
    assert prompt_ids(plain, "") == [7]
    assert prompt_ids(plain, "ab") == [1, 1]
    plain.end_id = 3
    assert prompt_ids(plain, "") == [3]
    plain.start_id = 2
    assert prompt_ids(plain, "") == [2]
    assert prompt_ids(plain, "a") == [2, 1]


def test_evaluation_equals_a_plain_loop(trained: gptkit.Run) -> None:
    result = trained.evaluate()
    prepared = trained.prepared()
    n_tokens = len(prepared.validation.tokens) - 1
    assert result["tokens"] == n_tokens
    total = text_total = 0.0
    batches = prepared.validation_batches(trained.spec.data, 16, 1)
    with torch.no_grad():
        for inputs, targets, _ in batches:
            logits = trained.model(inputs).logits
            losses = torch.nn.functional.cross_entropy(logits[0], targets[0], reduction="none")
            total += float(losses.sum())
            text_total += float(losses[targets[0] != trained.tokenizer.end_id].sum())
    # The run evaluates in bf16 if the CPU supports it.
    assert result["loss"] == pytest.approx(total / n_tokens, rel=5e-3)
    assert result["perplexity"] == pytest.approx(torch.tensor(result["loss"]).exp().item(), rel=1e-5)
    ends = int((prepared.validation.tokens[1:] == trained.tokenizer.end_id).sum()) if trained.tokenizer.end_id else 0
    n_bytes = n_tokens - ends
    assert result["bits_per_byte"] == pytest.approx(text_total / n_bytes / 0.6931471805599453, rel=5e-3)


def test_evaluation_prepares_missing_tokens_again(trained: gptkit.Run, directory: Path) -> None:
    shutil.rmtree(directory / "data")
    assert gptkit.load(directory).evaluate() == trained.evaluate()


def test_evaluation_prepares_tokens_without_an_index_again(trained: gptkit.Run, directory: Path) -> None:
    (directory / "data" / "meta.json").unlink()
    assert gptkit.load(directory).evaluate() == trained.evaluate()


def test_evaluation_on_a_changed_corpus_prints_a_warning(
    corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = (corpus / "corpus.txt").read_text(encoding="utf-8")
    (tmp_path / "own.txt").write_text(text, encoding="utf-8")
    run = quiet({**spec(corpus, steps=1), "data": {"name": "text", "path": str(tmp_path / "own.txt")}}, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "data")
    run.evaluate()
    assert "has changed" not in caplog.text
    shutil.rmtree(tmp_path / "run" / "data")
    (tmp_path / "own.txt").write_text(text.upper(), encoding="utf-8")
    run.evaluate()
    assert f"the corpus of {tmp_path / 'run'} has changed since its training" in caplog.text


def test_evaluation_requires_validation_data(corpus: Path, tmp_path: Path) -> None:
    run = quiet(spec(corpus, steps=1), tmp_path / "run", **{"data.validation": 0})
    with pytest.raises(DataError, match="no validation split"):
        run.evaluate()


# -- resuming ---------------------------------------------------------------------------------------------------------


def test_resumed_run_equals_an_uninterrupted_one(trained: gptkit.Run, directory: Path) -> None:
    shutil.rmtree(directory / "checkpoints" / "step-00000006")
    run = gptkit.resume(directory, progress=False)
    assert same(weights(run.model), weights(trained.model))
    assert (directory / "samples.txt").read_bytes() == (trained.directory / "samples.txt").read_bytes()


def test_resuming_before_the_first_checkpoint_restarts(
    trained: gptkit.Run, directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("checkpoints", "data", "tokenizer"):
        shutil.rmtree(directory / name)
    run = gptkit.resume(directory, progress=False)
    assert f"{directory} has no checkpoint, so the training starts from step 0" in caplog.text
    assert same(weights(run.model), weights(trained.model))
    steps = [json.loads(line)["step"] for line in (directory / "metrics.jsonl").read_text().splitlines()]
    assert steps == [0, 2, 3, 4, 6]


def test_resume_starts_a_missing_run(
    trained: gptkit.Run, corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = quiet(spec(corpus), tmp_path / "new", resume=True)
    assert same(weights(run.model), weights(trained.model))
    assert "no checkpoint" not in caplog.text
    with pytest.raises(CheckpointError, match="run not found"):
        gptkit.resume(tmp_path / "nothing")


def test_number_of_steps_may_be_increased(directory: Path) -> None:
    run = gptkit.resume(directory, ["training.steps=8"], progress=False, **{"training.checkpoint_every": 5})
    assert run.step == 8
    assert gptkit.load(directory).spec.training.steps == 8
    with pytest.raises(CheckpointError, match=r"has reached step 8, and training\.steps is 7"):
        gptkit.resume(directory, ["training.steps=7"], progress=False)


def test_different_spec_is_rejected_with_the_difference(corpus: Path, directory: Path) -> None:
    before = (directory / "spec.yaml").read_bytes()
    with pytest.raises(CheckpointError) as caught:
        quiet(spec(corpus), directory, ["model.norm=layer", "training.seed=4"], resume=True)
    assert "model.norm.name: 'rms' in the run, 'layer' requested" in caught.value.message
    assert "training.seed: 0 in the run, 4 requested" in caught.value.message
    assert (directory / "spec.yaml").read_bytes() == before


def test_different_corpus_is_rejected(corpus: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(corpus, tmp_path / "corpus")
    quiet(spec(copied), tmp_path / "run")
    (copied / "corpus.txt").write_text("something else entirely\n" * 200)
    # The run's tokens still exist, and are used.
    gptkit.resume(tmp_path / "run", ["training.steps=7"], progress=False)
    shutil.rmtree(tmp_path / "run" / "data")
    with pytest.raises(CheckpointError, match="the corpus differs from the one"):
        gptkit.resume(tmp_path / "run", ["training.steps=8"], progress=False)


@pytest.mark.slow
def test_run_in_the_directory_of_its_corpus_is_excluded(corpus: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(corpus, tmp_path / "corpus")
    settings = spec(copied) | {"data": {"name": "text", "path": [str(copied), f"{copied}/**/*.txt"]}}
    quiet(settings, copied / "runs" / "first")
    assert (copied / "runs" / "first" / "samples.txt").stat().st_size
    shutil.rmtree(copied / "runs" / "first" / "data")
    assert gptkit.resume(copied / "runs" / "first", ["training.steps=7"], progress=False).step == 7
    quiet(settings, copied / "runs" / "second")
    recorded = [json.loads((copied / "runs" / name / "provenance.json").read_text())["data"] for name in ("first", "second")]
    assert recorded[0] == recorded[1]


def test_existing_run_is_not_overwritten(corpus: Path, directory: Path) -> None:
    with pytest.raises(CheckpointError, match="already holds a run, which has reached step 6"):
        quiet(spec(corpus), directory)
    (directory / "notes.txt").write_text("mine")
    run = quiet(spec(corpus, steps=2), directory, overwrite=True)
    assert run.step == 2
    assert (directory / "notes.txt").read_text() == "mine"
    assert {path.name for path in (directory / "checkpoints").iterdir()} == {"step-00000002"}
    assert len((directory / "metrics.jsonl").read_text().splitlines()) == 2


def test_run_without_its_provenance_names_where_its_weights_are(corpus: Path, tmp_path: Path) -> None:
    directory = tmp_path / "run"
    quiet(spec(corpus), directory)
    (directory / "provenance.json").unlink()
    with pytest.raises(CheckpointError, match=r"is not a run: it has no provenance\.json") as caught:
        gptkit.load(directory)
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("Restore the file from a copy of the run. Its weights are in ")
    assert Path(caught.value.hint.rpartition(" in ")[2].removesuffix(".")).is_file()


def test_directory_with_other_files_is_rejected(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "precious.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(CheckpointError, match="is not a run, but contains data"):
            quiet(spec(corpus), tmp_path, overwrite=overwrite)
    assert (tmp_path / "data" / "precious.txt").read_text() == "mine"


def test_concurrent_trainings_in_one_directory_are_rejected(corpus: Path, directory: Path) -> None:
    with RunDirectory(directory).lock(), pytest.raises(CheckpointError, match=f"another process \\({os.getpid()}\\)"):
        quiet(spec(corpus), directory, resume=True)
    quiet(spec(corpus), directory, resume=True)


def test_lock_of_a_dead_process_is_ignored(directory: Path) -> None:
    child = os.fork()
    if child == 0:
        RunDirectory(directory).lock().__enter__()
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    with RunDirectory(directory).lock():
        pass


def test_ctrl_c_saves_an_unfinished_run(trained: gptkit.Run, corpus: Path, tmp_path: Path) -> None:
    class Stop(Callback):
        def on_step(self, step: int) -> None:
            if step == 2:
                os.kill(os.getpid(), signal.SIGINT)

    run = quiet(spec(corpus), tmp_path / "run", callbacks=[Stop()])
    assert not run.finished
    assert gptkit.load(tmp_path / "run").step == run.step < 6
    assert same(weights(gptkit.resume(tmp_path / "run", progress=False).model), weights(trained.model))


def test_custom_tracker_is_called(corpus: Path, tmp_path: Path) -> None:
    class Mine(Tracker):
        seen: list[int]

        def __init__(self) -> None:
            self.seen = []

        def on_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
            self.seen.append(step)
            raise RuntimeError

    mine = Mine()
    assert quiet(spec(corpus), tmp_path / "run", trackers=[mine]).finished
    assert mine.seen == [0]


# -- rejected input -----------------------------------------------------------------------------------------------------


def test_tokenizer_larger_than_the_vocabulary_is_rejected(corpus: Path) -> None:
    with pytest.raises(SpecError) as caught:
        gptkit.open_spec(spec(corpus), ["model.vocab_size=100"])
    (problem,) = caught.value.problems
    assert problem.dotted == "model.vocab_size"
    assert "ids, but the model has 100" in problem.message


def test_trained_vocabulary_larger_than_declared_is_rejected(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="but the model has 3"):
        quiet(spec(corpus), tmp_path / "run", ["tokenizer={name: char}", "model.vocab_size=3"])


def test_run_with_a_missing_plugin_is_reported_with_the_command(directory: Path) -> None:
    text = (directory / "spec.yaml").read_text().replace("name: rms", "name: strange")
    (directory / "spec.yaml").write_text(text)
    result = json.loads((directory / "provenance.json").read_text())
    result["components"]["norm strange"] = "gptkit-strange==1.4"
    (directory / "provenance.json").write_text(json.dumps(result))
    with pytest.raises(RequirementError) as caught:
        gptkit.load(directory)
    assert "norm strange from gptkit-strange==1.4" in caught.value.message
    assert "pip install 'gptkit-strange==1.4'" in str(caught.value)


def test_run_whose_plugin_has_another_version_names_both(directory: Path) -> None:
    provenance = directory / "provenance.json"
    result = json.loads(provenance.read_text())
    installed = result["components"]["norm rms"]
    result["components"]["norm rms"] = "gptkit==0.0.1"
    provenance.write_text(json.dumps(result))
    spec = directory / "spec.yaml"
    text = spec.read_text()
    spec.write_text(text.replace("training:", "training:\n  fancy: 3", 1))
    named = (
        f"The run was written with gptkit==0.0.1, and installed is {installed}. Install it as before: pip install 'gptkit=="
    )
    with pytest.raises(SpecError, match="unknown key 'fancy'") as caught:
        gptkit.load(directory)
    assert (caught.value.hint or "").startswith(named)

    wider = re.sub(r"d_model: \d+", "d_model: 64", text, count=1)
    spec.write_text(wider)
    with pytest.raises((SpecError, CheckpointError)) as failed:
        gptkit.load(directory)
    assert named in (failed.value.hint or "")

    result["components"]["norm strange"] = "gptkit==0.0.1"
    provenance.write_text(json.dumps(result))
    spec.write_text(text.replace("name: rms", "name: strange"))
    with pytest.raises(RequirementError, match=re.escape(f"requires norm strange, which {installed} no longer has")):
        gptkit.load(directory)


@pytest.mark.parametrize("name", ["tokenizer", "checkpoints", "spec.yaml"])
def test_run_with_missing_files_is_reported(directory: Path, name: str) -> None:
    path = directory / name
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    with pytest.raises(CheckpointError) as caught:
        gptkit.load(directory)
    assert str(directory) in caught.value.message


def test_a_missing_directory_is_reported(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="run not found"):
        gptkit.load(tmp_path / "nowhere")


# -- building and opening ----------------------------------------------------------------------------------------------


def test_build_returns_a_model(corpus: Path, tmp_path: Path) -> None:
    model = gptkit.build(spec(corpus), ["model.d_model=32"], model={"n_layers": 2})
    assert (model.spec.d_model, model.spec.n_layers) == (32, 2)
    again = gptkit.build(spec(corpus), ["model.d_model=32"], model={"n_layers": 2})
    assert same(weights(model), weights(again))
    other = gptkit.build(spec(corpus), ["model.d_model=32"], model={"n_layers": 2}, **{"training.seed": 1})
    assert not same(weights(model), weights(other))
    empty = gptkit.build(gptkit.open_spec(spec(corpus)).spec, device="meta")
    assert {parameter.device.type for parameter in empty.parameters()} == {"meta"}


def test_build_requires_a_known_vocabulary(corpus: Path) -> None:
    text = (corpus / "corpus.txt").read_text(encoding="utf-8")
    model = gptkit.build(spec(corpus), ["tokenizer={name: char}"])
    assert 0 < model.vocab_size <= len(set(text)) + 2


def test_paths_are_relative_to_the_spec_file(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "specs").mkdir()
    shutil.copy(corpus / "corpus.txt", tmp_path / "specs" / "here.txt")
    data = {**spec(corpus, steps=1), "data": {"name": "text", "path": "here.txt"}}
    (tmp_path / "specs" / "a.json").write_text(json.dumps(data))
    run = quiet(tmp_path / "specs" / "a.json", tmp_path / "run")
    monkeypatch.chdir(tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "data")
    # From the run directory, with the base directory of its provenance.
    assert gptkit.load(".").evaluate()["tokens"] > 100
    assert run.provenance["base"] == str(tmp_path / "specs")


def test_model_is_the_only_required_section() -> None:
    result = gptkit.open_spec({"model": {}}).spec
    assert result.tokenizer.name == "bpe"
    assert [link.name for link in result.sampler] == ["temperature", "top-k"]
    assert result.data.name == "builtin"
    with pytest.raises(SpecError, match="model"):
        gptkit.open_spec({"name": "nothing"})


def test_given_registry_is_used_everywhere() -> None:
    empty = Registry(entry_points=[])
    with pytest.raises(SpecError) as caught:
        gptkit.open_spec({"model": {}}, registry=empty)
    assert "training.optimizer" in {problem.dotted for problem in caught.value.problems}


def test_importing_gptkit_imports_no_torch() -> None:
    code = "import sys, gptkit; assert 'torch' not in sys.modules and 'pydantic' not in sys.modules; gptkit.GptkitError"
    code += "; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_exists() -> None:
    for name in gptkit.__all__:
        assert getattr(gptkit, name) is not None
    assert set(gptkit.__all__) < set(dir(gptkit))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = gptkit.nothing


def test_loss_decreases_on_the_built_in_text(tmp_path: Path) -> None:
    data: dict[str, Any] = {
        "tokenizer": "byte",
        "model": {**MODEL, "d_model": 32},
        "training": {**TRAINING, "steps": 60, "batch_size": 16, "optimizer": {"name": "adamw", "learning_rate": 0.01}},
    }
    quiet(data, tmp_path / "run", **{"training.checkpoint_every": None, "training.evaluate_every": None})
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    first, last = rows[0]["validation_loss"], rows[-1]["validation_loss"]
    assert first == pytest.approx(5.55, abs=0.1)  # ln 256: uniform guessing
    assert last < 3.5
