"""Templates of the absolute positions `learned` and `sinusoidal`, which the embedding adds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gptkit.kinds.written import Name, Setting, WritingContext, Written, fill

if TYPE_CHECKING:
    from gptkit.components.position.learned import LearnedSpec
    from gptkit.components.position.sinusoidal import SinusoidalSpec

__all__ = ["learned", "sinusoidal"]

_LEARNED = '''
class $class_name(nn.Module):
    """Learned positions: a trained vector for each position."""

    def __init__(self$parameters) -> None:
        super().__init__()
        self.table = nn.Embedding($N_POSITIONS, D_MODEL)

    def forward(self, positions_T: Tensor) -> Tensor:
        """Return the vectors of positions, (T,) to (T, E)."""
        #if offset
        return self.table(positions_T + $offset)  # the first rows are unused
        #else
        return self.table(positions_T)
        #end
'''

_SINUSOIDAL = '''
def $class_name(positions_T: Tensor$parameters) -> Tensor:
    """Sinusoidal positions: sines and cosines of growing wavelengths, (T,) to (T, E)."""
    exponents = torch.arange(D_MODEL // 2, device=positions_T.device).float() / $steps
    angles = $positions[..., None].float() * $POSITION_BASE**-exponents
    return $waves
'''


def learned(spec: LearnedSpec, context: WritingContext) -> Written:
    """Return the table as a class."""
    size = spec.size or context.context_length
    whole = size == context.context_length and not spec.offset
    return Written(
        "LearnedPosition",
        fill(_LEARNED, offset=spec.offset),
        settings={"N_POSITIONS": Setting(Name("CONTEXT_LENGTH") if whole else size + spec.offset, "rows of the table")},
        calls={"embed": "self.position(positions_T)"},
        section="embedding",
        fields=["size", "offset"],
    )


def sinusoidal(spec: SinusoidalSpec) -> Written:
    """Return the sines and cosines as a function."""
    both = "(angles.sin(), angles.cos()), dim=-1)"
    waves = f"torch.cat({both}" if spec.layout == "half" else f"torch.stack({both}.flatten(-2)"
    text = fill(
        _SINUSOIDAL,
        steps="(D_MODEL // 2 - 1)" if spec.endpoint else "(D_MODEL // 2)",
        positions=f"(positions_T + {spec.offset})" if spec.offset else "positions_T",
        waves=waves if spec.scale == 1 else f"{spec.scale} * {waves}",
    )
    return Written(
        "sinusoidal",
        text,
        settings={"POSITION_BASE": Setting(spec.base, "ratio of the longest wavelength to the shortest")},
        calls={"embed": "$sinusoidal(positions_T$sinusoidal_arguments)"},
        fields=["base", "scale", "layout", "offset", "endpoint"],
        section="embedding",
    )
