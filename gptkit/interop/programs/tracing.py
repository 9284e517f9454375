"""Tracing of a model for calls of as many tokens as possible."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gptkit.core.errors import ExternalModelError
from gptkit.interop.programs.operators import reason
from gptkit.interop.programs.states import has_recurrence
from gptkit.model.gpt import GPT

__all__ = ["Traced", "trace_calls"]

_CHUNK = 64
"""Tokens that a recurrence computes at once; the number of chunks is fixed in a program, so it is one."""

_OTHERS = "Export to plain PyTorch (gptkit eject) or for transformers (--to hugging-face)."


@dataclass(frozen=True)
class Traced:
    """A traced model.

    Attributes:
        program: the program.
        tokens: largest number of tokens of a call.
        problem: why a call has one token only, although several were tried; None if they were not, or could be traced.
    """

    program: Any
    tokens: int
    problem: str | None = None


def trace_calls(attempt: Callable[[int], Any], model: GPT, length: int, tokens: int | None) -> Traced:
    """Trace a model for any number of tokens of a call up to `tokens`; if that fails, for one token.

    Args:
        attempt: traces calls of up to the given number of tokens, and returns the program.
        model: the model.
        length: largest number of tokens of a text.
        tokens: largest number of tokens of a call; None for as many as can be traced.

    Raises:
        ExternalModelError: a component cannot be traced; gives the reason. Or `attempt` raised it.
    """
    most = tokens
    if most is None:
        most = min(length, _CHUNK) if has_recurrence(model) else length
    try:
        return Traced(attempt(most), most)
    except ExternalModelError:
        raise
    except Exception as error:  # whatever torch or a component raises
        problem = reason(error, model)
        if most == 1 or tokens is not None:
            remedy = "Set tokens=1, for a program that takes one token at a time." if most > 1 else _OTHERS
            raise ExternalModelError(
                f"the model cannot be traced for calls of up to {most} tokens: {problem}", hint=remedy
            ) from None
    try:
        return Traced(attempt(1), 1, problem)
    except ExternalModelError:
        raise
    except Exception as error:
        raise ExternalModelError(f"the model cannot be traced: {reason(error, model)}", hint=_OTHERS) from None
