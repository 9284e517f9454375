"""Tracing of a `Decoder` to a program that consists of torch's own operators."""

from __future__ import annotations

import warnings
from typing import Any

import torch

from gptkit.interop.formats.torch_export.decoder import Decoder
from gptkit.interop.programs.operators import checked
from gptkit.interop.programs.tracing import Traced, trace_calls
from gptkit.ops.grouped import in_torch_operators

__all__ = ["trace"]

_EXAMPLE = 7
_CONSEQUENCE = "the program could not be loaded by torch alone"


def trace(decoder: Decoder, capacity: int, tokens: int | None) -> Traced:
    """Trace a decoder for any number of tokens of a call up to `tokens`; the program is a `torch.export.ExportedProgram`.

    Args:
        decoder: the decoder.
        capacity: largest number of tokens of a text.
        tokens: largest number of tokens of a call; None for as many as can be traced.

    Raises:
        ExternalModelError: a component cannot be traced, or an operator is not torch's own; gives component and reason.
    """
    return trace_calls(lambda most: checked(_exported(decoder, most), _CONSEQUENCE), decoder.model, capacity, tokens)


def _exported(decoder: Decoder, most: int) -> Any:
    device = decoder.model.device
    example = (
        torch.zeros(1, min(_EXAMPLE, most), dtype=torch.long, device=device),
        torch.zeros((), dtype=torch.long, device=device),
    )
    varies = {1: torch.export.Dim("T", min=1, max=most)} if most > 1 else {}
    with warnings.catch_warnings(), torch.no_grad(), in_torch_operators():
        warnings.simplefilter("ignore")
        return torch.export.export(decoder, example, dynamic_shapes={"ids": varies, "position": None}, strict=False)
