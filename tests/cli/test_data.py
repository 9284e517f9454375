"""`gptkit data`: prepare, check and show, and a training that uses the tokens."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import gptkit
from gptkit.components.tokenizer.char import CharSpec
from gptkit.data import open_prepared

Call = Callable[..., Any]
SPEC = """
name: small
tokenizer: {name: bpe, vocab_size: 300}
model: {d_model: 16, n_layers: 1, attention: {name: multi-head, n_heads: 2}, context_length: 16}
data: {name: jsonl, path: lines.jsonl, windows: packed}
training: {steps: 3, batch_size: 2, device: cpu, sample_tokens: 0, precision: fp32}
"""


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    lines = [json.dumps({"text": f"line {number} of the corpus, " * (1 + number % 4)}) for number in range(60)]
    (tmp_path / "lines.jsonl").write_text("\n".join(lines))
    (tmp_path / "spec.yaml").write_text(SPEC)
    return Path("spec.yaml")


def test_training_uses_the_prepared_tokens_where_they_are(spec: Path, call: Call) -> None:
    plain = gptkit.train(spec, "runs/plain", progress=False)
    out = call("data", "prepare", spec, "--workers", "2", "--shard-tokens", "500").stdout
    (directory,) = Path("prepared").iterdir()
    assert f"{directory.absolute()}: " in out
    run = gptkit.train(spec, "runs/own", progress=False)
    assert [path.name for path in Path("runs/own/data").iterdir()] == ["meta.json"]
    assert run.prepared().directory == directory.absolute()
    for name, tensor in plain.model.state_dict().items():
        assert tensor.equal(run.model.state_dict()[name]), name
    assert run.evaluate() == plain.evaluate()
    # Without the corpus, through the data that names the directory.
    Path("lines.jsonl").unlink()
    override = f"data={{name: prepared, path: {directory}, windows: packed}}"
    moved = gptkit.train(spec, "runs/moved", [override], progress=False)
    assert all(tensor.equal(moved.model.state_dict()[name]) for name, tensor in plain.model.state_dict().items())
    longer = gptkit.resume("runs/moved", ["training.steps=4"], progress=False)
    assert longer.step == 4


@pytest.mark.slow
def test_tokens_of_a_tokenizer_whose_file_has_changed_are_not_used(spec: Path, call: Call) -> None:
    def write_tokenizer(letters: str) -> None:
        tokenizer = CharSpec(unknown="bytes").fit(iter([letters]))
        Path("tokenizer.json").write_text(tokenizer.to_tokenizer_json())

    override = "tokenizer={name: hugging-face, path: tokenizer.json}"
    write_tokenizer("äö")
    call("data", "prepare", spec, "--set", override)
    (directory,) = Path("prepared").iterdir()
    stale = open_prepared(directory)
    write_tokenizer("äöü")
    result = call("train", spec, "runs/own", "--set", override)
    assert f"warning: {directory.absolute()} was prepared with another tokenizer" in " ".join(result.stderr.split())
    run = gptkit.load("runs/own")
    assert run.tokenizer.vocab_size == stale.vocab_size + 1
    assert run.prepared().tokenizer != stale.tokenizer
    named = f"data={{name: prepared, path: {directory}}}"
    assert "prepared with another tokenizer" in call("train", spec, "r", "--set", override, "--set", named, code=2).stderr
    call("data", "prepare", spec, "--set", override)
    assert open_prepared(directory).tokenizer == run.prepared().tokenizer
    # The tokens hold a copy, for a machine without the file.
    Path("tokenizer.json").unlink()
    assert (
        gptkit.train(spec, "runs/moved", [override, named], progress=False).tokenizer.vocab_size == run.tokenizer.vocab_size
    )


def test_repeated_preparation_reuses_the_tokens(spec: Path, call: Call) -> None:
    call("data", "prepare", spec, "--out", "tokens")
    before = Path("tokens/meta.json").stat()
    assert call("data", "prepare", spec, "--out", "tokens", "--quiet").stdout == "tokens\n"
    assert Path("tokens/meta.json").stat().st_ino == before.st_ino


def test_check_names_the_damaged_shard(spec: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gptkit.data.preparation._BATCH", 300)
    call("data", "prepare", spec, "--out", "tokens", "--shard-tokens", "400")
    assert "all checksums are correct" in call("data", "check", "tokens").stdout
    path = Path("tokens/train-00001.bin")
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])
    assert call("data", "check", "tokens", code=1).stdout.startswith("tokens/train-00001.bin: damaged: the checksum of its")


def test_show_describes_the_tokens(spec: Path, call: Call) -> None:
    call("data", "prepare", spec)
    content = json.loads(call("data", "show", spec, "--json").stdout)
    prepared = open_prepared(Path(content["directory"]))
    tokens, starts = prepared.train.tokens, prepared.train.starts.tolist()
    lengths = [end - start for start, end in zip(starts, [*starts[1:], len(tokens)], strict=True)]
    assert content["train"]["tokens"] == len(tokens)
    assert content["train"]["longest_document"] == max(lengths) == content["longest"][0]["tokens"]
    assert content["train"]["mean_document"] == pytest.approx(sum(lengths) / len(lengths))
    assert content["packing"]["window"] == 16
    assert content["packing"]["documents_cut"] == sum(length - 1 > 16 for length in lengths)
    assert content["longest"][0]["text"].startswith("line ")
    steps = len(tokens) / (2 * 16)
    assert content["epoch"] == {
        "batch_size": 2,
        "window": 16,
        "steps": steps,
        "training_steps": 3,
        "epochs": 3 / steps,
    }
    assert f"an epoch: {steps:,.1f} steps of 2 × 16 tokens" in call("data", "show", spec).stdout
    staged = ("--set", "training.stages=[{steps: 1, batch_size: 1}, {}]")
    assert "an epoch" not in call("data", "show", spec, *staged).stdout
    assert json.loads(call("data", "show", content["directory"], "--json").stdout)["epoch"] is None
    assert "packed into windows of 7:" in call("data", "show", content["directory"], "--window", "7").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("check", "nowhere"), "nowhere"),
        (("check", "."), "prepared tokens not found"),
        (("show", "spec.yaml"), "the corpus of spec.yaml is not prepared"),
        (("prepare", "spec.yaml", "--set", "data.path=missing.jsonl"), "missing.jsonl: file or directory not found"),
        (("prepare", "spec.yaml", "--out", "."), "contains files other than prepared tokens"),
        (("prepare", "spec.yaml", "--out", "spec.yaml"), "contains files other than prepared tokens"),
        (("prepare", "spec.yaml", "--workers", "0"), "should be greater than or equal to 1"),
        (("prepare", "spec.yaml", "--set", "data={name: prepared, path: tokens}"), "prepared tokens already"),
        (("prepare", "spec.yaml", "--set", "data.stride=3"), "packed windows have no stride"),
        (("prepare", "spec.yaml", "--set", "data.field=body"), "no field 'body'"),
        (("prepare", "spec.yaml", "--set", "data={name: text, path: bad.txt.gz}"), "not a whole gzip file"),
    ],
)
def test_wrong_input_is_reported_in_one_message(spec: Path, call: Call, arguments: tuple[str, ...], message: str) -> None:
    Path("bad.txt.gz").write_bytes(b"not compressed")
    result = call("data", *arguments, code=2)
    assert message in " ".join(result.stderr.replace("│", " ").split())
    assert "Traceback" not in result.stderr
    assert not any(path.name.endswith(".preparing") for path in Path().rglob("*"))


def test_commands_in_messages_repeat_the_overrides(spec: Path, call: Call) -> None:
    Path("other text.txt").write_text("one line of text\n" * 200)
    given = ("--set", "data={name: text, path: other text.txt}", "--set", "training.steps=1")
    repeated = "spec.yaml --set 'data={name: text, path: other text.txt}' --set training.steps=1"
    refused = " ".join(call("data", "show", spec, *given, code=2).stderr.split())
    assert f"Prepare it: gptkit data prepare {repeated}" in refused
    assert f"next: gptkit train {repeated}" in " ".join(call("data", "prepare", spec, *given).stderr.split())
    call("data", "show", spec, *given)


def test_trained_tokenizer_survives_an_interruption(spec: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its training can take longer than the encoding."""

    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    def train(*_: Any, **__: Any) -> None:
        raise AssertionError("trained again")

    with monkeypatch.context() as patch:
        patch.setattr("gptkit.data.preparation.plan_split", interrupt)
        stopped = call("data", "prepare", spec, "--out", "tokens", code=130)
    assert "the trained tokenizer is kept beside tokens; repeat the command" in " ".join(stopped.stderr.split())
    (kept,) = Path().glob(".tokens.tokenizer-*")
    call("data", "prepare", spec, "--out", "other")
    with monkeypatch.context() as patch:
        patch.setattr("gptkit.components.tokenizer.bpe.train_merges", train)
        call("data", "prepare", spec, "--out", "tokens")
    assert not kept.exists()
    assert Path("tokens/meta.json").read_bytes() == Path("other/meta.json").read_bytes()


