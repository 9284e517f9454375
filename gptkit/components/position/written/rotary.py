"""Template of position `rotary`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gptkit.kinds.position import HeadShape
from gptkit.kinds.written import Setting, WritingContext, Written, fill, written

if TYPE_CHECKING:
    from gptkit.components.position.rotary import RotarySpec

__all__ = ["rotary"]

_FUNCTION = '''
def $class_name(x_BHTD: Tensor, positions_T: Tensor$parameters) -> Tensor:
    #if partial
    """Rotary position: rotate pairs of features by angles proportional to the position.

    $pairs; the first D_ROTARY features are rotated.
    """
    #else
    """Rotate pairs of features, $pairs, by angles proportional to the position."""
    #end
    #if $LAST
    first_BHTD, x_BHTD = x_BHTD[..., :-$D_LAST], x_BHTD[..., -$D_LAST:]
    #end
    #if partial
    x_BHTD, unrotated_BHTD = x_BHTD[..., :$D_ROTARY], x_BHTD[..., $D_ROTARY:]
    #end
    exponents = torch.arange(0, x_BHTD.shape[-1], 2, device=x_BHTD.device) / x_BHTD.shape[-1]
    frequencies = 1.0 / $ROTARY_BASE**exponents  # radians per token, by pair
    #if $SCALED
    frequencies = $scaled
    #end
    angles = positions_T[:, None] * frequencies
    #if amplitude
    cos, sin = $amplitude * angles.cos(), $amplitude * angles.sin()
    cos, sin = cos.to(x_BHTD.dtype), sin.to(x_BHTD.dtype)
    #else
    cos, sin = angles.cos().to(x_BHTD.dtype), angles.sin().to(x_BHTD.dtype)
    #end
    #if reverse
    sin = -sin  # by the negative angle
    #end
    #if interleaved
    a, b = x_BHTD[..., 0::2], x_BHTD[..., 1::2]
    #else
    a, b = x_BHTD.chunk(2, dim=-1)
    #end
    #if $LAST
    rotated_BHTD = $rotated
    return torch.cat((first_BHTD, rotated_BHTD$rest), dim=-1)
    #else
    #if partial
    rotated_BHTD = $rotated
    return torch.cat((rotated_BHTD$rest), dim=-1)
    #else
    return $rotated
    #end
    #end
'''

_INTERLEAVED = "torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1).flatten(-2)"
_HALVES = "torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1)"

_SCALED = "$scaling(frequencies)"
"""The line of layers with scaled frequencies, which others have too, so that one function serves both."""

_TEMPERATURE = '''
def $class_name(positions_T: Tensor$parameters) -> Tensor:
    """Factor of the queries, which keeps attention sharp over many tokens, (T,) to (T, 1).

    It is 1 for the first tokens, and rises with the logarithm of the position.
    """
    steps_T = torch.floor(positions_T / $TEMPERATURE_INTERVAL)
    return 1 + $TEMPERATURE_STRENGTH * torch.log1p(steps_T)[:, None]
'''


def rotary(spec: RotarySpec, context: WritingContext, heads: HeadShape) -> Written:
    """Return the rotation as a function."""
    d_rotary = spec.d_rotary(heads.d_head)
    partial = d_rotary < heads.d_head
    scaling = None if spec.scaling is None else written(spec.scaling, context, base=spec.base, d_rotary=d_rotary)
    amplitude = 1.0 if spec.scaling is None else spec.scaling.amplitude(context)
    pairs = "2i and 2i + 1" if spec.layout == "interleaved" else "i and i + D/2"
    text = fill(
        _FUNCTION,
        partial=partial,
        rotated=_INTERLEAVED if spec.layout == "interleaved" else _HALVES,
        rest=", unrotated_BHTD" if partial else "",
        scaled=_SCALED if scaling is None else scaling.call("scale", frequencies="frequencies"),
        amplitude="" if amplitude == 1 else repr(amplitude),
        reverse=spec.reverse,
        interleaved=spec.layout == "interleaved",
        pairs=f"Features {pairs} are a pair" if partial else pairs,
    )
    settings = {
        "ROTARY_BASE": Setting(spec.base, "base of the rotary frequencies"),
        "SCALED": Setting(scaling is not None, "whether frequencies are scaled"),
        "LAST": Setting(False, "whether a head has more features, of which the last ones are rotated"),
    }
    if partial:
        settings["D_ROTARY"] = Setting(d_rotary, "features of a head that are rotated")
    call = "$rotate($x, positions_T$rotate_arguments)"
    parts = {} if scaling is None or not scaling.text else {"scaling": scaling}
    calls = {"query": call, "key": call, **_recompute(scaling)}
    if spec.temperature:
        parts["temperature"] = _temperature(spec)
        factor = "$temperature(positions_T$temperature_arguments)"
        calls |= {"query": f"{call} * {factor}", "unrotated": f"$x * {factor}"}
    return Written(
        "rotate",
        text,
        settings=settings,
        parts=parts,
        calls=calls,
        section="position",
        variant="" if spec.scaling is None else spec.scaling.name,
        fields=["base", "layout", "fraction", "reverse", "scaling", "temperature", "temperature_interval"],
    )


def _temperature(spec: RotarySpec) -> Written:
    settings = {
        "TEMPERATURE_STRENGTH": Setting(spec.temperature, "factor of the logarithm"),
        "TEMPERATURE_INTERVAL": Setting(spec.temperature_interval, "tokens after which the factor rises"),
    }
    return Written("query_temperature", fill(_TEMPERATURE), settings=settings, section="position")


def _recompute(scaling: Written | None) -> dict[str, str]:
    calls = {} if scaling is None else scaling.calls
    return {"recompute": calls["recompute"]} if "recompute" in calls else {}
