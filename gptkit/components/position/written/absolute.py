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
    exponents = torch.arange(0, D_MODEL, 2, device=positions_T.device).float() / D_MODEL
    angles = positions_T[:, None].float() * $POSITION_BASE**-exponents
    #if scale
    return $scale * torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2)
    #else
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2)
    #end
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
    return Written(
        "sinusoidal",
        fill(_SINUSOIDAL, scale=spec.scale if spec.scale != 1 else 0),
        settings={"POSITION_BASE": Setting(spec.base, "ratio of the longest wavelength to the shortest")},
        calls={"embed": "$sinusoidal(positions_T$sinusoidal_arguments)"},
        fields=["base", "scale"],
        section="embedding",
    )
