"""Run directories with missing, truncated, changed or replaced files: one clear error, or the run works."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import gptkit
from gptkit.core.errors import GptkitError
from tests.support.command_line import SPEC, write_project

torch.set_num_threads(1)
ROUNDS = 25


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("damaged")
    write_project(directory)
    (directory / "mini.yaml").write_text(SPEC.replace("steps: 3", "steps: 4\n  checkpoint_every: 2\n  trackers: [csv]"))
    gptkit.train(directory / "mini.yaml", directory / "run", progress=False)
    return directory / "run"


def damage(file: Path, chance: random.Random) -> None:
    """Remove, truncate, empty, change or replace a file or directory."""
    match chance.randrange(6):
        case 0:
            _remove(file)
        case 1:
            directory = file.is_dir()
            _remove(file)
            file.write_text("text") if directory else file.mkdir()
        case 2:
            _remove(file)
            file.symlink_to("nowhere")
        case 3 if file.is_file():
            file.write_bytes(b"")
        case 4 if file.is_file():
            file.write_bytes(file.read_bytes()[: chance.randrange(max(1, file.stat().st_size))])
        case _ if file.is_file() and file.stat().st_size:
            data = bytearray(file.read_bytes())
            at = chance.randrange(min(len(data), 2000))
            data[at : at + 4] = chance.choice([b"null", b"9999", b"[[[[", b'""""', b"\0\0\0\0", b"-1e9"])
            file.write_bytes(data)


def _remove(file: Path) -> None:
    shutil.rmtree(file) if file.is_dir() and not file.is_symlink() else file.unlink()


ACTIONS: dict[str, Callable[[Path], object]] = {
    "generate": lambda run: gptkit.load(run).generate("the", max_new_tokens=2, seed=0),
    "evaluate": lambda run: gptkit.load(run).evaluate(),
    "export": lambda run: gptkit.export_model(run, run.with_name("out"), to={"name": "hugging-face"}),
    "resume": lambda run: gptkit.resume(run, progress=False, **{"training.steps": 5}),
    "replace": lambda run: gptkit.train(run.with_name("mini.yaml"), run, overwrite=True, progress=False),
}


SLOW = {"resume", "replace"}


@pytest.mark.parametrize(
    "action", [pytest.param(action, marks=[pytest.mark.slow] if action in SLOW else []) for action in ACTIONS]
)
def test_damage_gives_one_clear_error(sound: Path, tmp_path: Path, action: str) -> None:
    chance = random.Random(action)
    files = sorted(path.relative_to(sound) for path in sound.rglob("*"))
    write_project(tmp_path)
    refused = 0
    for number in range(ROUNDS):
        run = tmp_path / "run"
        shutil.copytree(sound, run)
        victim = chance.choice(files)
        damage(run / victim, chance)
        try:
            ACTIONS[action](run)
        except GptkitError as error:
            refused += 1
            assert error.message
        except Exception as error:
            raise AssertionError(f"round {number}: {victim}: {type(error).__name__}: {error}") from error
        for path in (run, tmp_path / "out"):
            shutil.rmtree(path, ignore_errors=True)
    assert refused


def test_resumed_training_skips_damaged_metrics(sound: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_project(tmp_path)
    run = Path(shutil.copytree(sound, tmp_path / "run"))
    file = run / "metrics.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    assert len(lines) == 5
    lines[2] = b"\0" * (len(lines[2]) - 1) + b"\n"
    file.write_bytes(b"".join(lines))
    resumed = gptkit.resume(run, progress=False, **{"training.steps": 6})
    assert resumed.metrics["step"] == [0, 1, 3, 4, 5, 6]
    assert "metrics.jsonl: 1 damaged line is skipped, the first one in line 3" in caplog.text
