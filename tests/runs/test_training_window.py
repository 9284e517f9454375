"""`training.window`: data windows shorter than the model's context."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import gptkit
from gptkit.core.errors import CheckpointError, SpecError
from gptkit.kinds.callback import Callback, Training


class Lengths(Callback):
    """Callback that records the lengths of the model's input rows, by its mode."""

    def __init__(self) -> None:
        self.training: set[int] = set()
        self.evaluation: set[int] = set()

    def setup(self, training: Training) -> None:
        def note(module: torch.nn.Module, inputs: tuple[Any, ...]) -> None:
            (self.training if module.training else self.evaluation).add(inputs[0].shape[1])

        training.model.register_forward_pre_hook(note)


def spec(position: str = "rotary", **training: Any) -> dict[str, Any]:
    base = {"steps": 2, "batch_size": 2, "evaluate_batches": 2, "sample_tokens": 0, "device": "cpu"}
    return {
        "tokenizer": "byte",
        "model": {"d_model": 16, "n_layers": 1, "context_length": 32, "attention": {"n_heads": 2}, "position": position},
        "training": {**base, **training},
    }


@pytest.mark.parametrize("position", ["rotary", "learned", "alibi", "t5-bias"])
def test_training_and_validation_read_data_windows_of_that_length(tmp_path: Path, position: str) -> None:
    lengths = Lengths()
    run = gptkit.train(spec(position, window=6), tmp_path / "run", callbacks=[lengths], progress=False)
    assert lengths.training == {6}
    assert lengths.evaluation == {6}
    assert run.model.context_length == 32
    assert len(run.generate("a", max_new_tokens=20)) > 0


def test_evaluate_reads_the_data_windows_of_the_training(tmp_path: Path) -> None:
    run = gptkit.train(spec(window=6), tmp_path / "run", progress=False)
    lengths = Lengths()
    lengths.setup(Training(run.model, torch.optim.SGD(run.model.parameters()), 1, 0))
    run.evaluate(max_batches=1)
    assert lengths.evaluation == {6}


def test_a_corpus_shorter_than_the_context_suffices_for_a_shorter_window(tmp_path: Path) -> None:
    corpus = tmp_path / "short.txt"
    corpus.write_text("To be, or not to be.")
    given = {**spec(), "data": {"name": "text", "path": str(corpus), "validation": 0}}
    with pytest.raises(gptkit.GptkitError, match=r"training\.window of at most 2\d"):
        gptkit.train(given, tmp_path / "long", progress=False)
    assert gptkit.train({**given, "training": {**given["training"], "window": 8}}, tmp_path / "run", progress=False).finished


def test_a_window_beyond_the_context_is_refused_with_its_location(tmp_path: Path) -> None:
    file = tmp_path / "wide.yaml"
    file.write_text("model: {context_length: 32, d_model: 16, n_layers: 1}\ntraining:\n  window: 33\n")
    with pytest.raises(SpecError, match=r"training\.window.*33 tokens exceeds.*context_length of 32") as caught:
        gptkit.build(file)
    assert (caught.value.problems[0].line, caught.value.problems[0].column) == (3, 11)


def test_a_resumed_run_keeps_its_window(tmp_path: Path) -> None:
    gptkit.train(spec(window=6), tmp_path / "run", progress=False)
    with pytest.raises(CheckpointError, match=r"training\.window: 6 in the run, 8 requested"):
        gptkit.resume(tmp_path / "run", ["training.steps=3", "training.window=8"], progress=False)
