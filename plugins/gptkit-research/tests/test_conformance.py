"""Conformance checks of every component."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from pathlib import Path
from typing import Any

from gptkit_research.distillation import DistillationSpec
from gptkit_research.plugin import gptkit_components

import gptkit
from gptkit.testing import parametrize_checks


def teacher() -> str:
    """A run with the vocabulary of the kit's models, which is removed when the tests have ended."""
    directory = Path(tempfile.mkdtemp(prefix="gptkit-teacher-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    spec = {"d_model": 16, "n_layers": 1, "context_length": 48, "attention": {"n_heads": 2}, "vocab_size": 29}
    tokenizer = gptkit.open_spec({"tokenizer": "char", "model": spec}).spec.tokenizer.fit(iter(["abcdefghijklmnopqrst"]))
    return str(gptkit.save_run(directory / "teacher", gptkit.GPT(spec), tokenizer, {"tokenizer": "char", "model": spec}))


OTHERS = [cls for cls in gptkit_components() if cls is not DistillationSpec]


@parametrize_checks(*OTHERS, DistillationSpec(teacher=teacher(), temperature=1.5), slow=False)
def test_conformance(spec: Any, check: Any) -> None:
    check(spec)
