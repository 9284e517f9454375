"""Requests that a comparison sends to the processes of its trials."""

from __future__ import annotations

import os

import pytest

from gptkit.experiments.trial import _Requests


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
