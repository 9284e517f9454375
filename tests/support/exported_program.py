"""Run an exported program in a process in which gptkit cannot be imported, with torch alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch
from torch import Tensor

__all__ = ["run_alone"]

_SCRIPT = """
import sys
sys.modules["gptkit"] = None
import torch
program = torch.export.load(sys.argv[1]).module()
given = torch.load(sys.argv[2], weights_only=True)
result = []
with torch.no_grad():
    for ids, calls in zip(given["texts"], given["calls"]):
        position, parts = 0, []
        for n in calls:
            parts.append(program(ids[:, position : position + n], torch.tensor(position)))
            position += n
        result.append(torch.cat(parts, 1))
assert sys.modules["gptkit"] is None and not any(name.startswith("gptkit.") for name in sys.modules)
torch.save(result, sys.argv[3])
"""


def run_alone(program: Path, texts: list[Tensor], calls: list[list[int]], directory: Path) -> list[Tensor]:
    """Return the logits (1, T, V) of each text, one after the other, each given in calls of these numbers of tokens."""
    given, result = directory / "given.pt", directory / "result.pt"
    torch.save({"texts": texts, "calls": calls}, given)
    words = [sys.executable, "-I", "-c", _SCRIPT, str(program), str(given), str(result)]
    done = subprocess.run(words, cwd=directory, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    logits: list[Tensor] = torch.load(result, weights_only=True)
    return logits
