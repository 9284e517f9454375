"""Commands about runs: train, generate, evaluate, demo."""

from __future__ import annotations

import json
import math
import shutil
import signal
from pathlib import Path

import pytest

import gptkit
from gptkit.cli import demo
from gptkit.training.progress import ConsoleProgress
from tests.support.command_line import Call

# -- train -----------------------------------------------------------------------------------------------------------


def test_train_without_a_terminal_prints_plain_lines_and_the_next_command(call: Call, project: Path) -> None:
    result = call("train", "mini.yaml")
    assert gptkit.load("runs/mini").step == 3
    assert "step 3/3" in result.stderr
    assert "gptkit generate runs/mini" in result.stderr
    assert "\x1b" not in result.stderr
    assert result.stdout == ""


def test_train_names_the_run_directory_after_the_spec(call: Call, project: Path) -> None:
    call("train", "mini.yaml", "--quiet", "-s", 'name="../so: what"', "-s", "training.steps=1")
    assert (project / "runs/so-what/spec.yaml").is_file()


def test_train_rejects_an_existing_run_with_remedies(call: Call, run: Path) -> None:
    before = (run / "metrics.jsonl").read_bytes()
    result = call("train", run.parent / "mini.yaml", run, code=2)
    assert f"gptkit train --resume {run}" in result.stderr
    assert "--overwrite" in result.stderr
    assert (run / "metrics.jsonl").read_bytes() == before
    assert "is a run, not a spec file" in call("train", run, code=2).stderr
    assert "mutually exclusive" in call("train", run, "--resume", "--overwrite", code=2).stderr


def test_train_overwrites_on_request(call: Call, project: Path, run: Path) -> None:
    copy = shutil.copytree(run, project / "copy")
    call("train", "mini.yaml", copy, "--overwrite", "--quiet", "--set", "training.steps=1")
    assert gptkit.load(copy).step == 1


