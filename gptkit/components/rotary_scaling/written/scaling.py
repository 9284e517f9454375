"""Templates of the scalings of rotary frequencies."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from gptkit.kinds.written import WritingContext, Written, fill

if TYPE_CHECKING:
    from gptkit.components.rotary_scaling.dynamic import DynamicScalingSpec
    from gptkit.components.rotary_scaling.llama3 import Llama3ScalingSpec
    from gptkit.components.rotary_scaling.longrope import LongRopeScalingSpec
    from gptkit.components.rotary_scaling.proportional import ProportionalScalingSpec
    from gptkit.components.rotary_scaling.yarn import YarnScalingSpec

__all__ = ["dynamic", "llama3", "longrope", "proportional", "yarn"]

_LLAMA3 = '''
def $class_name(frequencies: Tensor) -> Tensor:
    """Frequencies for longer texts than in training, as in Llama 3.1.

    Pairs that rotate often within the trained length keep their frequency; that of pairs that
    rotate rarely is divided by $factor; those in between are interpolated.
    """
    rotations = $trained * frequencies / (2 * torch.pi)  # within the trained length
    #if span
    kept = ((rotations - $low) / $span).clamp(0, 1)  # 0 below $low rotations, 1 above $high
    #else
    kept = (rotations >= $low).float()
    #end
    return (1 - kept) * frequencies / $factor + kept * frequencies
'''

_YARN = '''
def $class_name(frequencies: Tensor) -> Tensor:
    """Frequencies for longer texts than in training (YaRN).

    High frequencies, those of the first pairs, are kept; low ones are divided by $factor; those
    between pair $low and pair $high are interpolated.
    """
    pairs = torch.arange(len(frequencies), device=frequencies.device)
    divided = ((pairs - $low) / $width).clamp(0, 1)
    return frequencies / $factor * divided + frequencies * (1 - divided)
'''


_LONGROPE = '''
def $class_name(frequencies: Tensor, length: int) -> Tensor:
    """Frequencies for texts of a length (LongRoPE): divided by one set of numbers or by another."""
    short = [
        $short
    ]
    long = [
        $long
    ]
    divisors = torch.tensor(long if length > $trained else short, device=frequencies.device)
    return frequencies / divisors
'''

_DYNAMIC = '''
def $class_name(frequencies: Tensor, length: int) -> Tensor:
    """Frequencies for longer texts (dynamic NTK): the base grows with the length."""
    growth: float = ($factor * max(length, $trained) / $trained - $rest) ** $power
    exponents = torch.arange(len(frequencies), device=frequencies.device) / len(frequencies)
    return frequencies / growth**exponents
'''


_PROPORTIONAL = '''
def $class_name(frequencies: Tensor) -> Tensor:
    """Frequencies of which only the highest rotate (p-RoPE): those of the first $n_pairs pairs."""
    rotates = torch.arange(len(frequencies), device=frequencies.device) < $n_pairs
    return torch.where(rotates, frequencies$divided, 0.0)
'''


def proportional(spec: ProportionalScalingSpec, d_rotary: int) -> Written:
    """Return the scaling as a function."""
    divided = "" if spec.factor == 1 else f" / {_number(spec.factor)}"
    text = fill(_PROPORTIONAL, n_pairs=spec.n_pairs(d_rotary), divided=divided)
    return _function(text, ("fraction", "factor"))


def llama3(spec: Llama3ScalingSpec) -> Written:
    """Return the scaling as a function."""
    span = spec.high_frequency_factor - spec.low_frequency_factor
    text = fill(
        _LLAMA3,
        factor=_number(spec.factor),
        trained=spec.original_context_length,
        low=_number(spec.low_frequency_factor),
        span=_number(span) if span else "",
        high=_number(spec.high_frequency_factor),
    )
    fields = ("factor", "low_frequency_factor", "high_frequency_factor", "original_context_length")
    return _function(text, fields)


def yarn(spec: YarnScalingSpec, context: WritingContext, base: float, d_rotary: int) -> Written:
    """Return the scaling as a function."""
    low, high = spec.ramp(base, d_rotary, context)
    text = fill(_YARN, factor=_number(spec.factor), low=_number(low), high=_number(high), width=_number(high - low or 0.001))
    fields = ("factor", "original_context_length", "beta_fast", "beta_slow", "truncate", "attention_factor")
    return _function(text, fields)


def longrope(spec: LongRopeScalingSpec, context: WritingContext) -> Written:
    """Return the scaling as a function of the length."""
    trained = spec.original_context_length or context.context_length
    lists = {name: _rows(divisors) for name, divisors in (("short", spec.short), ("long", spec.long))}
    fields = ("short", "long", "factor", "original_context_length", "attention_factor")
    return _by_length(fill(_LONGROPE, trained=trained, **lists), f"cache.length == {trained}", fields)


def dynamic(spec: DynamicScalingSpec, context: WritingContext, d_rotary: int) -> Written:
    """Return the scaling as a function of the length."""
    trained = spec.original_context_length or context.context_length
    text = fill(
        _DYNAMIC,
        factor=_number(spec.factor),
        rest=_number(spec.factor - 1),
        trained=trained,
        power=_number(d_rotary / (d_rotary - 2) if d_rotary > 2 else 1.0),
    )
    return _by_length(text, f"cache.length >= {trained}", ("factor", "original_context_length"))


def _by_length(text: str, recompute: str, fields: Collection[str]) -> Written:
    calls = {"scale": "$scaling($frequencies, length=int(positions_T[-1]) + 1)", "recompute": recompute}
    return Written("scale_frequencies", text, calls=calls, section="position", fields=fields)


def _rows(numbers: tuple[float, ...]) -> str:
    """Return the items of a list, one in each line, as a formatter writes a long list."""
    return "\n        ".join(f"{_number(number)}," for number in numbers)


def _function(text: str, fields: Collection[str]) -> Written:
    calls = {"scale": "$scaling($frequencies)"}
    return Written("scale_frequencies", text, calls=calls, section="position", fields=fields)


def _number(value: float) -> str:
    return repr(int(value) if value == int(value) else value)
