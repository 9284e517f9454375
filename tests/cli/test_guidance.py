"""What errors and notes name: the runs that exist, the option that caused an error, the layers that it is about."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.command_line import Call


def test_a_missing_run_is_answered_with_those_that_exist(call: Call, project: Path) -> None:
    call("train", "mini.yaml", "runs/mix", "-q")
    for command in (["eject", "runs/mox", "x.py"], ["show", "runs/mox"], ["generate", "runs/mox", "x"]):
        message = call(*command, code=2).stderr
        assert "runs/mox: run" in message
        assert "not found; did you mean 'mix'? (runs in runs: mix)" in " ".join(message.split())


def test_many_names_are_counted_in_english(call: Call, project: Path) -> None:
    message = " ".join(call("check", "zzz", code=2).stderr.split())
    assert "zzz: file not found; " in message
    assert " spec files here and presets, among them " in message
    assert "presets 1" not in message


def test_errors_of_options_are_not_repeated_in_the_summary(call: Call, project: Path) -> None:
    changes = ("model.norm=rmss", "model.blok=1")
    message = call("check", "mini.yaml", *(w for c in changes for w in ("--set", c)), code=2).stderr
    assert message.splitlines()[-1] == "error: 2 errors in --set"


@pytest.mark.parametrize(("prompt", "shown"), [("", "'A prompt'"), ("It's", "'It'\"'\"'s'")])
def test_note_after_a_training_has_a_prompt(call: Call, project: Path, prompt: str, shown: str) -> None:
    message = call("train", "mini.yaml", "runs/a", "-s", f'training.sample_prompt="{prompt}"').stderr
    assert f"generate text: gptkit generate runs/a {shown}\n" in message


def test_heads_that_do_not_divide_the_width_are_one_error(call: Call, project: Path) -> None:
    for attention in ("multi-head", "grouped-query", "differential"):
        change = f"model.attention={{name: {attention}, n_heads: 3}}"
        lines = call("check", "tiny", "-s", "model.layers=null", "-s", change, code=2).stderr.splitlines()
        assert len([line for line in lines if not line.startswith("error:")]) == 1, lines
        assert "cannot be split into 3 heads" in lines[0]
        assert lines[-1] == "error: 1 error in --set"


MIXED = """
gptkit: 1
model:
  d_model: 64
  position: {position}
  layers:
    - {{repeat: 2, attention: {{name: multi-head, n_heads: 2}}}}
    - {{attention: {{name: mamba2, n_heads: 2}}, position: {own}}}
"""


def test_a_position_that_a_layer_refuses_names_layer_and_remedy(call: Call, project: Path) -> None:
    Path("mixed.yaml").write_text(MIXED.format(position="alibi", own="none"), encoding="utf-8")
    call("check", "mixed.yaml")
    text = MIXED.format(position="alibi", own="none").replace(", position: none", "")
    Path("shared.yaml").write_text(text, encoding="utf-8")
    message = " ".join(call("check", "shared.yaml", code=2).stderr.split())
    assert "attention 'mamba2' does not accept (layer 2); set position: none in layers.1" in message
    assert "shared.yaml:5:13: model.position" in message
    message = call("check", "mixed.yaml", "-s", "model.layers.1.position=alibi", code=2).stderr
    assert message.startswith("--set model.layers.1.position=alibi: model.layers.1.position:")
