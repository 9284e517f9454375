"""Tracing of a `PastDecoder` to an ONNX model."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterator
from typing import Any

import torch

from gptkit.interop.formats.onnx.decoder import PastDecoder
from gptkit.interop.formats.onnx.operators import decompositions, translations
from gptkit.interop.programs.operators import caller, calls, checked
from gptkit.interop.programs.tracing import Traced, trace_calls
from gptkit.ops.grouped import in_torch_operators

__all__ = ["IDS", "LOGITS", "POSITION", "trace"]

IDS, POSITION, LOGITS = "input_ids", "position", "logits"
"""Names of inputs and of the first output."""
_EXAMPLE = 7
_EXAMPLE_PAST = 5
_CONSEQUENCE = "ONNX cannot express it"


def trace(decoder: PastDecoder, tokens: int | None) -> Traced:
    """Trace a decoder for any number of tokens of a call up to `tokens`; the program is a `torch.onnx.ONNXProgram`.

    Args:
        decoder: the decoder.
        tokens: largest number of tokens of a call; None for as many as can be traced.

    Raises:
        ExternalModelError: a component cannot be traced, or an operator cannot be expressed; gives component and reason.
    """
    return trace_calls(lambda most: _converted(decoder, most), decoder.model, decoder.model.context_length, tokens)


def _converted(decoder: PastDecoder, most: int) -> Any:
    program = checked(_exported(decoder, most), _CONSEQUENCE)
    pieces = decoder.pieces
    shapes: tuple[Any, ...] = (
        {1: "tokens"} if most > 1 else {},
        {},
        [{2: "past"} if None in piece.shape else {} for piece in pieces],
    )
    try:
        with _quiet():
            return torch.onnx.export(
                program,
                dynamo=True,
                verbose=False,
                input_names=[IDS, POSITION, *(piece.past for piece in pieces)],
                output_names=[LOGITS, *(piece.present for piece in pieces)],
                dynamic_shapes=shapes,
                custom_translation_table=translations(),
            )
    except Exception as error:  # the exporter's own classes are private
        operator = _operator(error)
        if operator is None:
            raise
        node = next((node for node in calls(program.graph_module) if str(node.target) == operator), None)
        who = "the model" if node is None else caller(node)
        raise ValueError(f"{who} calls the operator {operator}, which the exporter does not express in ONNX") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress what the exporter prints and logs: its progress, and which packages are not installed."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _exported(decoder: PastDecoder, most: int) -> Any:
    device = decoder.model.device
    tokens = {1: torch.export.Dim("tokens", min=1, max=most)} if most > 1 else {}
    past = torch.export.Dim("past", min=0)
    example = (
        torch.zeros(1, min(_EXAMPLE, most), dtype=torch.long, device=device),
        torch.full((), _EXAMPLE_PAST, dtype=torch.long, device=device),
        [piece.empty(_EXAMPLE_PAST).to(device) for piece in decoder.pieces],
    )
    shapes = {
        "ids": tokens,
        "position": None,
        "past": [{2: past} if None in piece.shape else {} for piece in decoder.pieces],
    }
    with warnings.catch_warnings(), torch.no_grad(), in_torch_operators():
        warnings.simplefilter("ignore")
        program = torch.export.export(decoder, example, dynamic_shapes=shapes, strict=False)
        return program.run_decompositions(decompositions())


def _operator(error: BaseException | None) -> str | None:
    """Return the operator that the exporter does not express, if an error in the chain names one."""
    while error is not None:
        if match := re.search(r"No ONNX function found for <OpOverload\(op='([^']+)', overload='([^']+)'\)>", str(error)):
            return f"{match[1]}.{match[2]}"
        error = error.__cause__
    return None
