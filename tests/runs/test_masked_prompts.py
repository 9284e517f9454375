"""A run on JSON Lines with masked prompts: the loss excludes prompts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import gptkit
from gptkit.runs.build import new_model
from gptkit.training.records import read_metrics

torch.set_num_threads(1)

CONTEXT = 32
MODEL = {"context_length": CONTEXT, "d_model": 16, "n_layers": 1, "attention": {"name": "multi-head", "n_heads": 2}}
TRAINING = {"batch_size": 3, "log_every": 1, "device": "cpu", "precision": "fp32", "sample_tokens": 0}


def spec(directory: Path, steps: int = 1, data: Any = None, **training: Any) -> dict[str, Any]:
    lines = [{"q": f"naïve question {number % 7} of {number}?", "a": f"It is {number * number}."} for number in range(80)]
    (directory / "x.jsonl").write_text("\n".join(map(json.dumps, lines)))
    source = {"name": "jsonl", "path": str(directory / "x.jsonl"), "prompt_field": "q", "prompt_end": "\n", "field": "a"}
    return {
        "tokenizer": "byte",
        "model": MODEL,
        "data": {**source, "windows": "ordered", "validation": 0.25, **(data or {})},
        "training": {**TRAINING, "steps": steps, **training},
    }


def is_answer(tokens: list[int], end: int) -> list[bool]:
    """Return whether each token follows the first line feed of its document, including the end token."""
    result, inside = [], False
    for token in tokens:
        result.append(inside)
        inside = (inside or token == ord("\n")) and token != end
    return result


def answers_loss(model: gptkit.GPT, rows: list[list[int]], answers: list[list[bool]]) -> tuple[float, int]:
    """Return the summed cross-entropy over answers, token by token, and the number of their tokens."""
    total, count = 0.0, 0
    with torch.no_grad():
        for row, answer in zip(rows, answers, strict=True):
            log_p = F.log_softmax(model(torch.tensor([row[:-1]])).logits[0].float(), dim=-1)
            for at in range(len(row) - 1):
                if answer[at + 1]:
                    total -= float(log_p[at, row[at + 1]])
                    count += 1
    return total, count


@pytest.mark.parametrize("accumulation", [1, 3])
def test_training_loss_excludes_prompts(tmp_path: Path, accumulation: int) -> None:
    run = gptkit.train(spec(tmp_path, grad_accumulation=accumulation), tmp_path / "run", progress=False)
    prepared = run.prepared()
    tokens = prepared.train.tokens.tolist()
    assert run.tokenizer.end_id is not None
    answers = is_answer(tokens, run.tokenizer.end_id)
    untrained = new_model(run.spec, run.tokenizer.vocab_size, device="cpu", to_train=True).eval()
    rows = [slice(first, first + CONTEXT + 1) for first in range(0, 3 * CONTEXT, CONTEXT)]
    total, count = answers_loss(untrained, [tokens[row] for row in rows], [answers[row] for row in rows])
    (logged,) = [line["loss"] for line in read_metrics(tmp_path / "run" / "metrics.jsonl") if "loss" in line]
    assert 0 < count < 3 * CONTEXT / 2
    assert logged == pytest.approx(total / count, rel=1e-5)


def test_evaluation_excludes_prompts(tmp_path: Path) -> None:
    run = gptkit.train(spec(tmp_path, steps=3), tmp_path / "run", progress=False)
    tokens = run.prepared().validation.tokens.tolist()
    assert run.tokenizer.end_id is not None
    answers = is_answer(tokens, run.tokenizer.end_id)
    firsts = range(0, len(tokens) - 1, CONTEXT)
    rows = [slice(first, first + CONTEXT + 1) for first in firsts]
    total, count = answers_loss(run.model, [tokens[row] for row in rows], [answers[row] for row in rows])
    result = run.evaluate()
    assert result["tokens"] == count == sum(answers)
    assert result["loss"] == pytest.approx(total / count, rel=1e-5)
    # End tokens are not text.
    of_text = [each and token != run.tokenizer.end_id for token, each in zip(tokens, answers, strict=True)]
    text_total, n_bytes = answers_loss(run.model, [tokens[row] for row in rows], [of_text[row] for row in rows])
    assert n_bytes == count - tokens.count(run.tokenizer.end_id)
    assert result["bits_per_byte"] == pytest.approx(text_total / n_bytes / 0.6931471805599453, rel=1e-5)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_batch_of_prompts_only_has_loss_zero(tmp_path: Path, accumulation: int) -> None:
    made = spec(tmp_path, steps=4, batch_size=2, grad_accumulation=accumulation, evaluate_every=4)
    lines = [{"q": "long question " * 40, "a": f"It is {number}."} for number in range(4)]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, lines)))
    gptkit.train(made, tmp_path / "run", progress=False)
    losses = [line["loss"] for line in read_metrics(tmp_path / "run" / "metrics.jsonl") if "loss" in line]
    assert losses[:4] == [0, 0, 0, 0]


def test_resumed_run_has_equal_losses(tmp_path: Path) -> None:
    whole = gptkit.train(spec(tmp_path, steps=6), tmp_path / "whole", progress=False)
    gptkit.train(spec(tmp_path, steps=6), tmp_path / "parts", ["training.steps=3"], progress=False)
    parts = gptkit.resume(tmp_path / "parts", ["training.steps=6"], progress=False)
    mask = "data/train-00000.mask.bin"
    assert (tmp_path / "parts" / mask).read_bytes() == (tmp_path / "whole" / mask).read_bytes()
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, parts.model.state_dict()[name]), name


def test_run_with_masks_is_replaced_completely(tmp_path: Path) -> None:
    gptkit.train(spec(tmp_path), tmp_path / "run", progress=False)
    gptkit.train(spec(tmp_path, data={"mask_prompt": False}), tmp_path / "run", overwrite=True, progress=False)
    names = {path.name for path in (tmp_path / "run" / "data").iterdir()}
    sides = ("train", "validation")
    assert names == {"meta.json", *(f"{side}-00000{end}" for side in sides for end in (".bin", ".documents.bin"))}
