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
from gptkit.core.errors import ExternalModelError, StateError, TokenizerError
from gptkit.interop.formats.torch_export.decoder import Decoder
from gptkit.interop.formats.torch_export.tracing import Traced, trace
from gptkit.interop.logits import difference, sample_ids
from gptkit.kinds.format import NativeModel, Note, Progress
from gptkit.kinds.tokenizer import Tokenizer
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
        native = _loaded(model)
        try:
            decoder = Decoder(native, capacity)
        except StateError as error:
            raise ExternalModelError(
                f"the program needs a static cache: {error.message}",
                hint="Choose a scaling that does not depend on the length (yarn, linear), or export to another format.",
            ) from None
        traced = trace(decoder, capacity, tokens)
    tokenizer, remarks = _tokenizer(model.tokenizer)
    metadata = _metadata(model, native, capacity, traced.tokens, tokenizer)
    with working("writing the program"):
        _save(traced, path, metadata)
    if progress is not None:
        size = path.stat().st_size
        progress(size, size)
    checked = check_program(
        path, native, sample_ids(model.tokenizer, min(_N_CHECKED, capacity), native.vocab_size), traced.tokens
    )
    return [*_notes(traced, capacity), *remarks, *checked]


def _loaded(model: NativeModel) -> GPT:
    """Return the model with its weights, in their widest dtype."""
    dtypes = {entry.dtype for entry in model.tensors.entries.values() if entry.dtype.is_floating_point}
    dtype = dtypes.pop() if len(dtypes) == 1 else torch.float32
    native = GPT(model.spec, seed=None, dtype=dtype).eval().requires_grad_(False)
    own = {**dict(native.named_parameters()), **native.state_dict(keep_vars=True)}
    for name in model.tensors.entries:
        if name not in own:
            raise ExternalModelError(f"the model has no tensor {name!r}")
        own[name].copy_(model.tensors.get(name))
    return native


def _tokenizer(tokenizer: Tokenizer) -> tuple[dict[str, Any] | None, list[str]]:
    """Return the tokenizer as the data of a tokenizer.json, and a warning if it has no such form."""
    try:
        result: dict[str, Any] = json.loads(tokenizer.to_tokenizer_json())
    except TokenizerError as error:
        return None, [f"the tokenizer cannot be exported: {error.message}"]
    return result, []


def _metadata(
    model: NativeModel, native: GPT, capacity: int, tokens: int, tokenizer: dict[str, Any] | None
) -> dict[str, Any]:
    import gptkit

    return {
        "gptkit": gptkit.__version__,
        "torch": torch.__version__,
        "name": model.name,
        "signature": _SIGNATURE,
        "vocab_size": native.vocab_size,
        "dtype": str(native.dtype).removeprefix("torch."),
        "capacity": capacity,
        "tokens": tokens,
        "start_id": model.tokenizer.start_id,
        "end_id": model.tokenizer.end_id,
        "tokenizer": tokenizer,
    }


def _save(traced: Traced, path: Path, metadata: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.export.save(traced.program, path, extra_files={METADATA: json.dumps(metadata)})
    except OSError:
        raise
    except Exception as error:  # what torch cannot serialize
        raise ExternalModelError(f"torch cannot save the program: {type(error).__name__}: {error}") from None


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
        _through(program, ids_BT.flip(1), tokens)
        logits_TV = _through(program, ids_BT, tokens)[0]
    largest, scale = float((logits_TV - expected_TV).abs().max()), max(1.0, float(expected_TV.abs().max()))
    whole = model.dtype in (torch.float32, torch.float64)
    sentences: list[str] = [
        Note("checked: the file was loaded again; prompt, single tokens and a second text were computed with its cache"),
        Note(difference(expected_TV, logits_TV)),
    ]
    if not largest <= (1e-3 if whole else 5e-2) * scale:
        problem = f"the logits of the written program differ from the model's by up to {largest:.2g}"
        if whole:
            raise ExternalModelError(f"{problem}, so it was discarded", hint="Report this with the spec of the model.")
        sentences.append(f"{problem}; rounding to {str(model.dtype).removeprefix('torch.')} may cause this")
    return sentences


def _through(program: Any, ids_BT: Tensor, tokens: int) -> Tensor:
    """Return the logits of a text, (1, T, V): its first half in calls of at most `tokens`, then one token a call."""
    n_tokens, position, parts = ids_BT.shape[1], 0, []
    while position < n_tokens:
        n_now = min(tokens, max(1, (n_tokens + 1) // 2 - position))
        parts.append(program(ids_BT[:, position : position + n_now], torch.tensor(position)))
        position += n_now
    return torch.cat(parts, dim=1)