def test_resume_with_more_steps_extends_the_run(call: Call, run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "copy")
    call("train", "--resume", copy, "--set", "training.steps=5", "--quiet")
    assert gptkit.load(copy).step == 5
    steps = [json.loads(line)["step"] for line in (copy / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert steps == sorted(steps)
    assert steps[-1] == 5


def test_ctrl_c_saves_prints_the_resume_command_and_exits_with_130(
    call: Call, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def press(self: ConsoleProgress, step: int) -> None:
        if step == 2:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(ConsoleProgress, "on_step", press)
    result = call("train", "mini.yaml", "run", code=130)
    assert "gptkit train --resume run" in result.stderr
    assert gptkit.load("run").step == 2
    call("train", "--resume", "run", "--quiet")
    assert gptkit.load("run").finished


# -- generate --------------------------------------------------------------------------------------------------------


def test_generate_prints_text_on_stdout_and_messages_on_stderr(call: Call, run: Path) -> None:
    result = call("generate", run, "the cat", "--max-tokens", "12", "--seed", "5")
    text = gptkit.load(run).generate("the cat", max_new_tokens=12, seed=5)
    assert result.stdout == f"the cat{text}\n"
    assert "12 tokens" in result.stderr
    assert "seed 5" in result.stderr
    assert call("generate", run, "the cat", "-n", "12", "--seed", "5", "--no-echo").stdout == f"{text}\n"


def test_generate_reads_stdin_for_a_dash(call: Call, run: Path) -> None:
    result = call("generate", run, "-", "-n", "4", "--sampler", "greedy", input="on a ")
    text = gptkit.load(run).generate("on a ", max_new_tokens=4, sampler=["greedy"])
    assert result.stdout == f"on a {text}\n"


def test_generate_without_a_prompt_starts_from_a_special_token(call: Call, run: Path) -> None:
    assert call("generate", run, "-n", "3", "--seed", "1").stdout.endswith("\n")


def test_generate_prints_several_texts_as_json(call: Call, run: Path) -> None:
    result = call("generate", run, "the", "cat", "--count", "2", "-n", "6", "--seed", "3", "--json")
    data = json.loads(result.stdout)
    assert [item["prompt"] for item in data] == ["the", "the", "cat", "cat"]
    assert data[0]["text"] != data[1]["text"]
    assert {item["finish"] for item in data} == {"length"}
    plain = call("generate", run, "the", "cat", "--count", "2", "-n", "6", "--seed", "3").stdout
    assert plain == "\n".join(item["prompt"] + item["text"] + "\n" for item in data)


def test_generate_stops_at_a_stop_string(call: Call, run: Path) -> None:
    whole = gptkit.load(run).generate("the", max_new_tokens=30, seed=2)
    stop = whole[3]
    result = call("generate", run, "the", "-n", "30", "--seed", "2", "--stop", stop, "--no-echo")
    assert result.stdout == whole[: whole.index(stop)] + "\n"
    assert "stop string reached" in result.stderr


def test_generate_applies_samplers_in_order(call: Call, run: Path) -> None:
    from gptkit.cli.samplers import chain

    links = chain(["temperature=0.5", "{name: top-p, p: 0.25}", "repetition-penalty=1.5", "greedy"])
    assert [link.name for link in links] == ["temperature", "top-p", "repetition-penalty", "greedy"]
    assert links[0].value == 0.5
    assert links[1].p == 0.25
    assert links[2].penalty == 1.5  # the first of its fields
    assert "did you mean 'top-k'?" in call("generate", run, "a", "--sampler", "topk=3", code=2).stderr
    assert "takes no value" in call("generate", run, "a", "--sampler", "greedy=3", code=2).stderr
    assert "--sampler top-k=0: k: must be" in call("generate", run, "a", "--sampler", "top-k=0", code=2).stderr


def test_generate_without_a_run_is_an_error(call: Call, project: Path) -> None:
    assert "run not found" in call("generate", "runs/none", code=2).stderr


# -- evaluate --------------------------------------------------------------------------------------------------------


def test_evaluate_on_the_runs_own_corpus(call: Call, run: Path) -> None:
    data = json.loads(call("evaluate", run, "--json").stdout)
    expected = gptkit.load(run).evaluate()
    assert data["loss"] == pytest.approx(expected["loss"])
    assert data["step"] == 3
    assert data["bits_per_byte"] == pytest.approx(data["loss"] / math.log(2), rel=0.01)  # a byte is a token
    assert "bits per byte" in call("evaluate", run).stdout


def test_evaluate_on_other_text(call: Call, run: Path, tmp_path: Path) -> None:
    (tmp_path / "other.txt").write_text("the cat sat on a mat, naïvely", encoding="utf-8")
    data = json.loads(call("evaluate", run, "--data", tmp_path / "other.txt", "--json").stdout)
    expected = gptkit.load(run).evaluate(tmp_path / "other.txt")
    assert {name: data[name] for name in expected} == pytest.approx(expected)
    assert "file or directory not found" in call("evaluate", run, "--data", tmp_path / "none.txt", code=2).stderr
    assert call("evaluate", run, "-q").stderr == ""
    (tmp_path / "short.txt").write_text("a", encoding="utf-8")
    assert "no predicted token represents text" in call("evaluate", run, "--data", tmp_path / "short.txt").stdout
    (tmp_path / "empty.txt").write_text("", encoding="utf-8")
    assert "the corpus is empty" in call("evaluate", run, "--data", tmp_path / "empty.txt", code=2).stderr


# -- demo ------------------------------------------------------------------------------------------------------------


def test_demo_shows_samples_and_keeps_finished_runs(call: Call, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "SPEC", "mini.yaml")
    first = call("demo")
    samples = (project / "runs/demo/samples.txt").read_text(encoding="utf-8")
    assert samples.count("──── step") == 2
    for part in ("Sample before training", "Sample after training", "runs/demo/loss.png", "gptkit generate runs/demo"):
        assert part in first.stdout
    losses = [json.loads(line) for line in (project / "runs/demo/metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    measured = [line["validation_loss"] for line in losses if "validation_loss" in line]
    assert f"{measured[0]:.3f} → {measured[-1]:.3f}" in first.stdout

    before = (project / "runs/demo/metrics.jsonl").read_bytes()
    assert "into runs/demo-2" in call("demo").stderr
    assert (project / "runs/demo/metrics.jsonl").read_bytes() == before
    assert gptkit.load("runs/demo-2").finished


def test_demo_resumes_only_its_own_unfinished_run(
    call: Call, project: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "SPEC", "mini.yaml")
    call("train", "mini.yaml", "runs/demo", "--quiet", "-s", "model.d_model=32", "-s", "training.steps=2")  # a user's
    (project / "runs/demo-2").mkdir()
    (project / "runs/demo-2/samples.txt").write_text("mine", encoding="utf-8")  # an unrelated directory

    def press(self: ConsoleProgress, step: int) -> None:
        if step == 1:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(ConsoleProgress, "on_step", press)
        assert "into runs/demo-3" in call("demo", code=130).stderr
    assert gptkit.load("runs/demo-3").step == 1
    assert "resuming the demo in runs/demo-3" in call("demo").stderr
    assert gptkit.load("runs/demo-3").finished
    assert (project / "runs/demo-2/samples.txt").read_text(encoding="utf-8") == "mine"