def test_damaged_or_outdated_tokenizer_of_an_interruption_is_replaced(spec: Path, call: Call) -> None:
    call("data", "prepare", spec, "--out", "other")
    outdated = Path(f".tokens.tokenizer-{'0' * 32}")
    outdated.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gptkit.runs.corpus._remove_kept", lambda directory: None)
        call("data", "prepare", spec, "--out", "tokens")
    (kept,) = set(Path().glob(".tokens.tokenizer-*")) - {outdated}
    (kept / "gptkit-tokenizer.json").write_text("{")
    shutil.rmtree("tokens")
    call("data", "prepare", spec, "--out", "tokens")
    assert Path("tokens/meta.json").read_bytes() == Path("other/meta.json").read_bytes()
    assert not list(Path().glob(".tokens.tokenizer-*"))


def test_interruption_says_how_to_continue(spec: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gptkit.data.journal._INTERVAL", 0.0)
    monkeypatch.setattr("gptkit.data.preparation._BATCH", 300)

    def stop(self: Any, progress: Any) -> None:
        if progress.done > 1000:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("gptkit.cli.data._Speed.show", stop)
        stopped = call("data", "prepare", spec, "--out", "tokens", code=130)
    assert "tokens are kept in .tokens.preparing; repeat the command to continue there" in " ".join(stopped.stderr.split())
    call("data", "prepare", spec, "--out", "other")
    call("data", "prepare", spec, "--out", "tokens")
    names = [path.name for path in Path("tokens").iterdir() if path.is_file()]
    assert all(Path("tokens", name).read_bytes() == Path("other", name).read_bytes() for name in names)
    assert not Path(".tokens.preparing").exists()
