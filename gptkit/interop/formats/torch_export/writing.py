"""Writing of a model as a program of torch.export, and the check of the written file."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gptkit.core.activity import working
from gptkit.core.errors import ExternalModelError, StateError
from gptkit.interop.formats.torch_export.decoder import Decoder
from gptkit.interop.formats.torch_export.tracing import trace
from gptkit.interop.logits import sample_ids
from gptkit.interop.programs.content import common_metadata, compared, loaded, through, tokenizer_data
from gptkit.interop.programs.tracing import Traced
from gptkit.kinds.format import NativeModel, Note, Progress
from gptkit.model.gpt import GPT

__all__ = ["METADATA", "check_program", "write_program"]

METADATA = "gptkit.json"
"""Name of the extra file with the program's metadata."""
_MOST = 4096
_N_CHECKED = 64
_SIGNATURE = "program(ids: int64 (1, T), position: int64 ()) -> logits: float32 (1, T, V)"


def write_program(
    model: NativeModel,
    path: Path,
    *,
    capacity: int | None = None,
    tokens: int | None = None,
    progress: Progress | None = None,
) -> Sequence[str]:
    """Write a program, load it again and compare it with the model.

    Args:
        model: the run's model.
        path: the file.
        capacity: largest number of tokens of a text; the context length by default, `_MOST` at most.
        tokens: largest number of tokens of a call; by default as many as can be traced.
        progress: receives the file's size when it is written.

    Returns:
        Notes of what was written and checked, and warnings.

    Raises:
        ExternalModelError: an option exceeds what the model supports, the model cannot be traced or saved, or the written
            program computes other logits.
    """
    length = model.spec.context_length
    capacity = min(length, _MOST) if capacity is None else capacity
    if capacity > length:
        raise ExternalModelError(
            f"capacity={capacity} exceeds the model's context length of {length}", hint=f"Set capacity={length} or less."
        )
    if tokens is not None and tokens > capacity:
        raise ExternalModelError(
            f"tokens={tokens} exceeds the capacity of {capacity} tokens", hint=f"Set tokens={capacity} or less."
        )
    with working("tracing the model"):
        native = loaded(model)
        try:
            decoder = Decoder(native, capacity)
        except StateError as error:
            raise ExternalModelError(
                f"the program needs a static cache: {error.message}",
                hint="Choose a scaling that does not depend on the length (yarn, linear), or export to another format.",
            ) from None
        traced = trace(decoder, capacity, tokens)
    tokenizer, remarks = tokenizer_data(model.tokenizer)
    metadata = common_metadata(model, native, _SIGNATURE, tokenizer) | {"capacity": capacity, "tokens": traced.tokens}
    with working("writing the program"):
        _save(traced, path, metadata)
    if progress is not None:
        size = path.stat().st_size
        progress(size, size)
    checked = check_program(
        path, native, sample_ids(model.tokenizer, min(_N_CHECKED, capacity), native.vocab_size), traced.tokens
    )
    return [*_notes(traced, capacity), *remarks, *checked]


def _save(traced: Traced, path: Path, metadata: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.export.save(traced.program, path, extra_files={METADATA: json.dumps(metadata)})
    except OSError:
        raise
    except Exception as error:  # what torch cannot serialize
        raise ExternalModelError(
            f"torch cannot save the program: {type(error).__name__}: {error}", hint="Report this with the spec of the model."
        ) from None


def _notes(traced: Traced, capacity: int) -> list[Note]:
    calls = f"calls of 1 to {traced.tokens} tokens" if traced.tokens > 1 else "calls of one token"
    notes = [Note(f"wrote a program for texts of up to {capacity} tokens, {calls}; torch loads it without gptkit")]
    if traced.problem is not None:
        notes.append(Note(f"calls of several tokens could not be traced: {traced.problem}"))
    return notes


@torch.no_grad()
def check_program(path: Path, model: GPT, ids_BT: Tensor, tokens: int) -> list[str]:
    """Load a written program and compare its logits with those of the model without a cache.

    The text follows another one in the same program. Its first half is given in calls of as many tokens as a call takes, the
    rest one by one.

    Args:
        path: the file, which this process has written.
        model: the model.
        ids_BT: the text, (1, T).
        tokens: largest number of tokens of a call.

    Raises:
        ExternalModelError: the logits differ.
    """
    with working("checking the program"):
        extra = {METADATA: ""}
        program: Any = torch.export.load(path, extra_files=extra).module()
        expected_TV = model(ids_BT).logits[0].float()

        def call(ids: Tensor, position: int) -> Tensor:
            logits: Tensor = program(ids, torch.tensor(position))
            return logits

        through(call, ids_BT.flip(1), tokens)
        logits_TV = through(call, ids_BT, tokens)[0]
    how = "checked: the file was loaded again; prompt, single tokens and a second text were computed with its cache"
    return compared(model, expected_TV, logits_TV, how=how)
