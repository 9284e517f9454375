"""Requests that a comparison sends to the processes of its trials."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gptkit.experiments import trial
from gptkit.experiments.results import Trial
from gptkit.experiments.trial import INTERRUPTED, _Requests


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> int:
    """Return a file descriptor; what is written to it is the standard input that requests are read from."""
    reading, writing = os.pipe()
    read = os.read
    monkeypatch.setattr(os, "read", lambda file, size: read(reading if file == 0 else file, size))
    return writing


def test_trial_does_not_begin_after_its_comparison_was_stopped(written: int) -> None:
    os.write(written, b"first\n")
    os.close(written)  # before the process of the trial has started
    requests = _Requests()
    requests._reader.join()
    with pytest.raises(KeyboardInterrupt):
        requests.next()


def test_end_of_the_input_between_trials_is_the_end(written: int) -> None:
    requests = _Requests()
    os.write(written, b"first\n")
    assert requests.next() == b"first"
    requests.done()
    os.close(written)
    assert requests.next() is None


@pytest.mark.parametrize("stopped", [True, False])
def test_error_after_a_stop_is_not_the_failure_of_the_trial(
    written: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    """A library may raise another error than KeyboardInterrupt when it is interrupted."""
    capfd.readouterr()  # it restores the streams that the log replaces
    monkeypatch.setattr(os, "kill", lambda process, number: None)  # that of the stop
    os.write(written, b"first\n")
    requests = _Requests()
    requests.next()

    def run_trial(directory: Path, variant: str, seed: int) -> Trial:
        if stopped:
            os.close(written)
            requests._reader.join(60)
        return Trial(variant, seed, "failed", message="SystemError: returned a result with an exception set")

    recorded: list[Trial] = []
    monkeypatch.setattr(trial, "run_trial", run_trial)
    monkeypatch.setattr(trial, "read_trial", lambda directory, variant, seed: Trial(variant, seed, "missing"))
    monkeypatch.setattr(trial, "write_trial", lambda trial, directory: recorded.append(trial))
    (tmp_path / "trials").mkdir()
    assert trial._run_logged(tmp_path, "a", 0, requests) == (INTERRUPTED if stopped else 0)
    assert [each.status for each in recorded] == ([] if stopped else ["failed"])
