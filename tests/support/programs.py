"""What the tests of formats that write programs share: tiny models, texts, and the refusals that all of them have.

Shapes: T tokens.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from gptkit.cli.main import app
from gptkit.components.tokenizer.byte import ByteTokenizer
from gptkit.core.errors import ExternalModelError
from gptkit.kinds.format import FormatSpec, NativeModel
from gptkit.model.gpt import GPT
from tests.support.ejected import COARSE, rounding_error
from tests.support.gguf_models import DECODER
from tests.support.model_tensors import Weights, randomized
from tests.support.presets import V

__all__ = [
    "assert_equal_logits",
    "check_detection",
    "check_length_dependent_positions_are_refused",
    "check_option_is_refused",
    "check_program_is_kept_and_not_read",
    "invoke",
    "native",
    "small",
    "texts_and_calls",
]


def invoke(*words: str) -> tuple[int, str]:
    """Call the command line; return the exit code and the output in one line."""
    result = CliRunner().invoke(app, list(words))
    return result.exit_code, " ".join(result.output.split())


def native(model: GPT) -> NativeModel:
    """Return a model as a format receives it."""
    spec = model.spec.model_copy(update={"vocab_size": model.vocab_size})
    return NativeModel("small", spec, Weights(model), ByteTokenizer())


def small(**changes: Any) -> GPT:
    """Return a model of one layer with random weights."""
    return randomized(GPT({**DECODER, "n_layers": 1, **changes}, V)).eval()


def texts_and_calls(*, single: bool) -> tuple[list[Tensor], list[list[int]]]:
    """Return two texts, (1, T) each, and the numbers of tokens of the calls in which each is given to a program.

    Args:
        single: calls of one token only.
    """
    generator = torch.Generator().manual_seed(2)
    texts = [torch.randint(V, (1, 21), generator=generator) for _ in range(2)]
    return texts, [[1] * 21 if single else [9, *[1] * 12]] * 2


@torch.no_grad()
def assert_equal_logits(model: GPT, ids_BT: Tensor, logits_BTV: Tensor, *, what: str, tolerance: float = 1e-5) -> None:
    """Compare the logits of a program with those of the model, by the rule of `COARSE` where fp32 is too coarse.

    Args:
        model: the model.
        ids_BT: the text.
        logits_BTV: what the program computed for it.
        what: the program, for the message.
        tolerance: the largest difference, relative to the largest logit.
    """
    expected = model(ids_BT).logits
    difference, scale = float((logits_BTV - expected).abs().max()), max(1.0, float(expected.abs().max()))
    if not difference <= tolerance * scale:
        rounding = rounding_error(model, ids_BT, expected)
        message = f"{what}: logits differ by {difference:.1e} of {scale:.1f}; gptkit's own rounding error is {rounding:.1e}"
        assert difference <= COARSE * rounding, message


def check_program_is_kept_and_not_read(run: Path, file: Path, what: str) -> None:
    """A program is not replaced, and cannot be imported or compared."""
    before = file.read_bytes()
    code, output = invoke("export", str(run), file.name)
    assert code == 2
    assert "already exists" in output
    assert file.read_bytes() == before
    code, output = invoke("import", file.name, "runs/back")
    assert code == 2
    assert f"is {what}, which gptkit writes but does not read" in output
    code, output = invoke("drift", str(run), "--against", file.name)
    assert code == 2
    assert f"is {what}" in output


def check_option_is_refused(run: Path, spec: FormatSpec, options: list[str], message: str) -> None:
    """An option is refused, and no file is written."""
    (suffix,) = spec.suffixes
    code, output = invoke("export", str(run), "--to", spec.component_name(), f"out/tiny{suffix}", *options)
    assert code == 2
    assert message in output
    assert not list(Path.cwd().rglob(f"*{suffix}"))


def check_length_dependent_positions_are_refused(spec: FormatSpec, path: Path) -> None:
    """A position whose frequencies change with the length of the text has no program."""
    scaling = {"name": "dynamic", "original_context_length": 12}
    model = small(position={"name": "rotary", "scaling": scaling})
    with pytest.raises(ExternalModelError, match=r"needs a static cache: .* position 'rotary'"):
        spec.write(native(model), path)


def check_detection(spec: FormatSpec, files: dict[str, tuple[bytes, float]], directory: Path, refusal: str) -> None:
    """Files are distinguished by suffix and first bytes; directories and missing files have no score; none is read.

    Args:
        files: content and expected score by name; the first one is a program.
        refusal: a part of the message of `read`.
    """
    for name, (content, score) in files.items():
        (directory / name).write_bytes(content)
        assert spec.detect(directory / name).score == score
    for path in (directory, directory / f"missing{spec.suffixes[0]}"):
        assert spec.detect(path).score == 0
    with pytest.raises(ExternalModelError, match=refusal):
        spec.read(directory / next(iter(files)))
