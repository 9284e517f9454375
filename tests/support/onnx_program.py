"""Run an ONNX file in a process in which neither gptkit nor torch can be imported, with ONNX Runtime alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

__all__ = ["decode_alone", "run_alone"]

_SCRIPT = """
import json, sys
sys.modules["gptkit"] = sys.modules["torch"] = None
import numpy as np
import onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
about = json.loads(session.get_modelmeta().custom_metadata_map["gptkit"])
cache = [each for each in session.get_inputs() if each.name.startswith("past.")]
names = {each.name for each in session.get_inputs()}

def new_text():
    shapes = {each.name: [size if isinstance(size, int) else 0 for size in each.shape] for each in cache}
    return {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}

def call(ids, position, past):
    given = {"input_ids": np.array([ids], np.int64), "position": np.array(position, np.int64), **past}
    logits, *present = session.run(None, {name: given[name] for name in names})
    return logits, dict(zip(past, present, strict=True))

result = {}
for index, (ids, calls, n_more) in enumerate(json.loads(sys.argv[2])):
    position, parts, past = 0, [], new_text()
    for n in calls:
        logits, past = call(ids[position : position + n], position, past)
        parts.append(logits)
        position += n
    written = []
    for _ in range(n_more):
        written.append(int(logits[0, -1].argmax()))
        logits, past = call(written[-1:], position, past)
        position += 1
    result[f"logits{index}"], result[f"tokens{index}"] = np.concatenate(parts, 1), np.array(written, np.int64)
assert about["vocab_size"] == logits.shape[-1]
assert not any(name.partition(".")[0] in ("gptkit", "torch") and module for name, module in sys.modules.items())
np.savez(sys.argv[3], **result)
"""


def run_alone(file: Path, texts: list[Tensor], calls: list[list[int]], directory: Path) -> list[Tensor]:
    """Return the logits (1, T, V) of each text, each given in calls of these numbers of tokens."""
    return [logits for logits, _ in decode_alone(file, texts, calls, directory, 0)]


def decode_alone(
    file: Path, texts: list[Tensor], calls: list[list[int]], directory: Path, n_more: int
) -> list[tuple[Tensor, list[int]]]:
    """Return the logits of each text as `run_alone` does, and the `n_more` tokens that greedy decoding appends to it."""
    given = [(ids[0].tolist(), lengths, n_more) for ids, lengths in zip(texts, calls, strict=True)]
    words = [sys.executable, "-I", "-c", _SCRIPT, str(file), json.dumps(given), str(directory / "result.npz")]
    done = subprocess.run(words, cwd=directory, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    result = np.load(directory / "result.npz")
    return [(torch.from_numpy(result[f"logits{index}"]), result[f"tokens{index}"].tolist()) for index in range(len(texts))]
