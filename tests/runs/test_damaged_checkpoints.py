"""Damaged checkpoints: the cause in plain words, and a remedy that the run has."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import gptkit
from gptkit.core.errors import CheckpointError
from tests.support.external_files import altered, sound

__all__ = ["sound"]


@pytest.fixture
def checkpoint(sound: Path, tmp_path: Path) -> Path:
    gptkit.import_model(altered(sound, tmp_path), tmp_path / "run", tokenizer="byte")
    (only,) = (tmp_path / "run" / "checkpoints").iterdir()
    return only


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        ("{", "it is not valid JSON (line 1, column 2)"),
        ("", "it is not valid JSON (line 1, column 1)"),
        ("[]", "its content has another structure than what was saved"),
        ("{}", "it lacks 'format'"),
    ],
)
def test_damaged_state_is_reported_in_words(checkpoint: Path, content: str, cause: str) -> None:
    (checkpoint / "state.json").write_text(content)
    with pytest.raises(CheckpointError) as refused:
        gptkit.load(checkpoint.parent.parent)
    assert refused.value.message.endswith(f"state.json is damaged: {cause}")


def test_only_checkpoint_has_no_previous_one(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").write_bytes(b"x")
    with pytest.raises(CheckpointError) as refused:
        gptkit.load(checkpoint.parent.parent)
    assert "previous" not in str(refused.value.hint)
    assert "The run has no other checkpoint" in str(refused.value.hint)


def test_previous_checkpoint_is_offered_where_there_is_one(checkpoint: Path) -> None:
    later = checkpoint.with_name("step-00000009")
    shutil.copytree(checkpoint, later)
    state = json.loads((later / "state.json").read_text())
    (later / "state.json").write_text(json.dumps({**state, "step": 9}))
    (later / "model.safetensors").write_bytes(b"x")
    with pytest.raises(CheckpointError) as refused:
        gptkit.load(checkpoint.parent.parent)
    assert f"remove {later} to return to the previous checkpoint" in str(refused.value.hint)
    (checkpoint / "model.safetensors").write_bytes(b"x")
    with pytest.raises(CheckpointError) as refused:
        gptkit.load(checkpoint.parent.parent, step=int(checkpoint.name[5:]))
    assert f"remove {checkpoint}; the run has later checkpoints" in str(refused.value.hint)
