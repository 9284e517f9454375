"""Templates of `alibi` and `query-temperature`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gptkit.kinds.position import HeadShape
from gptkit.kinds.written import Setting, Written, fill, number

if TYPE_CHECKING:
    from gptkit.components.position.alibi import AlibiSpec
    from gptkit.components.position.query_temperature import QueryTemperatureSpec

__all__ = ["alibi", "query_temperature"]

_ALIBI = '''
def $class_name(positions_T: Tensor, n_keys: int$parameters) -> Tensor:
    """Attention with linear biases (ALiBi): a term of the scores that falls with the distance.

    $description
    """
    keys_S = torch.arange(n_keys, device=positions_T.device)
    #if geometric
    slopes = [2.0 ** ($exponent * (head + 1) / $N_HEADS) for head in range($N_HEADS)]
    #else
    slopes = [
        $slopes
    ]
    #end
    #if rounded
    slopes_H11 = torch.tensor(slopes, device=positions_T.device).bfloat16()[:, None, None]
    return (slopes_H11 * keys_S).float()$times
    #else
    slopes_H11 = torch.tensor(slopes, device=positions_T.device)[:, None, None]
    return -slopes_H11 * (positions_T[:, None] - keys_S)$times
    #end
'''

_TEMPERATURE = '''
def $class_name(positions_T: Tensor$parameters) -> Tensor:
    """Factor of the queries, which keeps attention sharp over many tokens, (T,) to (T, 1).

    #if power
    It rises with a power of the position.
    """
    return torch.pow(1 + (positions_T[:, None] + 1) / $TEMPERATURE_INTERVAL, $TEMPERATURE_STRENGTH)
    #elif smooth
    It is 1 for the first tokens, and rises with the logarithm of the position, without steps.
    """
    steps_T = ((positions_T + 1) / $TEMPERATURE_INTERVAL).clamp(min=1)
    return 1 + $TEMPERATURE_STRENGTH * torch.log(steps_T)[:, None]
    #else
    It is 1 for the first tokens, and rises with the logarithm of the position.
    """
    steps_T = torch.floor((positions_T + 1) / $TEMPERATURE_INTERVAL)
    return 1 + $TEMPERATURE_STRENGTH * torch.log1p(steps_T)[:, None]
    #end
'''


def alibi(spec: AlibiSpec, heads: HeadShape) -> Written:
    """Return the term as a function."""
    slopes = spec.slopes(heads.n_heads)
    geometric = heads.n_heads & (heads.n_heads - 1) == 0
    text = fill(
        _ALIBI,
        geometric=geometric,
        exponent=number(-spec.max_exponent),
        slopes="" if geometric else "\n        ".join(f"{slope!r}," for slope in slopes),
        rounded=spec.rounded,
        times=" / math.sqrt($D_HEAD)" if spec.scaled else "",
        description="Slope times key position, which is the same to a softmax, as (H, 1, S)."
        if spec.rounded
        else "Minus slope times distance, as (H, T, S).",
    )
    settings = {"N_HEADS": Setting(heads.n_heads, "heads of the queries")}
    if spec.scaled:
        settings["D_HEAD"] = Setting(heads.d_head, "features of a head")
    return Written(
        "alibi",
        text,
        settings=settings,
        calls={"bias": "$alibi(positions_T, $n_keys$alibi_arguments)"},
        section="position",
        fields=["slope_order", "max_exponent", "scaled", "rounded"],
    )


def query_temperature(spec: QueryTemperatureSpec) -> Written:
    """Return the factor as a function."""
    power = spec.growth == "power"
    return Written(
        "query_temperature",
        fill(_TEMPERATURE, power=power, smooth=spec.growth == "smooth"),
        settings={
            "TEMPERATURE_STRENGTH": Setting(spec.strength, "exponent" if power else "factor of the logarithm"),
            "TEMPERATURE_INTERVAL": Setting(spec.interval, "tokens after which the factor rises"),
        },
        calls=dict.fromkeys(("query", "unrotated"), "$x * $query_temperature(positions_T$query_temperature_arguments)"),
        section="position",
        variant="TemperatureScaled",
        fields=["growth", "strength", "interval"],
    )
