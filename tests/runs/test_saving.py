"""Saving a model as a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import gptkit
from gptkit.core.errors import CheckpointError, GptkitError, SpecError
from gptkit.files import validate_data
from gptkit.kinds.tokenizer import Tokenizer, TokenizerSpec
from gptkit.runs.directory import RunDirectory
from gptkit.runs.run import Run
from gptkit.runs.spec import ExperimentSpec

torch.set_num_threads(1)

SPEC: dict[str, Any] = {
    "name": "try",
    "tokenizer": {"name": "byte", "special_tokens": ["<|turn|>"]},
    "model": {
        "context_length": 8,
        "d_model": 8,
        "n_layers": 1,
        "attention": {"name": "grouped-query", "n_heads": 2, "n_kv_heads": 1},
        "feedforward": {"name": "gated", "d_hidden": 8},
        "head": {"name": "linear", "tied": False},
    },
    "data": {"name": "text", "path": "corpus.txt"},
    "training": {"steps": 2, "batch_size": 2, "evaluate_batches": 1, "sample_tokens": 0, "device": "cpu"},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("trained")
    (directory / "corpus.txt").write_text("the cat sat on a mat. " * 200)
    gptkit.train(SPEC, directory / "run", [f"data.path={directory}/corpus.txt"], progress=False)
    return directory / "run"


@pytest.fixture
def changed(trained: Path) -> Run:
    """Return a run whose weights were changed after loading."""
    run = gptkit.load(trained, device="cpu")
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in run.model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return run


def contents(directory: Path) -> dict[str, bytes]:
    files = (path for path in directory.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in files}


def require_same(one: Run, other: Run) -> None:
    mine, saved = one.model.state_dict(), other.model.state_dict()
    assert mine.keys() == saved.keys()
    assert all(torch.equal(mine[name], saved[name]) for name in mine)
    assert one.generate("the", max_new_tokens=20, seed=1) == other.generate("the", max_new_tokens=20, seed=1)
    assert one.evaluate() == other.evaluate()


def test_saved_run_has_the_changed_weights_and_the_spec(changed: Run, trained: Path, tmp_path: Path) -> None:
    before = contents(trained)
    assert changed.save(tmp_path / "saved") == tmp_path / "saved"
    saved = gptkit.load(tmp_path / "saved", device="cpu")
    assert saved.step == 0
    assert saved.spec == changed.spec
    require_same(changed, saved)
    assert contents(trained) == before


def test_a_saved_run_is_complete(changed: Run, tmp_path: Path) -> None:
    changed.save(tmp_path / "saved")
    assert set(contents(tmp_path / "saved")) == {
        "spec.yaml",
        "provenance.json",
        "tokenizer/gptkit-tokenizer.json",
        "checkpoints/step-00000000/model.safetensors",
        "checkpoints/step-00000000/state.json",
    }
    directory = RunDirectory(tmp_path / "saved")
    assert {path.relative_to(directory.path).as_posix() for path in directory.own_files()} == set(contents(directory.path))
    state = json.loads((directory.checkpoints / "step-00000000" / "state.json").read_text())
    assert state["optimizer"] is None


def test_a_saved_run_is_exported_and_imported_again(changed: Run, tmp_path: Path) -> None:
    changed.save(tmp_path / "saved")
    gptkit.export_model(tmp_path / "saved", tmp_path / "llama", family="llama")
    again = gptkit.import_model(tmp_path / "llama", tmp_path / "again", tokenizer=SPEC["tokenizer"])
    ids = torch.randint(257, (1, 8))
    torch.testing.assert_close(again.model.cpu()(ids).logits, changed.model(ids).logits, atol=3e-5, rtol=3e-5)


def test_an_experiment_starts_from_a_saved_run(changed: Run, trained: Path, tmp_path: Path) -> None:
    changed.save(tmp_path / "saved")
    still = {"name": "sgd", "learning_rate": 1e-12}
    training = {**SPEC["training"], "steps": 1, "optimizer": still, "init_from": str(tmp_path / "saved")}
    data = {"name": "text", "path": str(trained.parent / "corpus.txt")}
    run = gptkit.train({**SPEC, "training": training, "data": data}, tmp_path / "run", progress=False)
    for name, parameter in changed.model.named_parameters():
        torch.testing.assert_close(run.model.get_parameter(name), parameter, atol=1e-6, rtol=1e-6)


def test_a_saved_run_is_trained_further_as_an_imported_one(changed: Run, tmp_path: Path) -> None:
    changed.save(tmp_path / "saved")
    # Another optimizer and batch size are allowed, since no training is resumed.
    run = gptkit.resume(tmp_path / "saved", ["training.steps=3", "training.batch_size=3"], progress=False)
    assert run.step == 3
    changed.save(tmp_path / "other")
    with pytest.raises(CheckpointError, match=r"model\.n_layers: 1 in the run, 2 requested"):
        gptkit.resume(tmp_path / "other", ["model.n_layers=2"], progress=False)
    with pytest.raises(CheckpointError, match=r"training\.batch_size"):
        gptkit.resume(tmp_path / "saved", ["training.steps=4", "training.batch_size=4"], progress=False)


def test_run_is_replaced_only_on_request(changed: Run, trained: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    gptkit.load(trained, device="cpu").save(target)
    (target / "notes.txt").write_text("mine")
    before = contents(target)
    with pytest.raises(CheckpointError, match="already holds a run"):
        changed.save(target)
    with RunDirectory(target).lock(), pytest.raises(CheckpointError, match=r"another process .*is writing into"):
        changed.save(target, overwrite=True)
    assert contents(target) == before
    changed.save(target, overwrite=True)
    require_same(changed, gptkit.load(target, device="cpu"))
    assert (target / "notes.txt").read_text() == "mine"
    assert not [path for path in target.iterdir() if path.name.startswith(".gptkit")]


def test_run_can_be_saved_over_itself(changed: Run, tmp_path: Path) -> None:
    changed.save(tmp_path / "run")
    run = gptkit.load(tmp_path / "run", device="cpu")
    with torch.no_grad():
        run.model.final_norm.weight.add_(1)
    run.save(tmp_path / "run", overwrite=True)
    require_same(run, gptkit.load(tmp_path / "run", device="cpu"))


@pytest.mark.parametrize("overwrite", [False, True])
def test_directory_that_gptkit_did_not_create_is_rejected(changed: Run, tmp_path: Path, overwrite: bool) -> None:
    project = tmp_path / "project"
    (project / "data").mkdir(parents=True)
    (project / "data" / "corpus.txt").write_text("mine")
    (project / "spec.yaml").write_text("name: mine\n")
    before = contents(project)
    for save in (changed.save, lambda path, **how: gptkit.save_run(path, changed.model, changed.tokenizer, **how)):
        with pytest.raises(CheckpointError, match=r"is not a run, but contains spec\.yaml, data"):
            save(project, overwrite=overwrite)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(CheckpointError, match="is a file"):
        changed.save(tmp_path / "file", overwrite=overwrite)
    assert contents(project) == before
    assert not (project / ".lock").exists()


def test_failed_save_leaves_the_run_unchanged(changed: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changed.save(tmp_path / "run")
    before = contents(tmp_path / "run")

    def fail(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("gptkit.runs.saving.save_tensors", fail)
    with pytest.raises(KeyboardInterrupt):
        changed.save(tmp_path / "run", overwrite=True)
    assert contents(tmp_path / "run") == before


def test_spec_defaults_to_that_of_the_model(changed: Run, tmp_path: Path) -> None:
    gptkit.save_run(tmp_path / "mine", changed.model, changed.tokenizer)
    saved = gptkit.load(tmp_path / "mine", device="cpu")
    assert saved.spec.name == "mine"
    assert saved.spec.model == changed.spec.model
    assert saved.spec.tokenizer == changed.spec.tokenizer
    assert saved.generate("the", seed=1) == changed.generate("the", seed=1)


def test_tied_head_is_stored_once_and_remains_tied(tmp_path: Path) -> None:
    spec = {**SPEC, "model": {**SPEC["model"], "head": {"name": "linear", "tied": True}, "vocab_size": 260}}
    model, tokenizer = gptkit.build(spec), validate_data(SPEC, ExperimentSpec).tokenizer.fit(iter(()))
    gptkit.save_run(tmp_path / "tied", model, tokenizer)
    stored = load_file(tmp_path / "tied" / "checkpoints" / "step-00000000" / "model.safetensors")
    assert [name for name, tensor in stored.items() if tensor.shape == (260, 8)] == ["embedding.table.weight"]
    saved = gptkit.load(tmp_path / "tied", device="cpu").model
    assert saved.vocab_size == 260
    ids = torch.randint(257, (1, 8))
    assert torch.equal(saved(ids).logits, model(ids).logits)
    # An untied head would be lost.
    untied = gptkit.build(spec, model={"head": {"name": "linear", "tied": False}})
    with pytest.raises(GptkitError, match=r"head\.\S+ is not in the spec"):
        gptkit.save_run(tmp_path / "untied", untied, tokenizer, spec)
    assert not (tmp_path / "untied").exists()


def test_weights_in_bf16_are_stored_in_bf16(changed: Run, tmp_path: Path) -> None:
    changed.model.to(torch.bfloat16)
    changed.save(tmp_path / "half")
    stored = load_file(tmp_path / "half" / "checkpoints" / "step-00000000" / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
    changed.model.float()
    require_same(changed, gptkit.load(tmp_path / "half", device="cpu"))


def test_spec_of_another_model_is_rejected(changed: Run, tmp_path: Path) -> None:
    deeper = {**SPEC, "model": {**SPEC["model"], "n_layers": 2}}
    wider = {**SPEC, "model": {**SPEC["model"], "feedforward": {"name": "gated", "d_hidden": 16}}}
    for spec, problem in ((deeper, r"blocks\.1\.\S+ is missing"), (wider, r"is \(16, 8\), in the spec \(32, 8\)")):
        with pytest.raises(GptkitError, match=problem):
            gptkit.save_run(tmp_path / "run", changed.model, changed.tokenizer, spec)
    meta = gptkit.build(SPEC, device="meta")
    with pytest.raises(GptkitError, match="is on the meta device"):
        gptkit.save_run(tmp_path / "run", meta, changed.tokenizer)
    small = gptkit.GPT(SPEC["model"], vocab_size=100)
    with pytest.raises(SpecError, match=r"258 ids, but the model has 100"):
        gptkit.save_run(tmp_path / "run", small, changed.tokenizer)
    assert not (tmp_path / "run").exists()


def test_tokenizer_without_a_spec_requires_one(changed: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(changed.tokenizer), "to_spec", Tokenizer.to_spec)
    with pytest.raises(GptkitError, match="does not define its spec"):
        gptkit.save_run(tmp_path / "run", changed.model, changed.tokenizer)
    gptkit.save_run(tmp_path / "run", changed.model, changed.tokenizer, {"tokenizer": SPEC["tokenizer"]})
    assert gptkit.load(tmp_path / "run").spec.model == changed.spec.model


@pytest.mark.parametrize(
    "data",
    [
        "byte",
        {"name": "byte", "end_token": None, "special_tokens": ["<|a|>", "<|b|>"]},
        {"name": "byte", "start_token": "<|begin|>", "special_tokens": ["<|unk|>"]},
        "char",
        {"name": "char", "unknown": "bytes"},
        "word",
        {"name": "word", "fallback": "unknown", "whitespace": "drop", "lowercase": True},
        {"name": "bpe", "vocab_size": 300},
        {"name": "bpe", "vocab_size": 280, "pattern": "gpt2", "special_tokens": ["<|a|>"]},
    ],
    ids=str,
)
def test_tokenizer_spec_restores_the_tokenizer(data: Any, tmp_path: Path) -> None:
    def fit(spec: TokenizerSpec) -> Tokenizer:
        return spec.fit(iter(["the cat sat on the mat, and the Dog. " * 20]))

    def read(given: Any) -> TokenizerSpec:
        return validate_data({"model": {}, "tokenizer": given}, ExperimentSpec).tokenizer

    one = fit(read(data))
    for tokenizer in (one, _saved(one, read(data), tmp_path)):
        again = fit(read(tokenizer.to_spec(tmp_path)))
        assert again.special_tokens == one.special_tokens
        assert (again.start_id, again.end_id) == (one.start_id, one.end_id)
        assert [again.token_bytes(token) for token in range(again.vocab_size)] == [
            one.token_bytes(token) for token in range(one.vocab_size)
        ]
        assert again.encode("the new Dog") == one.encode("the new Dog")


def test_spec_of_a_tokenizer_json_has_the_path_of_its_copy(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(validate_data(SPEC, ExperimentSpec).tokenizer.fit(iter(())).to_tokenizer_json())
    given = {"name": "hugging-face", "path": str(tmp_path), "end_token": "<|endoftext|>"}
    tokenizer = validate_data({"model": {}, "tokenizer": given}, ExperimentSpec).tokenizer.fit(iter(()))
    model = gptkit.GPT(SPEC["model"], vocab_size=tokenizer.vocab_size)
    gptkit.save_run(tmp_path / "run", model, tokenizer)
    saved = gptkit.load(tmp_path / "run")
    assert getattr(saved.spec.tokenizer, "path", None) == str((tmp_path / "run" / "tokenizer").resolve())
    assert (saved.tokenizer.start_id, saved.tokenizer.end_id) == (tokenizer.start_id, tokenizer.end_id)
    assert saved.spec.tokenizer.fit(iter(())).end_id == tokenizer.end_id


def _saved(tokenizer: Tokenizer, spec: TokenizerSpec, directory: Path) -> Tokenizer:
    tokenizer.save(directory)
    return spec.load(directory)
