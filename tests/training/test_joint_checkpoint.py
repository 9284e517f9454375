"""Files that several processes write together, simulated in one process."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gptkit.checkpoint.joint import JointFiles, PendingCheckpoint, not_written
from gptkit.checkpoint.located import Located, create_file, locate, write_parts
from gptkit.checkpoint.store import CheckpointStore
from gptkit.core.atomic import writing
from gptkit.core.errors import CheckpointError, FileError
from gptkit.nn.tensor_parallel import Divided, TensorShard


class Exchange:
    """Exchange of values between two threads."""

    def __init__(self) -> None:
        self._barrier = threading.Barrier(2)
        self._values: dict[int, Any] = {}

    def values(self, rank: int, value: Any) -> list[Any]:
        self._values[rank] = value
        self._barrier.wait(120)
        values = [self._values[rank] for rank in range(2)]
        self._barrier.wait(120)
        return values


@dataclass(frozen=True)
class Process:
    """One process of a tensor group."""

    rank: int
    exchange: Exchange = field(default_factory=Exchange)

    @property
    def part(self) -> int:
        return 0

    @property
    def tensor_rank(self) -> int:
        return self.rank

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def least(self, number: int) -> int:
        return int(min(self.exchange.values(self.rank, number)))

    def texts(self, text: str) -> list[str]:
        return self.exchange.values(self.rank, text)


class Unused:
    """A group that must not communicate."""

    def gather(self, part: Tensor) -> list[Tensor]:
        raise AssertionError("a tensor was gathered")

    def add(self, x: Tensor) -> Tensor:
        raise AssertionError("a sum was computed")


TENSORS = {
    "packed": torch.arange(48.0).view(12, 4),
    "inputs": torch.arange(24.0).view(3, 8),
    "whole": torch.arange(5, dtype=torch.bfloat16),
    "step": torch.tensor(7.0),
}
DIVISIONS = {"packed": Divided(-2, {"query heads": 4, "key heads": 2}), "inputs": Divided(-1, {"features": 8})}


def located(rank: int) -> dict[str, Located]:
    """Return what one of two processes writes of `TENSORS`."""
    model = nn.Module()
    shards = {name: TensorShard(each, TENSORS[name].shape, 2, rank, Unused()) for name, each in DIVISIONS.items()}
    model.tensor_shards = shards  # type: ignore[assignment]
    held = {name: shards[name].part(tensor) if name in shards else tensor for name, tensor in TENSORS.items()}
    return {name: locate(model, name, tensor, Process(rank)) for name, tensor in held.items()}


def test_file_of_two_processes_is_that_of_one(tmp_path: Path) -> None:
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    save_file(TENSORS, one, {"format": "pt"})
    create_file(two, located(0), {"format": "pt"})
    for rank in (1, 0):
        write_parts(two, located(rank), {"format": "pt"})
    assert two.read_bytes() == one.read_bytes()


class Outcome:
    """A checkpoint that two processes write, each in a thread.

    Args:
        directory: its directory.
        writes: what each process calls to write its parts.
        commit: what the main process calls last.
    """

    def __init__(self, directory: Path, writes: list[Callable[[], None]], commit: Callable[[], None] = lambda: None) -> None:
        self.committed: list[list[str]] = []
        self.discarded = 0
        exchange = Exchange()

        def committed() -> None:
            commit()
            self.committed.append([path.name for path in directory.iterdir()])

        def discard() -> None:
            self.discarded += 1

        def run(rank: int) -> Path | CheckpointError:
            pending = PendingCheckpoint(
                1, directory, Process(rank, exchange), write=writes[rank], commit=committed, discard=discard
            )
            try:
                return pending.finish()
            except CheckpointError as error:
                return error

        with ThreadPoolExecutor(2) as threads:
            self.results = list(threads.map(run, range(2)))


def test_main_process_commits_when_all_have_written(tmp_path: Path) -> None:
    files = [JointFiles({"a.safetensors": located(rank)}, {"a.safetensors": None}) for rank in range(2)]
    files[0].create(tmp_path)
    begun = threading.Event()

    def late() -> None:
        assert not begun.wait(0.2)
        files[1].write(tmp_path)

    outcome = Outcome(tmp_path, [lambda: files[0].write(tmp_path), late], begun.set)
    assert outcome.results == [tmp_path, tmp_path]
    assert outcome.committed == [["a.safetensors"]]
    assert outcome.discarded == 0
    assert all(torch.equal(tensor, TENSORS[name]) for name, tensor in load_file(tmp_path / "a.safetensors").items())


def full() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("rank", [0, 1])
def test_all_processes_raise_the_error_of_one(tmp_path: Path, rank: int) -> None:
    writes: list[Callable[[], None]] = [lambda: None, lambda: None]
    writes[rank] = full
    outcome = Outcome(tmp_path, writes)
    messages = {str(result) for result in outcome.results}
    assert len(messages) == 1
    assert "the checkpoint cannot be written: No space left on device" in messages.pop()
    assert all(isinstance(result, CheckpointError) and result.common for result in outcome.results)
    assert not outcome.committed
    assert outcome.discarded == 1


def test_all_processes_raise_the_error_of_the_commit(tmp_path: Path) -> None:
    outcome = Outcome(tmp_path, [lambda: None, lambda: None], full)
    assert ["No space left" in str(result) for result in outcome.results] == [True, True]
    assert outcome.discarded == 1


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (errno.ENOSPC, "Free disk space"),
        (errno.EDQUOT, "Free disk space"),
        (errno.EACCES, "chmod u+w "),
        (errno.EPERM, "chmod u+w "),
        (errno.EROFS, "read-only"),
        (errno.EIO, "Check the disk"),
    ],
)
def test_the_remedy_depends_on_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, remedy: str) -> None:
    def fail(*_: Any) -> None:
        raise OSError(code, os.strerror(code))

    directory = tmp_path / "with space"
    outcome = Outcome(directory / "step", [lambda: None, fail])
    hints = {result.hint for result in outcome.results}
    for wrapped in (fail, lambda *_: wrap(fail)):
        monkeypatch.setattr("gptkit.checkpoint.store.save_tensors", wrapped)
        model = nn.Linear(2, 2)
        with pytest.raises(CheckpointError) as caught:
            CheckpointStore(directory).save(2, model, torch.optim.SGD(model.parameters()), {})
        hints.add(caught.value.hint)
    (hint,) = hints
    assert hint.startswith(remedy) or remedy in hint
    assert ("Free disk space" in hint) == (remedy == "Free disk space")
    if remedy.startswith("chmod"):
        assert f"chmod u+w '{directory}'," in hint


def wrap(fail: Callable[[], None]) -> None:
    """Raise the error in the form of the functions that write files."""
    with writing(Path("model.safetensors")):
        fail()


def test_the_library_of_tensors_reports_a_full_disk_in_its_text(tmp_path: Path) -> None:
    error = not_written(tmp_path, FileError("cannot be written: I/O error: No space left on device (os error 28)"))
    assert error.hint is not None
    assert error.hint.startswith("Free disk space")


def test_only_a_run_with_checkpoints_is_to_be_resumed(tmp_path: Path) -> None:
    error = OSError(errno.ENOSPC, "No space left on device")
    assert str(not_written(tmp_path / "step-00000000", error).hint).endswith(
        "choose another directory, then repeat the command."
    )
    (tmp_path / "step-00000002").mkdir()
    assert "then resume the run; earlier checkpoints are intact" in str(not_written(tmp_path / "step-00000004", error).hint)


def test_failed_save_leaves_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters())
    store = CheckpointStore(tmp_path)
    store.save(1, model, optimizer, {})
    monkeypatch.setattr("gptkit.checkpoint.store.save_tensors", lambda *_: full())
    with pytest.raises(CheckpointError, match="cannot be written: No space left"):
        store.save(2, model, optimizer, {})
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def test_values_are_copied_before_the_next_step_changes_them() -> None:
    values = torch.ones(3)
    written = locate(nn.Module(), None, values, Process(0))
    values.zero_()
    ((_, copied),) = written.parts
    assert torch.equal(copied, torch.ones(3))
