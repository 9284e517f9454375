"""Writing of a model as an ONNX file, and the check of the written file with ONNX Runtime."""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gptkit.core.activity import working
from gptkit.core.errors import ExternalModelError, RequirementError, StateError
from gptkit.interop.formats.onnx.decoder import PastDecoder, Piece
from gptkit.interop.formats.onnx.tracing import IDS, LOGITS, POSITION, trace
from gptkit.interop.logits import sample_ids
from gptkit.interop.programs.content import common_metadata, compared, loaded, through, tokenizer_data
from gptkit.interop.programs.tracing import Traced
from gptkit.kinds.format import NativeModel, Note, Progress
from gptkit.model.gpt import GPT

__all__ = ["METADATA", "check_file", "write_file"]

METADATA = "gptkit"
"""Key of the file's metadata whose value is the program's metadata, as JSON."""
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_MOST_BYTES = 3 * 2**29
"""Largest size of the weights in bytes: the exporter writes more to a second file."""
_N_CHECKED = 64
_SIGNATURE = f"{IDS}: int64 (1, T), {POSITION}: int64 (), past.…: (1, H, P, D) -> {LOGITS}: float32 (1, T, V), present.…"


def write_file(
    model: NativeModel, path: Path, *, tokens: int | None = None, progress: Progress | None = None
) -> Sequence[str]:
    """Write a file, load it in ONNX Runtime and compare it with the model.

    Args:
        model: the run's model.
        path: the file.
        tokens: largest number of tokens of a call; by default as many as can be traced.
        progress: receives the file's size when it is written.

    Returns:
        Notes of what was written and checked, and warnings.

    Raises:
        RequirementError: a package of the extra `onnx` is not installed.
        ExternalModelError: an option exceeds what the model supports, the model cannot be expressed or saved, or the written
            file computes other logits.
    """
    _require_packages()
    length = model.spec.context_length
    if tokens is not None and tokens > length:
        raise ExternalModelError(
            f"tokens={tokens} exceeds the model's context length of {length}", hint=f"Set tokens={length} or less."
        )
    size = sum(entry.bytes // entry.dtype.itemsize * 4 for entry in model.tensors.entries.values())
    if size > _MOST_BYTES:
        raise ExternalModelError(
            f"the weights have {size / 1e9:.1f} GB in fp32, and an ONNX model of one file is limited to 1.6 GB",
            hint="Export to torch-export, which has no such limit.",
        )
    with working("tracing the model"):
        # ONNX Runtime computes few operators in bf16 on a CPU.
        native = loaded(model, torch.float32)
        try:
            decoder = PastDecoder(native)
        except StateError as error:
            raise ExternalModelError(
                f"the program needs a static cache: {error.message}",
                hint="Choose a scaling that does not depend on the length (yarn, linear), or export to another format.",
            ) from None
        traced = trace(decoder, tokens)
    tokenizer, remarks = tokenizer_data(model.tokenizer)
    metadata = common_metadata(model, native, _SIGNATURE, tokenizer)
    metadata |= {"context_length": length, "tokens": traced.tokens}
    with working("writing the file"):
        _save(traced, path, metadata)
    if progress is not None:
        written = path.stat().st_size
        progress(written, written)
    ids_BT = sample_ids(model.tokenizer, min(_N_CHECKED, length), native.vocab_size)
    checked = check_file(path, native, decoder.pieces, ids_BT, traced.tokens)
    return [*_notes(model, traced, length), *remarks, *checked]


def _require_packages() -> None:
    for name in _PACKAGES:
        try:
            importlib.import_module(name)
        except ImportError:
            raise RequirementError(
                f"the format onnx requires {name}, which is not installed", hint="Run: pip install 'gptkit[onnx]'"
            ) from None


def _save(traced: Traced, path: Path, metadata: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    model = traced.program.model
    # The exporter stores the source lines of every operator, with the paths of this machine.
    for part in (model.graph, *model.functions.values()):
        for node in part.all_nodes():
            node.metadata_props.clear()
            node.doc_string = None
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.metadata_props[METADATA] = json.dumps(metadata)
    try:
        traced.program.save(path, external_data=False)
    except OSError:
        raise
    except Exception as error:  # what the package cannot serialize
        raise ExternalModelError(f"the ONNX model cannot be saved: {type(error).__name__}: {error}") from None


def _notes(model: NativeModel, traced: Traced, length: int) -> list[Note]:
    calls = f"calls of 1 to {traced.tokens} tokens" if traced.tokens > 1 else "calls of one token"
    notes = [
        Note(
            f"wrote an ONNX model for texts of up to {length} tokens, {calls}; the cache is passed as past.… and returned "
            "as present.…"
        )
    ]
    if traced.problem is not None:
        notes.append(Note(f"calls of several tokens could not be traced: {traced.problem}"))
    dtypes = {entry.dtype for entry in model.tensors.entries.values()} - {torch.float32}
    if dtypes:
        names = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes))
        notes.append(Note(f"weights in {names} were converted to float32"))
    return notes


@torch.no_grad()
def check_file(path: Path, model: GPT, pieces: Sequence[Piece], ids_BT: Tensor, tokens: int) -> list[str]:
    """Load a written file in ONNX Runtime, and compare its logits with those of the model without a cache.

    The first half of the text is given in calls of as many tokens as a call takes, the rest one by one.

    Args:
        path: the file.
        model: the model.
        pieces: the tensors of the cache.
        ids_BT: the text, (1, T).
        tokens: largest number of tokens of a call.

    Raises:
        ExternalModelError: ONNX Runtime does not load the file, or the logits differ.
    """
    runtime: Any = importlib.import_module("onnxruntime")
    with working("checking the file"):
        options = runtime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its own classes are private
            raise ExternalModelError(
                f"ONNX Runtime does not load the file, so it was discarded: {error}",
                hint="Report this with the spec of the model.",
            ) from None
        past = {piece.past: piece.empty().numpy() for piece in pieces}

        def call(ids: Tensor, position: int) -> Tensor:
            given = {IDS: ids.numpy(), POSITION: torch.tensor(position).numpy(), **past}
            logits, *present = session.run(None, {name: given[name] for name in inputs})
            past.update(zip(past, present, strict=True))
            return torch.from_numpy(logits)

        inputs = [each.name for each in session.get_inputs()]
        expected_TV = model(ids_BT).logits[0].float()
        logits_TV = through(call, ids_BT, tokens)[0]
    how = "checked: ONNX Runtime loaded the file; a prompt and single tokens were computed with its cache"
    return compared(model, expected_TV, logits_TV, how=how)
