"""Common errors of new users: each message names the correct command."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from gptkit.cli import check
from gptkit.core.registry import Registry
from gptkit.core.registry.plugin import installed
from gptkit.training.records import MetricsFile
from tests.support import fake_plugins
from tests.support.command_line import Call


def test_failed_start_does_not_block_the_next(call: Call, project: Path) -> None:
    call("train", "mini.yaml", "run", "--set", "data.path=missing.txt", code=2)
    call("train", "mini.yaml", "run", "--quiet")


def test_file_at_the_path_of_the_run_is_reported(call: Call, project: Path) -> None:
    assert "corpus.txt is a file, but a run requires a directory" in call("train", "mini.yaml", "corpus.txt", code=2).stderr


def test_exchanged_spec_and_run_name_the_order(call: Call, project: Path) -> None:
    error = call("train", "run", "mini.yaml", code=2).stderr
    assert "hint: The spec file is the first argument: gptkit train mini.yaml RUN" in error


def test_a_directory_of_runs_names_one(call: Call, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "a").symlink_to(run)
    monkeypatch.chdir(tmp_path)
    for arguments in (("show", "runs"), ("generate", "runs", "Once"), ("evaluate", "runs")):
        error = call(*arguments, code=2).stderr
        assert "hint: It has runs: pass runs/a, or another one of gptkit runs runs" in error


def test_ctrl_c_prints_the_resume_command_when_quiet(call: Call, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def press(self: MetricsFile, step: int) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(MetricsFile, "on_step", press)
    assert "continue with: gptkit train --resume run" in call("train", "mini.yaml", "run", "--quiet", code=130).stderr


def test_show_check_and_diff_of_a_run_with_a_missing_plugin(call: Call, run: Path, project: Path) -> None:
    run_directory = project / "run"
    run_directory.mkdir()
    (run_directory / "spec.yaml").write_text((run / "spec.yaml").read_text().replace("name: rms", "name: max"))
    (run_directory / "provenance.json").write_text(json.dumps({"components": {"norm max": "gptkit-max==1.0"}}))
    for command in (
        ["show", run_directory],
        ["check", run_directory],
        ["diff", run_directory, "mini.yaml"],
        ["evaluate", run_directory],
    ):
        assert "pip install 'gptkit-max==1.0'" in call(*command, code=2).stderr


def test_several_samplers_in_one_option_are_rejected(call: Call, run: Path) -> None:
    output = call("generate", run, "a", "--sampler", "top-k=40,temperature=0.8", code=2).stderr
    assert "Repeat the option: --sampler top-k=40 --sampler temperature=0.8" in output
    assert "Repeat the option" in call("generate", run, "a", "--sampler", "greedy,top-k=4", code=2).stderr
    assert call("generate", run, "a", "--sampler", "foo", code=2).stderr.startswith("--sampler foo: unknown sampler 'foo'")
    call("generate", run, "a", "-n", "1", "--sampler", "{name: top-k, k: 4}", "--sampler", 'logit-bias={"1": 2.0, "2": 1.0}')


def test_new_creates_no_directories(call: Call, project: Path) -> None:
    output = call("new", "no dir/x.yaml", code=2).stderr
    assert "directory no dir not found" in output
    assert "mkdir -p 'no dir'" in output
    assert not Path("no dir").exists()


def test_component_instead_of_a_kind_is_rejected(call: Call) -> None:
    output = call("components", "rms", code=2).stderr
    assert "rms is a norm" in output
    assert "gptkit components norm rms" in output
    assert "unknown kind 'nonsense'" in call("components", "nonsense", code=2).stderr


def test_missing_list_item_is_reported(call: Call, project: Path) -> None:
    output = call("check", "mini.yaml", "--set", "model.layers.0.attention.n_heads=4", code=2).stderr
    assert "model.layers: item 0 cannot be set, since the spec has no such list; set the whole list 'layers'" in output
    output = call("check", "mini.yaml", "--set", "sampler.0.k=4", code=2).stderr
    assert "sampler: item 0 cannot be set, since the spec has no such list; set the whole list 'sampler'" in output
    assert "expected a list, got a mapping" in call("check", "mini.yaml", "--set", "sampler={k: 4}", code=2).stderr


def test_error_in_a_plugin_names_the_plugin(call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "norms.py"
    file.write_text("def fails(text):\n    return text.nothing\n")
    module = ModuleType("fake_gptkit_max.norms")
    exec(compile(file.read_text(), str(file), "exec"), module.__dict__)
    plugins = Registry([fake_plugins.plugin("gptkit-max", []), *installed()])
    monkeypatch.setattr("gptkit.core.registry.lookup._default", plugins)
    monkeypatch.setattr(check.console, "out", module.fails)
    output = call("check", "tiny", code=1).stderr
    assert "the plugin gptkit-max==1.0 failed: AttributeError: 'str' object has no attribute 'nothing'" in output
    assert f"({file}:2)" in output
    assert "GPTKIT_DEBUG=1" in output
    assert "internal error" not in output


class Mistaken(torch.nn.Module):
    """Module whose output has a wrong shape, or that is called with an argument too many."""

    def forward(self, x: Any) -> Any:
        return x[..., :1]


class Joined(torch.nn.Module):
    """Module of gptkit around one of a plugin."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Mistaken()

    def forward(self, x: Any, calls: int) -> Any:
        return self.inner(x, 1) if calls else torch.cat((self.inner(x), x), dim=0)


@pytest.mark.parametrize(("calls", "error"), [(1, "TypeError: "), (0, "RuntimeError: ")])
def test_error_in_gptkit_names_the_plugin_that_takes_part_in_it(
    call: Call, monkeypatch: pytest.MonkeyPatch, calls: int, error: str
) -> None:
    monkeypatch.setattr(Mistaken, "__module__", "fake_gptkit_max.modules")
    plugins = Registry([fake_plugins.plugin("gptkit-max", []), *installed()])
    monkeypatch.setattr("gptkit.core.registry.lookup._default", plugins)
    joined = Joined()
    monkeypatch.setattr(check.console, "out", lambda text: joined(torch.zeros(2, 3), calls))
    output = call("check", "tiny", code=1).stderr
    assert f"internal error: {error}" in output
    assert "Mistaken of the plugin gptkit-max==1.0 takes part in it" in output
    assert "check the plugin: gptkit plugin check gptkit-max" in output
