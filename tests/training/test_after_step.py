"""Actions of modules once per optimizer step."""

from __future__ import annotations

import pytest

from tests.support.bigram import Bigram, MakeTrainer


def test_after_step_is_called_once_per_step(make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(Bigram, "after_step", lambda self: calls.append(int(self.calls)), raising=False)
    make_trainer(steps=3, grad_accumulation=2, validation=None).run()
    assert calls == [2, 4, 6]
